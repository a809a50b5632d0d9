/**
 * Everything native, listed and documented in one place. What is here trusts its arguments: checks and defaults are
 * made by the modules that call it. The addon is `native/` built by cmake-js; `virt-init` lies beside it.
 */
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

/** Plain data as it crosses the border: whole numbers, text, Buffers, lists and records of them. */
export type Data = null | boolean | number | string | Buffer | Data[] | { [key: string]: Data | undefined };

export interface NativeLaunchOptions {
  init: string;
  socket: string;
  stateDir: string;
  stdio: "inherit" | "streams" | "terminal";
  /** Descriptors that become virt-init's 0, 1, 2. */
  fds?: number[];
  rows?: number;
  columns?: number;
  keepInput?: boolean;
  /** The connection that launch() gives views the terminal or the streams from the start. */
  viewed?: boolean;
  /** Output is never dropped for it. */
  patient?: boolean;
  rebuild?: boolean;
  /** Sockets of it lead through a holder on another host. */
  far?: boolean;
  record?: "none" | "default" | "all";
  /** src/rules/encode.ts. */
  rules?: Buffer;
  /** Bits of kinds of calls (native/interpose/calls.h). */
  covered?: number;
  /** The connection answers hooks. */
  hooked?: boolean;
  ptsIndex?: number;
  hostname?: string;
  cwd?: string;
  remaps?: { from: string; to: string }[];
  /** After the remaps, in this order (MountOperation in native/init/protocol.h). Paths without symbolic links. */
  mounts?: { operation: string; path: string; source?: string }[];
  /** Nobody in the pod can undo its mounts. */
  isolated?: boolean;
  noNetwork?: boolean;
  noDevices?: boolean;
  /** Files that only this pod sees: overlays and single files, parents before what lies in them. */
  layers?: NativeLayer[];
  argv?: string[];
  env?: string[];
}

/** native/init/protocol.h, LayerKind. `source`: the directory that has `upper` and `work`, or the file. */
export interface NativeLayer {
  kind: "overlay" | "assembled" | "file";
  at: string;
  source: string;
}

export interface NativeProgress {
  phase: string;
  doneBytes: number;
  totalBytes: number;
}

/**
 * One end of a move: frames over descriptors. Pages and files go from memory to the descriptor and from it into a
 * directory, natively; JavaScript sees control messages only. native/move/wire.h
 */
export interface NativeWire {
  /** A control message, in order with all data. At most 1 MiB. */
  send(message: Buffer): Promise<void>;
  /** The next control message; undefined at the end of the stream. Data before it is in the directory then. */
  next(): Promise<Buffer | undefined>;
  /** A file of a directory goes across, under its name there. */
  sendFile(directoryFd: number, name: string): Promise<void>;
  /** From now on pages and files are taken, into this directory; without that data is ERR_MOVE_PROTOCOL. */
  receiveInto(directoryFd: number): void;
  progress(): { sentBytes: number; receivedBytes: number };
  /** Bytes a second; 0: no limit. */
  limit(bytesPerSecond: number): void;
  /** Whatever waits rejects with ERR_ABORTED. */
  close(): Promise<void>;
}

/** A capture on its own thread. Collected or closed without release(), it leaves the pod running. */
export interface NativeCapture {
  /** With a wire: a moment's stop for a survey; from now on what the pod's processes write is watched. May be said again, for processes that came since. */
  track(): Promise<Record<string, Data>>;
  /** With a wire: a round of pre-copy, while the pod runs. */
  copy(): Promise<{ dirtyBytes: number; watched: number }>;
  /** Freezes and surveys; the record has `blockers`, and all of the image but pages. */
  survey(): Promise<Record<string, Data>>;
  /** Writes carried files into the directory, and pages too (and reads them back), or sends them over the wire. */
  read(directoryFd: number): Promise<Record<string, Data>>;
  /** Puts other descriptors in place of those that processes have; after survey(). */
  remap(changes: Data): Promise<void>;
  /**
   * Gives init what leads to outside, to keep after release() under a socket of this name beside its own; whoever takes it
   * must know the key (32 bytes). With count 0 nothing is kept. `reach`: where other hosts find it; port 0 lets the kernel choose;
   * `cutLimitMs`: how long the way to them may be cut.
   */
  hold(
    name: string,
    key: Buffer,
    reach: { address: string; port: number; cutLimitMs?: number } | null,
  ): Promise<{
    count: number;
    port?: number;
    /** Relays to holders elsewhere that stand still (`leave`). */
    far: {
      address: string;
      port: number;
      cutLimitMs: number;
      key: Buffer;
      state: Buffer;
      listeners: [number, number][];
    }[];
    /** States of TCP connections by handle; null: it has ended. */
    repaired: [handle: number, state: Data | null][];
  }>;
  thaw(): Promise<void>;
  /** init kills everything in the pod. */
  release(): Promise<void>;
  stop(): void;
  progress(): NativeProgress;
  close(): Promise<void>;
}

/** A rebuild on its own thread. Collected or closed before commit(), nothing is left of it. */
export interface NativeRebuild {
  build(): Promise<{ initPid: number; notes: string[] }>;
  /** The pod lives; gives our control connection. */
  commit(): Promise<number>;
  stop(): void;
  progress(): NativeProgress;
  close(): Promise<void>;
}

export interface Native {
  /** Starts virt-init; gives the fd of the first control connection. Blocks a few milliseconds. */
  launch(options: NativeLaunchOptions): number;
  /** Connects to a pod's control socket, whose owner and directory are checked. */
  connect(path: string): number;
  /** The host pid of the init at the other end of a control connection that was made by connect(). */
  peerPid(fd: number): number;
  /** Reads every page of an image and compares it with its hash; ERR_IMAGE_DAMAGED names the first bad one. */
  verifyPages(directory: string, pagesInPart: number[]): Promise<void>;
  /** What of these paths is there, without content: native/files/list.h. */
  listFiles(request: { [key: string]: Data }): Promise<unknown>;
  /** Content of what listFiles() found, into new files of a directory; gives their sizes. native/files/list.h */
  copyFiles(request: { [key: string]: Data }): Promise<unknown>;
  /** Makes carried files below a directory: native/files/place.h. */
  placeFiles(request: { [key: string]: Data }): Promise<unknown>;
  /** Bytes on a socket, descriptors riding on the first. */
  sendFds(fd: number, bytes: Buffer, fds: number[]): void;
  /** socketpair(2): two connected streams, close-on-exec. Whoever calls closes them. */
  socketPair(): [number, number];
  /**
   * What standard input and output were, under other numbers and close-on-exec. From then on 0 is /dev/null and 1 is what
   * 2 is, so that nothing of ours or of a child can get in between. Whoever calls closes them.
   */
  takeStandardStreams(): [number, number];
  /** isatty(3). */
  isTerminal(fd: number): boolean;
  /** Random bytes as hex; node:crypto would take longer to load than a program to launch. */
  randomHex(bytes: number): string;
  /** "EPERM" for 1. */
  errnoName(errno: number): string;
  /** flock(2), exclusive; true if we have it now. It goes with the descriptor. */
  tryLock(fd: number): boolean;
  /** What the host can do, found by trying. */
  probe(): {
    kernel: string;
    arch: string;
    pageSizeBytes: number;
    features: Record<string, true | string>;
    xstate: number[][];
  };
  /** The payload of an exec request. */
  encodeExec(plan: {
    stdio: "inherit" | "streams" | "terminal";
    rows?: number;
    columns?: number;
    cwd?: string;
    argv: string[];
    env: string[];
  }): Buffer;
  /** Takes dups of the descriptors, which may be the same. */
  Wire: new (
    readFd: number,
    writeFd: number,
  ) => NativeWire;
  Capture: new (
    options: {
      socket: string;
      drop?: string[];
      /** Paths of the pod where something else is, by rule. */
      remapped?: string[];
      /** Connections to outside by peer, src/remap/tcp-policy.ts. */
      tcp?: Data;
      /** The pod will be let go of: its init can keep what leads to outside. */
      hold?: boolean;
      /** What leads through holders elsewhere goes on from another host: its relays stand still. */
      leave?: boolean;
      freezeTimeoutMs?: number;
      threads?: number;
      lock?: string;
    },
    wire?: NativeWire,
  ) => NativeCapture;
  Rebuild: new (plan: Record<string, Data>, launch: NativeLaunchOptions) => NativeRebuild;
}

const built = new URL("../build/cmake/Release/", import.meta.url);

/** The native half, loaded on first use. */
export const native: Native = createRequire(import.meta.url)(fileURLToPath(new URL("virt_run.node", built))) as Native;

/** Path of the program that is PID 1 of every pod. */
export const initProgram: string = fileURLToPath(new URL("virt-init", built));
