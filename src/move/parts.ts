/**
 * What the two sides of a move are driven over: the wire, the clock, the pod that goes and the pods that come. The real
 * ones are made of captures and rebuilds; a model test has its own.
 */
import { performance } from "node:perf_hooks";
import type { Blocker } from "../errors.js";
import type { CopyRound } from "./rounds.js";

/** One end of a move: control messages in order with data that JavaScript never sees. */
export interface MoveWire {
  /** A control message, at most 1 MiB; also while data goes across. */
  send(message: Buffer): Promise<void>;
  /**
   * The next control message; undefined at the end of the stream. Data before it is put into the directory of receiveInto()
   * meanwhile. One call at a time.
   */
  next(): Promise<Buffer | undefined>;
  /** A file of a directory goes across, under its name there. */
  sendFile(directoryFd: number, name: string): Promise<void>;
  /** From now on pages and files are taken, into this directory; before that they are an error. */
  receiveInto(directoryFd: number): void;
  /** So far, data and messages. */
  progress(): { sentBytes: number; receivedBytes: number };
  /** Bytes a second; 0: no limit. */
  limit(bytesPerSecond: number): void;
  /** What waits for it rejects or ends. */
  close(): Promise<void>;
}

/** Time, so that a model can have its own. */
export interface MoveClock {
  /** Milliseconds since some moment. */
  now(): number;
  /** Calls once, that many milliseconds later; gives the function that prevents it. */
  after(ms: number, f: () => void): () => void;
}

/** The clock on the wall. Its timers keep the process alive: something is being waited for. */
export const systemClock: MoveClock = {
  now: () => performance.now(),
  after: (ms, f) => {
    const timer = setTimeout(f, ms);
    return () => clearTimeout(timer);
  },
};

/** A pod's manifest as far as it is known while it runs. */
export interface Draft {
  /** The manifest as JSON, without pages. */
  manifest: string;
  /** Why it cannot be moved at all. */
  blockers: Blocker[];
  /** Memory, about, in bytes. */
  totalBytes: number;
}

/** A pod that is to go away, and the one capture of it. Whatever drops it, a kill of this process included, thaws the pod. */
export interface SourcePod {
  readonly id: string;
  readonly name: string;
  /** Of the pod's record; the pod's id if it never moved. An image that is reattached by hand begins a new one. */
  readonly lineage: string;
  /** Of the pod's record: of the last move that brought it here; 0 if none did. */
  readonly epoch: number;
  /** What the target says of its host; unchecked. */
  met(host: Record<string, unknown>): void;
  /**
   * Takes the pod's lock at init, which has then done all that a dead supervisor told it; then a brief stop: what the pod has,
   * and from now on what it writes to. Rejects with ERR_POD_GONE if it is gone.
   */
  track(): Promise<Draft>;
  /** What was written to since the last round, or everything, goes across while the pod runs. */
  copy(wire: MoveWire): Promise<CopyRound>;
  /**
   * The pod stands still from here on; the rest of it, files and the manifest go across. Rejects with ERR_BLOCKED for what came up meanwhile.
   * @param wanted paths of files in the draft that the target lacks
   */
  stop(wire: MoveWire, wanted: ReadonlySet<string>): Promise<void>;
  /** init kills the pod and writes down that it was let go of; holders of connections start. Resolves when no process of it is left. */
  release(): Promise<void>;
  /** The pod goes on, if it stood still; what was being done ends with an error. Not after release(). */
  thaw(): Promise<void>;
}

/**
 * What has become of a pod whose supervisor died: it "runs"; init has let go of it ("released"); it "ended" by itself; nobody
 * wrote down how it ended ("lost": its host went down).
 */
export type PodFate = "runs" | "released" | "ended" | "lost";

/** What settling a move asks of the source's pods. */
export interface SourcePods {
  /**
   * Takes the pod's lock at its init first: only then everything that a dead supervisor told init is done, a release among it.
   */
  fate(id: string): Promise<PodFate>;
}

/** What the target is told of a pod that is to come. */
export interface Offer {
  move: string;
  lineage: string;
  epoch: number;
  pod: { id: string; name: string };
  /** Manifest as JSON, unchecked. */
  draft: string;
  totalBytes: number;
}

/** A pod that is built all but the commit. */
export interface ParkedPod {
  readonly id: string;
  readonly name: string;
  /** What could not be had back, in words. */
  readonly notes: readonly string[];
  /** It runs when this resolves. If it rejects, it may. */
  commit(): Promise<void>;
  /** Before commit() nothing is left of it; after, it goes on alone. Rejects nothing. */
  close(): Promise<void>;
}

/** The pods of the target. What belongs to a move is found by the move's id, by any process, at any time. */
export interface TargetPods {
  /** What stands in the way of this pod here. */
  check(offer: Offer): Promise<{ blockers: Blocker[]; facts: Record<string, unknown> }>;
  /** A private directory for its image, empty, where no name of an image leads to. The descriptor is closed by build() and discard(). */
  receive(move: string): Promise<{ directoryFd: number }>;
  /**
   * Checks the image with the reader of a reattach, sees that it is on the disk, and builds the pod from it, parked. Nothing
   * is left of the pod if it rejects; the image stays. `manifest` of the offer may have changed by now.
   * @param epoch goes with lineage into the new pod's record.
   */
  build(move: string, lineage: string, epoch: number): Promise<ParkedPod>;
  /**
   * Whether a pod that was parked by a process that may have died was committed. Waits until it is one or the other for
   * good: its init answers as a running pod's, or is gone.
   */
  ran(id: string): Promise<boolean>;
  /** Whether a pod of this id runs here. */
  runs(id: string): Promise<boolean>;
  /** Removes the image, or what there is of it; ends a build of it that is under way. Not an error if there is nothing. */
  discard(move: string): Promise<void>;
}

/** How a move's two sides wait, and what they say of themselves. */
export interface MoveSettings {
  clock?: MoveClock;
  /** The other side has gone if it neither says nor takes anything for so long, in milliseconds. Default 30 000. */
  silenceMs?: number;
  /** What this side can do beyond the protocol's version. */
  features?: readonly string[];
  /** Of this host, for the other side. */
  host?: Record<string, unknown>;
}
