/**
 * A control connection to a pod's init: requests with replies, and events. It keeps Node alive as any socket does;
 * unref() lets Node end.
 */
import { EventEmitter } from "node:events";
import { Socket } from "node:net";
import { toVirtError, VirtError } from "../errors.js";
import { native } from "../native.js";
import {
  decodeHoldStatus,
  decodeStatus,
  FrameType,
  frame,
  type HoldStatus,
  headerBytes,
  type InitStatus,
  mostFrameBytes,
  protocolVersion,
  replyFlag,
  uint32s,
} from "./protocol.js";

export interface ProgramEnd {
  /** As the pod sees it. */
  pid: number;
  /** As wait(2) gives it. */
  waitStatus: number;
  first: boolean;
  /** As the host saw it; 0 if that could not be told. */
  hostPid: number;
}

interface ConnectionEvents {
  forked: [hostPid: number];
  started: [pid: number];
  exited: [end: ProgramEnd];
  output: [stream: 1 | 2, bytes: Buffer];
  /** The pod has ended, or was detached. */
  gone: [detached: boolean];
  /** A call waits for a hook's word: src/rules/hooks.ts. */
  ask: [payload: Buffer];
  /** The pod could not be made. */
  failed: [error: VirtError];
  close: [];
}

export class ControlConnection extends EventEmitter<ConnectionEvents> {
  readonly #socket: Socket;
  readonly #fd: number;
  #received: Buffer[] = [];
  #receivedBytes = 0;
  #next = 1;
  readonly #waiting = new Map<number, { resolve(payload: Buffer): void; reject(error: Error): void }>();
  #closed = false;

  /** Takes over a connected descriptor. */
  constructor(fd: number) {
    super();
    this.#fd = fd;
    this.#socket = new Socket({ fd, readable: true, writable: true });
    this.#socket.on("data", (bytes: Buffer) => this.#receive(bytes));
    this.#socket.on("error", () => this.#end());
    this.#socket.on("close", () => this.#end());
  }

  /** Connects to the pod whose socket this is; ERR_POD_GONE if nobody listens. */
  static connect(socketPath: string): ControlConnection {
    try {
      return new ControlConnection(native.connect(socketPath));
    } catch (e) {
      throw toVirtError(e);
    }
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** The host pid of init (not on the first connection of a launch: see the event `forked`). */
  get initPid(): number {
    return native.peerPid(this.#fd);
  }

  async hello(): Promise<InitStatus> {
    return decodeStatus(checkVersion(await this.request(FrameType.hello)));
  }

  /** What an init says that keeps a detached pod's sockets; with a `key` that is not its own it refuses (EACCES). */
  async helloHolder(key?: Buffer): Promise<HoldStatus> {
    return decodeHoldStatus(checkVersion(await this.request(FrameType.hello, key)));
  }

  /** Sends a request; rejects with init's errno as a VirtError. Descriptors given are passed with it. */
  request(type: number, payload?: Buffer, fds: number[] = []): Promise<Buffer> {
    if (this.#closed) return Promise.reject(new VirtError("ERR_POD_GONE", "the pod's init has ended"));
    const number = this.#next++;
    const bytes = frame(type, number, payload);
    return new Promise((resolve, reject) => {
      this.#waiting.set(number, { resolve, reject });
      if (fds.length > 0) native.sendFds(this.#fd, bytes, fds);
      else this.#socket.write(bytes);
    });
  }

  /** Sends a frame that gets no reply. False: wait for `drain` before sending more. */
  send(type: number, payload: Buffer): boolean {
    return !this.#closed && this.#socket.write(frame(type, 0, payload));
  }

  /** As send(), with a descriptor, which has been passed on when this resolves. */
  async sendWithFd(type: number, payload: Buffer, fd: number): Promise<void> {
    // It goes past the socket's own buffer, which must not hold half a frame.
    while (!this.#closed && this.#socket.writableLength > 0) {
      await new Promise<void>((resolve) => this.#socket.write("", () => resolve()));
    }
    if (!this.#closed) native.sendFds(this.#fd, frame(type, 0, payload), [fd]);
  }

  /** Resolves when what was sent has been taken by the socket. */
  drained(): Promise<void> {
    if (this.#closed || !this.#socket.writableNeedDrain) return Promise.resolve();
    return new Promise((resolve) => this.#socket.once("drain", resolve).once("close", resolve));
  }

  signal(pid: number, signal: number, group = false): Promise<Buffer> {
    return this.request(FrameType.signal, uint32s(pid, group ? 1 : 0, signal));
  }

  /** Stops reading, so that the program waits (back-pressure); resume() goes on. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  unref(): this {
    this.#socket.unref();
    return this;
  }

  ref(): this {
    this.#socket.ref();
    return this;
  }

  close(): void {
    this.#socket.destroy();
    this.#end();
  }

  #receive(bytes: Buffer): void {
    this.#received.push(bytes);
    this.#receivedBytes += bytes.length;
    while (this.#receivedBytes >= headerBytes) {
      let all = this.#received.length === 1 ? (this.#received[0] as Buffer) : Buffer.concat(this.#received);
      const size = all.readUInt32LE(0);
      if (size > mostFrameBytes) {
        this.close();
        return;
      }
      if (all.length < headerBytes + size) {
        this.#received = [all];
        return;
      }
      try {
        this.#handle(all.readUInt16LE(4), all.readUInt32LE(8), all.subarray(headerBytes, headerBytes + size));
      } catch (e) {
        if ((e as { code?: string }).code !== "ERR_OUT_OF_RANGE" && !(e instanceof RangeError)) throw e;
        this.close(); // a frame too short for what it says it is
        return;
      }
      all = all.subarray(headerBytes + size);
      this.#received = all.length > 0 ? [all] : [];
      this.#receivedBytes = all.length;
    }
  }

  #handle(type: number, number: number, payload: Buffer): void {
    if ((type & replyFlag) !== 0) {
      const waiting = this.#waiting.get(number);
      this.#waiting.delete(number);
      const status = payload.readInt32LE(0);
      if (status === 0) waiting?.resolve(payload.subarray(4));
      else waiting?.reject(refusal(type & ~replyFlag, -status, payload.subarray(4)));
      return;
    }
    switch (type) {
      case FrameType.forked:
        this.emit("forked", payload.readUInt32LE(0));
        break;
      case FrameType.started:
        this.emit("started", payload.readUInt32LE(0));
        break;
      case FrameType.exited:
        this.emit("exited", {
          pid: payload.readUInt32LE(0),
          waitStatus: payload.readInt32LE(4),
          first: payload.readUInt32LE(8) !== 0,
          hostPid: payload.readUInt32LE(12),
        });
        break;
      case FrameType.output:
        this.emit("output", payload.readUInt32LE(0) === 2 ? 2 : 1, payload.subarray(4));
        break;
      case FrameType.ask:
        this.emit("ask", Buffer.from(payload));
        break;
      case FrameType.gone:
        this.emit("gone", payload.readUInt32LE(0) !== 0);
        break;
      case FrameType.failed:
        this.emit(
          "failed",
          launchFailure(payload.readInt32LE(0), payload.subarray(8, 8 + payload.readUInt32LE(4)).toString()),
        );
        break;
      default:
        break; // an event of a newer init: not for us
    }
  }

  #end(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { reject } of this.#waiting.values()) reject(new VirtError("ERR_POD_GONE", "the pod's init has ended"));
    this.#waiting.clear();
    this.emit("close");
  }
}

/** What comes after the version is read only if it is ours. */
function checkVersion(status: Buffer): Buffer {
  const version = status.readUInt32LE(0);
  if (version === protocolVersion) return status;
  throw new VirtError("ERR_POD_VERSION", `the pod's init speaks protocol ${version}, this is ${protocolVersion}`);
}

const ENOENT = 2;
const ESRCH = 3;
const EACCES = 13;
const EBUSY = 16;
const EXDEV = 18;
const ENOTDIR = 20;
const ENOTTY = 25;
const ENOEXEC = 8;
const EISDIR = 21;
const EOPNOTSUPP = 95;

/** What init could not do while making a pod, as an error with the exit code a shell would give in mind. */
export function launchFailure(errno: number, step: string): VirtError {
  if (step === "starting the program") return startFailure(errno);
  const name = errnoName(errno);
  if (step === "entering the working directory") {
    const hint = "the directory must exist, as the pod sees it, and let its user in";
    return new VirtError("ERR_LAUNCH", `${step}: ${name}`, { errno, errnoName: name, syscall: "chdir", hint });
  }
  if (step.endsWith(" remap") || step.endsWith(" remap points to")) {
    return new VirtError("ERR_REMAP", `${step}: ${name}`, { errno, errnoName: name, syscall: "mount" });
  }
  if (step.startsWith("isolating: ")) {
    // What the kernel lacks is said, never done without.
    const code = name === "ENOSYS" ? "ERR_KERNEL_FEATURE" : "ERR_ISOLATION";
    return new VirtError(code, `${step}: ${name}`, { errno, errnoName: name, syscall: "mount_setattr" });
  }
  if (step === "setting the host name") {
    const hint = "a host name has at most 64 bytes (sethostname(2))";
    return new VirtError("ERR_LAUNCH", `${step}: ${name}`, { errno, errnoName: name, syscall: "sethostname", hint });
  }
  return new VirtError("ERR_LAUNCH", `${step}: ${name}`, { errno, errnoName: name, syscall: "virt-init" });
}

function startFailure(errno: number): VirtError {
  const name = errnoName(errno);
  if (errno === ENOENT || errno === ENOTDIR) {
    return new VirtError("ERR_NOT_FOUND", "the program was not found", { errno, errnoName: name, syscall: "execve" });
  }
  if (errno === EACCES || errno === ENOEXEC || errno === EISDIR) {
    return new VirtError("ERR_NOT_EXECUTABLE", "the program cannot be executed", {
      errno,
      errnoName: name,
      syscall: "execve",
    });
  }
  if (errno === EXDEV) {
    const hint = "let it come through a pipe (cat FILE |), or give the pod a rule that shows it";
    return new VirtError(
      "ERR_ISOLATION",
      "an isolated pod does not see the file that is one of the program's streams",
      {
        errno,
        errnoName: name,
        hint,
      },
    );
  }
  return new VirtError("ERR_LAUNCH", `starting the program: ${name}`, { errno, errnoName: name, syscall: "execve" });
}

function refusal(type: number, errno: number, text: Buffer): VirtError {
  const name = errnoName(errno);
  const details = { errno, errnoName: name };
  if (type === FrameType.exec) return text.length > 0 ? launchFailure(errno, text.toString()) : startFailure(errno);
  if (type === FrameType.lock && errno === EBUSY) {
    return new VirtError("ERR_POD_BUSY", `another command holds the pod: ${text.toString()}`, details);
  }
  if (type === FrameType.rules && errno === EOPNOTSUPP) {
    return new VirtError("ERR_NOT_COVERED", "the pod does not ask about the calls these rules need", details);
  }
  if (type === FrameType.signal && errno === ESRCH) {
    return new VirtError("ERR_PROCESS_GONE", "there is no such process in the pod", details);
  }
  if (type === FrameType.attach && errno === ENOTTY) {
    return new VirtError("ERR_NO_TERMINAL", "the pod has no terminal or streams to attach to", details);
  }
  return new VirtError("ERR_SYSCALL", `the pod's init refused: ${name}`, details);
}

function errnoName(errno: number): string {
  return native.errnoName(errno);
}
