/**
 * A pod as a supervisor holds it: a living connection to its init, or what is left of one that has ended.
 */
import { EventEmitter } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import type { ControlConnection } from "../control/connection.js";
import { FrameType, type InitStatus, uint32s } from "../control/protocol.js";
import type { Blocker } from "../errors.js";
import { VirtError } from "../errors.js";
import type { Image } from "../image/image.js";
import { type Effect, followJournal, readJournal } from "../journal/journal.js";
import type { MoveOptions } from "../move/move.js";
import type { Moved } from "../move/source.js";
import type { Remap } from "../remap/path.js";
import type { Call } from "../rules/hooks.js";
import { rulesOf } from "../rules/interposition.js";
import type { Rule } from "../rules/rules.js";
import type { DetachOptions } from "./detach.js";
import type { ExecOptions, ExecSession } from "./exec.js";
import { endHolder, refuseIfHolding } from "./holder.js";
import type { PodInfo } from "./inspect.js";
import {
  type Exit,
  exitFromWaitStatus,
  isRunning,
  loadRecord,
  type PodRecord,
  podDirectory,
  readExit,
  refuseIfInDoubt,
  removePod,
  saveRecord,
  signalNumber,
  tryConnect,
} from "./store.js";
import { pipedStreams } from "./streams.js";

interface PodEvents {
  /** The first program has ended; others may live on. Its pid in the pod, and on the host (0: that could not be told). */
  exit: [exit: Exit, process: { pid: number; hostPid: number }];
  /** The pod has ended, was detached, or disconnect() was called (`lost`). */
  end: [exit: Exit];
  /** A hook has thrown, or given no answer; its default was done. */
  hookError: [error: Error, call: Call];
}

/**
 * A pod. Made by launch(), reattach(), connect() or connectLatest(); the same pod may be held by many supervisors. An
 * EventEmitter with two events, each told at most once and with an Exit: `exit` when the first program has ended (others
 * may live on), `end` when the pod has ended or was detached. And `hookError`, with the error and the call, when a hook of
 * this process fails.
 *
 * What asks the pod something rejects with ERR_POD_GONE once it has ended or disconnect() was called.
 *
 * @example
 * const pod = await connect("cache");
 * pod.on("end", (exit) => console.log(exit.detached ? "detached" : "ended"));
 * const image = await pod.detach();
 */
export class Pod extends EventEmitter<PodEvents> implements AsyncDisposable {
  /** 12 hexadecimal digits. A reattached pod has a new one. */
  readonly id: string;
  /** The id, if no name was given. */
  readonly name: string;
  /** Program and arguments of the first process. */
  readonly command: readonly string[];
  /** With stdio "pipe", the program's standard input; null otherwise, as in node:child_process. */
  readonly stdin: Writable | null = null;
  /** With stdio "pipe", what the program writes; null otherwise. The program waits while nobody reads. */
  readonly stdout: Readable | null = null;
  /** As stdout. */
  readonly stderr: Readable | null = null;
  /** What could not be had back at reattach and was not worth failing for, and files in conflict with this host's, in words. */
  readonly notes: readonly string[] = [];
  #record: PodRecord;
  #connection: ControlConnection | undefined;
  #firstExit: Exit | undefined;
  /** We heard everything from the start: what has not been told has not happened. */
  readonly #fromStart: boolean;
  #end: Exit | undefined;
  #ended = false;
  /** disconnect() was called: the end of the connection is not the pod's. */
  #left = false;

  /** @internal */
  constructor(
    record: PodRecord,
    connection: ControlConnection | undefined,
    options: { piped?: boolean; notes?: string[]; fromStart?: boolean } = {},
  ) {
    super();
    this.id = record.id;
    this.name = record.name;
    this.command = record.command;
    this.#record = record;
    this.#connection = connection;
    this.#fromStart = options.fromStart ?? false;
    if (options.notes) this.notes = options.notes;
    if (!connection) {
      this.#ended = true;
      return;
    }
    if (options.piped) {
      const streams = pipedStreams(connection);
      this.stdin = streams.stdin;
      this.stdout = streams.stdout;
      this.stderr = streams.stderr;
    }
    connection.on("exited", (end) => {
      if (!end.first) return;
      this.#firstExit = exitFromWaitStatus(end.waitStatus);
      this.emit("exit", this.#firstExit, { pid: end.pid, hostPid: end.hostPid });
    });
    connection.on("gone", (detached) => {
      this.#end = detached ? { code: null, signal: null, detached: true, lost: false } : this.#firstExit;
    });
    // init closes when it has written everything down and passed everything on.
    connection.on("close", () => this.#finish());
  }

  /** @internal */
  get record(): PodRecord {
    return this.#record;
  }

  /** False when the pod has ended or was detached, and after disconnect(). */
  get running(): boolean {
    return !this.#ended;
  }

  /** The connection to init; ERR_POD_GONE if the pod has ended. @internal */
  get connection(): ControlConnection {
    if (!this.#connection || this.#connection.closed)
      throw new VirtError("ERR_POD_GONE", `the pod ${this.name} has ended`);
    return this.#connection;
  }

  /** What init says of the pod now. Errors: ERR_POD_GONE, ERR_POD_VERSION. */
  async status(): Promise<InitStatus> {
    return this.connection.hello();
  }

  /**
   * Resolves when the first program has ended, with its exit code or signal; or when the pod was detached.
   * Others of its processes may live on: see ended(). Waits without limit; never rejects.
   *
   * @example
   * const { code, signal } = await pod.wait();
   */
  async wait(): Promise<Exit> {
    if (this.#firstExit) return this.#firstExit;
    if (this.#ended) return this.#end ?? this.#readExit();
    if (!this.#fromStart) {
      const status = await this.status().catch(() => undefined);
      // The end may have come with the answer, before anybody here listened for it.
      if (this.#firstExit) return this.#firstExit;
      if (status?.firstEnded) return exitFromWaitStatus(status.waitStatus);
    }
    if (this.#ended) return this.#end ?? this.#readExit();
    return new Promise((resolve) => {
      this.once("exit", resolve);
      this.once("end", resolve);
    });
  }

  /**
   * Resolves when no process of the pod is left, here: it has ended or was detached. The Exit is the first program's. Waits
   * without limit; never rejects.
   *
   * @example
   * const { detached } = await pod.ended();
   */
  async ended(): Promise<Exit> {
    if (this.#ended) return this.#end ?? this.#readExit();
    return new Promise((resolve) => this.once("end", resolve));
  }

  /**
   * Sends a signal (kill(2), signal(7)) to the first program, or to another process of the pod (`pid` as the pod sees it);
   * with `group` to the process group of that number. Default SIGTERM, not to the group.
   *
   * Errors: ERR_PROCESS_GONE (no such process or group), ERR_USAGE (no such signal), ERR_POD_GONE, ERR_SYSCALL (EINVAL:
   * pid 1 is virt-init).
   *
   * @example
   * await pod.kill("SIGHUP");
   * await pod.kill("SIGKILL", { pid: 7 });
   */
  async kill(
    signal: NodeJS.Signals | number = "SIGTERM",
    options: { pid?: number; group?: boolean } = {},
  ): Promise<void> {
    await this.connection.signal(options.pid ?? 0, signalNumber(signal), options.group ?? false);
  }

  /**
   * Sends SIGTERM to the first program; what is left in the pod after `timeoutMs` (milliseconds, default 10 000) is killed.
   * Resolves when the pod has ended. Never rejects.
   *
   * @example
   * const { code } = await pod.stop({ timeoutMs: 2000 });
   */
  async stop(options: { timeoutMs?: number } = {}): Promise<Exit> {
    if (!this.running) return this.ended();
    const ended = this.ended();
    await this.kill("SIGTERM").catch(() => {}); // the first program may have ended before its children
    const timer = setTimeout(() => void this.#killAll(), options.timeoutMs ?? 10_000);
    const exit = await ended;
    clearTimeout(timer);
    return exit;
  }

  /**
   * Kills every process of the pod at once. Resolves when it has ended. Never rejects.
   *
   * @example
   * await pod.destroy();
   */
  async destroy(): Promise<void> {
    if (!this.running) return;
    const ended = this.ended();
    await this.#killAll();
    await ended;
  }

  /**
   * Runs another program in the pod and resolves when it runs. A name without "/" is looked for in the PATH that `env` has.
   *
   * Errors: ERR_NOT_FOUND, ERR_NOT_EXECUTABLE (execve(2)), ERR_LAUNCH (`cwd` is not there), ERR_POD_GONE.
   *
   * @example
   * const session = await pod.exec("ps", ["-ef"]);
   * console.log(await session.wait());
   * session.close();
   */
  async exec(command: string, args: readonly string[] = [], options: ExecOptions = {}): Promise<ExecSession> {
    const { exec } = await import("./exec.js");
    return exec(this, command, args, options);
  }

  /**
   * What would keep the pod from being detached here and now: everything; [] if nothing does. The pod stands still for some
   * milliseconds and goes on. Heeds `drop`, `tcp`, `tcpRules`, `withFiles`, `filesLimitBytes` and `freezeTimeoutMs`; with `snapshot`
   * (default false), what would keep it from a snapshot, which holds no connections; with `target`, as move() takes it, what would keep it
   * from running there (and move()'s errors if nobody is reached).
   *
   * Errors: ERR_NOT_RECORDED, ERR_FILES_LIMIT, ERR_JOURNAL, ERR_POD_GONE, ERR_POD_BUSY, ERR_POD_VERSION, ERR_NOT_PERMITTED, ERR_TOO_MANY_FILES, ERR_SYSCALL; ERR_AGENT (a
   * bug, the pod runs on).
   *
   * @example
   * for (const { message, hint } of await pod.check({ tcp: "close" })) console.log(message, hint);
   */
  async check(options: DetachOptions & { snapshot?: boolean; target?: string } = {}): Promise<Blocker[]> {
    if (options.target !== undefined) {
      const { checkMove } = await import("../move/move.js");
      const { target, snapshot: _, image: __, deliver: ___, onProgress: ____, ...rest } = options;
      this.#reload();
      return checkMove(this, target, rest);
    }
    const { checkPod } = await import("./detach.js");
    this.#reload();
    return checkPod(this, options);
  }

  /**
   * Captures the pod into an image and lets go of it. The pod runs on unharmed if anything fails before the image is
   * complete, verified and safe on disk (fsync(2)). It stands still from the start to the end.
   *
   * Errors: ERR_BLOCKED with all `blockers`; ERR_NOT_RECORDED (`withFiles: "written"` of a pod whose effects are not
   * recorded), ERR_FILES_LIMIT, ERR_JOURNAL; ERR_IMAGE_EXISTS; ERR_IMAGE_WRITE (no space, no permission, `deliver` failed);
   * ERR_ABORTED; ERR_POD_GONE, ERR_POD_BUSY (another command captures it), ERR_POD_VERSION; ERR_FREEZE_TIMEOUT, ERR_TRACED,
   * ERR_32BIT, ERR_NO_VDSO, which check() tells as blockers; ERR_NOT_PERMITTED, ERR_PROCESS_GONE, ERR_VDSO_BUSY,
   * ERR_TOO_MANY_FILES, ERR_UNSAFE_PATH, ERR_SYSCALL; ERR_IMAGE_DAMAGED (the disk gave back something else), ERR_AGENT.
   *
   * @example
   * const image = await pod.detach({ image: "cache", onProgress: (p) => console.log(p.phase, p.doneBytes) });
   * console.log(image.path);
   */
  async detach(options: DetachOptions = {}): Promise<Image> {
    const { detach } = await import("./detach.js");
    this.#reload();
    return detach(this, options, "detach");
  }

  /**
   * As detach(), with the same errors, but the pod goes on when the image is complete.
   *
   * @example
   * const image = await pod.snapshot();
   * console.log(`stood still for ${image.stoppedMs} ms`);
   */
  async snapshot(options: DetachOptions = {}): Promise<Image> {
    const { detach } = await import("./detach.js");
    this.#reload();
    return detach(this, options, "snapshot");
  }

  /**
   * Moves the pod to another host while it runs (docs/move.md), and resolves when it runs there; here it has ended then, as if
   * detached. It runs on here, unharmed, if anything fails before the target has confirmed a whole copy. `target`:
   * "ssh://[user@]host[:port]", "[user@]host:", "tls://host:port" or "unix:PATH".
   *
   * Errors that leave it running: ERR_MOVE_REFUSED with `blockers`, ERR_BLOCKED, ERR_MOVE_LOST, ERR_MOVE_PROTOCOL, ERR_ABORTED, those of the
   * transport (ERR_UNREACHABLE, ERR_AUTHENTICATION, ERR_REMOTE_MISSING, …) and of detach(). ERR_MOVE_IN_DOUBT: the target has the whole
   * pod and did not say that it runs; resumeMove() settles it.
   *
   * @example
   * const { pod: there, stoppedMs } = await pod.move("ssh://b", { downtimeMs: 50 });
   */
  async move(target: string, options: MoveOptions = {}): Promise<Moved> {
    const { movePod } = await import("../move/move.js");
    this.#reload();
    return movePod(this, target, options);
  }

  /**
   * Everything there is to know, as `virt-run inspect --json` prints it, read from /proc (proc(5)) without stopping the
   * pod: what launched it, its processes with their pid in the pod and on the host, threads, resident memory in bytes, and
   * descriptors. Of a pod that has ended: how, and what is held for its image. Errors: ERR_POD_GONE if it ends just now, ERR_POD_VERSION.
   *
   * @example
   * const { state, processes } = await pod.inspect();
   */
  async inspect(): Promise<PodInfo> {
    const { inspectPod } = await import("./inspect.js");
    return inspectPod(this);
  }

  /**
   * What the pod's terminal or streams have shown so far: the last 8 to 16 MiB of it. Empty if its output went to the
   * launcher's own streams (stdio "inherit"), or the pod was removed.
   *
   * @example
   * process.stdout.write(pod.logs());
   */
  logs(): Buffer {
    const parts: Buffer[] = [];
    for (const name of ["log.1", "log"]) {
      try {
        parts.push(readFileSync(join(podDirectory(this.id), name)));
      } catch {
        // not written, or not rotated yet
      }
    }
    return Buffer.concat(parts);
  }

  /**
   * What the pod has done outside so far, as far as it is recorded (LaunchOptions.record); [] if nothing is. Iterated with
   * `for await` it goes on until the pod ends.
   *
   * @example
   * for await (const effect of pod.effects()) console.log(effect.kind, effect.pid);
   */
  effects(): Effect[] & AsyncIterable<Effect> {
    const directory = podDirectory(this.id);
    return Object.assign(readJournal(directory), {
      [Symbol.asyncIterator]: () => followJournal(directory, this.ended()),
    });
  }

  /**
   * Other rules from now on, in place of those it has; remapped ports and addresses, and hooks, stay. Calls that wait for a
   * hook go on waiting. The pod's filter was made at launch: rules for calls it does not ask about are refused.
   *
   * Errors: ERR_RULE, ERR_NOT_COVERED (see LaunchOptions.cover), ERR_POD_GONE.
   *
   * @example
   * await pod.setRules([{ on: "connect", address: "10.0.0.0/8", deny: "ECONNREFUSED" }]);
   */
  async setRules(rules: readonly Rule[]): Promise<void> {
    this.#reload();
    const record = { ...this.#record, rules: [...rules] };
    const mount = rules.find((rule) => rule.on === undefined && rule.remap !== undefined);
    if (mount) throw new VirtError("ERR_RULE", `${mount.path} is remapped by a mount, which is made at launch`);
    await this.connection.request(FrameType.rules, rulesOf(record));
    this.#change(record);
  }

  /**
   * What the pod has is something else from now on: a descriptor another file, pipe, socket or terminal (the pod stands still
   * for some milliseconds); ports and addresses for calls to come (what is bound already stays); at a path what this
   * host has elsewhere (what is open already stays). Descriptors come first, then addresses, then paths; if one fails, what
   * was done before it stays.
   *
   * Errors: ERR_REMAP (no rule; no such process or descriptor; it cannot be mounted), ERR_NOT_COVERED, ERR_ISOLATION (paths of
   * an isolated pod), ERR_SYSCALL (what is to be opened, connected to), those of check().
   *
   * @example
   * await pod.remap({ fd: { "2/1": "/var/log/second.log", "2/2": "2/1" } });
   */
  async remap(remap: Remap): Promise<void> {
    const { remapPod } = await import("./remap.js");
    this.#reload();
    await remapPod(this, remap, (record) => this.#change(record));
  }

  /**
   * Forgets a pod that has ended: its record and log. Images stay. Throws ERR_POD_RUNNING, ERR_HOLDING for a detached
   * one that keeps connections for its image (with `force`, default false, it closes them), and ERR_MOVE_IN_DOUBT for one whose move is
   * not settled (with `force` nobody can any more).
   *
   * @example
   * await pod.stop();
   * pod.remove();
   */
  remove(options: { force?: boolean } = {}): void {
    this.#reload();
    if (isRunning(this.#record)) throw new VirtError("ERR_POD_RUNNING", `the pod ${this.name} is running`);
    if (options.force) endHolder(this.#record);
    else {
      refuseIfInDoubt(this.#record);
      refuseIfHolding(this.#record);
    }
    removePod(this.#record);
  }

  /**
   * Lets go of the pod without touching it: it runs on, and Node may end. This object hears no more of it: `running` is
   * false, streams end, `end` is told with `lost`; connect() gives a new one. A program with stdio "pipe" has nobody who
   * reads or writes its streams then; its output goes to the log.
   *
   * @example
   * const pod = await launch("redis-server", [], { stdio: "log" });
   * pod.disconnect();
   */
  disconnect(): void {
    this.#left = true;
    this.#connection?.close();
  }

  /**
   * Lets Node end although the pod runs; otherwise the connection keeps it alive, as any socket does.
   *
   * @example
   * const pod = (await connect("cache")).unref();
   */
  unref(): this {
    this.#connection?.unref();
    return this;
  }

  /**
   * For `await using`: kills what still runs in the pod when the scope is left, and disconnects. A pod that was detached in
   * the meantime is in its image. Never rejects.
   *
   * @example
   * await using pod = await launch("redis-server");
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.destroy().catch(() => {});
    this.disconnect();
  }

  /** Other processes may have changed it. */
  #reload(): void {
    this.#record = loadRecord(this.id) ?? this.#record;
  }

  #change(record: PodRecord): void {
    this.#record = record;
    saveRecord(record);
  }

  async #killAll(): Promise<void> {
    await this.connection.request(FrameType.release, uint32s(0)).catch(() => {});
  }

  #readExit(): Exit {
    return readExit(this.id) ?? { code: null, signal: null, detached: false, lost: true };
  }

  #finish(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#end ??= this.#readExit();
    if (this.#record.removeAtEnd && !this.#end.detached && !this.#left) removePod(this.#record);
    this.emit("end", this.#end);
  }
}

/** Connects to a pod by its record; one that has ended comes back as ended. @internal */
export async function podFromRecord(record: PodRecord): Promise<Pod> {
  const connection = tryConnect(record.socket);
  if (!connection) return new Pod(record, undefined);
  const pod = new Pod(record, connection);
  // It may end meanwhile: then it is one that has ended.
  await connection.request(FrameType.subscribe).catch((e: VirtError) => {
    if (e.code !== "ERR_POD_GONE") throw e;
  });
  return pod;
}
