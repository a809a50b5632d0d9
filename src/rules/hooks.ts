/**
 * Hooks: functions of this process that are asked about a pod's system calls. virt-init asks over the control connection
 * and goes on without us when we do not answer in time, or are gone.
 */
import { constants } from "node:os";
import type { ControlConnection } from "../control/connection.js";
import { FrameType } from "../control/protocol.js";
import { VirtError } from "../errors.js";
import { Writer } from "./encode.js";
import { addressBytes, type CallName, callNameOf, type ErrnoName } from "./rules.js";

/**
 * What is asked about which calls. A hook gives what the call's methods give; what it throws is told by the pod's event
 * `hookError` (as a warning of the process if nobody listens) and the default is done.
 *
 * @example
 * const hooks: Hooks = {
 *   open: async (call) => (call.path?.startsWith("/secret") ? call.deny("EACCES") : call.pass()),
 *   connect: (call) => (call.port === 5432 ? call.redirect({ host: "127.0.0.1", port: 15432 }) : call.pass()),
 * };
 */
export type Hooks = { [name in CallName]?: (call: Call) => HookAnswer | Promise<HookAnswer> };

/** Options that say which hooks there are. */
export interface HookOptions {
  /**
   * Functions that are asked about the pod's system calls, by name; other calls go on meanwhile. They are asked as long as
   * this process is connected; then, and when one does not answer in time, or throws, the default is done. An image keeps
   * none. Default: none.
   */
  hooks?: Hooks;
  /** How long a call waits for its hook, in milliseconds. Default 5000. */
  hookTimeoutMs?: number;
  /** What is done without an answer. Default "pass". */
  hookDefault?: "pass" | { deny: ErrnoName };
}

/** What a hook gives: made by the methods of Call. */
export class HookAnswer {
  /** @internal */
  constructor(
    readonly verdict: "pass" | "deny" | "redirect" | "answer" | "inject",
    readonly value: bigint = 0n,
    readonly to: { path?: string; host?: string; port?: number } = {},
    readonly fd?: number,
  ) {}
}

const verdicts = { pass: 0, deny: 1, redirect: 2, answer: 6, inject: 7 } as const;
const kinds = { open: 0, read: 14 } as const;

/**
 * A system call that a process of the pod stands before. It waits until the hook has answered; other processes, and other
 * threads of the same, go on.
 *
 * @example
 * const log = (call: Call) => { console.log(call.pid, call.call, call.path); return call.pass(); };
 */
export class Call {
  /** The class of calls, as hooks and rules name it. */
  readonly name: CallName;
  /** The system call itself: "openat". Section 2 of the manual says what `args` are. */
  readonly call: string;
  /** The process, as the pod sees it. */
  readonly pid: number;
  /** As the host sees it; 0 if it cannot be told. */
  readonly hostPid: number;
  /** The thread, as the pod sees it. */
  readonly tid: number;
  /** The program it runs, absolute. */
  readonly program: string;
  /** Of files and unix sockets: absolute, as the pod sees it, without symbolic links before the last part. */
  readonly path: string | undefined;
  /** Where a rename(2) or link(2) leads. */
  readonly to: string | undefined;
  /** Of `open` the O_… flags, of others AT_… flags. */
  readonly flags: number;
  /** Of `open`. */
  readonly access: "read" | "write" | undefined;
  /** The IP address of bind, connect, sendto. */
  readonly address: string | undefined;
  readonly port: number | undefined;
  /** Of `kill`: the process; negative a process group. */
  readonly target: number | undefined;
  readonly signal: number | undefined;
  /** The call's arguments, as in its registers. */
  readonly args: readonly bigint[];
  /** @internal */
  readonly id: bigint;
  /** @internal */
  readonly fallback: HookAnswer;

  /** @internal */
  constructor(payload: Buffer) {
    const r = new Reader(payload);
    this.id = r.uint64();
    const kind = r.uint8();
    this.name = callNameOf(kind);
    this.pid = r.uint32();
    this.hostPid = r.uint32();
    this.tid = r.uint32();
    this.call = r.text();
    this.program = r.text();
    this.path = r.text() || undefined;
    this.to = r.text() || undefined;
    const flags = r.int32();
    this.flags = this.name === "kill" ? 0 : flags;
    this.address = r.text() || undefined;
    const port = r.int32();
    this.port = port < 0 ? undefined : port;
    const target = r.int32();
    this.target = this.name === "kill" ? target : undefined;
    this.signal = this.name === "kill" ? flags : undefined;
    this.args = Array.from({ length: 6 }, () => r.uint64());
    this.access = kind === kinds.open ? "write" : kind === kinds.read ? "read" : undefined;
    this.fallback = r.uint8() === verdicts.deny ? new HookAnswer("deny", BigInt(r.int32())) : this.pass();
  }

  /** The kernel makes the call, as if nobody had asked. */
  pass(): HookAnswer {
    return new HookAnswer("pass");
  }

  /** The call fails with this error. Errors: ERR_RULE (no such error). */
  deny(errno: ErrnoName): HookAnswer {
    if (!Object.hasOwn(constants.errno, errno)) throw new VirtError("ERR_RULE", `'${errno}' is no error's name`);
    return new HookAnswer("deny", BigInt(constants.errno[errno]));
  }

  /** The call is made with another path, or another address or port; what rules can redirect. Errors: ERR_RULE. */
  redirect(to: string | { host?: string; port?: number }): HookAnswer {
    if (typeof to === "string" && !/^[/@]/.test(to)) throw new VirtError("ERR_RULE", `'${to}' is no absolute path`);
    if (typeof to === "object" && to.host !== undefined && !addressBytes(to.host))
      throw new VirtError("ERR_RULE", `'${to.host}' is no IP address`);
    return new HookAnswer("redirect", 0n, typeof to === "string" ? { path: to } : to);
  }

  /** The call is not made: this is its result. */
  answer(value: number | bigint): HookAnswer {
    return new HookAnswer("answer", BigInt(value));
  }

  /** The call is not made: its result is a new descriptor of the process, for what ours is; ours may be closed then. */
  inject(fd: number | { fd: number }): HookAnswer {
    return new HookAnswer("inject", 0n, {}, typeof fd === "number" ? fd : fd.fd);
  }
}

/** Fields in order, as they were written; RangeError where they end too soon. */
class Reader {
  #at = 0;
  constructor(readonly bytes: Buffer) {}

  #take<T>(size: number, value: T): T {
    this.#at += size;
    return value;
  }
  uint8 = () => this.#take(1, this.bytes.readUInt8(this.#at));
  uint32 = () => this.#take(4, this.bytes.readUInt32LE(this.#at));
  int32 = () => this.#take(4, this.bytes.readInt32LE(this.#at));
  uint64 = () => this.#take(8, this.bytes.readBigUInt64LE(this.#at));
  text(): string {
    const size = this.uint32();
    if (size > this.bytes.length - this.#at) throw new RangeError("a text longer than its frame");
    return this.#take(size, this.bytes.toString("utf8", this.#at, this.#at + size));
  }
}

/** Answers what the pod asks on this connection, until it closes. @internal */
export function answerHooks(
  pod: { emit(event: "hookError", error: Error, call: Call): boolean },
  connection: ControlConnection,
  hooks: Hooks,
): void {
  connection.on("ask", (payload) => {
    const call = new Call(payload);
    // Not at once: whoever has just been given the pod has yet to listen to it.
    setImmediate(async () => {
      try {
        await send(connection, call, await decide(call, hooks));
      } catch (error) {
        const told = pod.emit("hookError", error as Error, call);
        if (!told) process.emitWarning(`a hook for ${call.name} failed: ${(error as Error).message}`);
        await send(connection, call, call.fallback);
      }
    });
  });
}

async function decide(call: Call, hooks: Hooks): Promise<HookAnswer> {
  const hook = hooks[call.name];
  if (!hook) return call.fallback;
  const answer = await hook(call);
  if (!(answer instanceof HookAnswer))
    throw new VirtError("ERR_RULE", `the hook for ${call.name} gave no answer: return call.pass(), for example`);
  return answer;
}

async function send(connection: ControlConnection, call: Call, answer: HookAnswer): Promise<void> {
  const payload = new Writer()
    .number(8, call.id)
    .number(1, verdicts[answer.verdict])
    .number(8, answer.value)
    .text(answer.to.path ?? "")
    .text(answer.to.host === undefined ? "" : (addressBytes(answer.to.host) ?? ""))
    .number(4, answer.to.port ?? -1)
    .done();
  if (answer.fd === undefined) connection.send(FrameType.answer, payload);
  else await connection.sendWithFd(FrameType.answer, payload, answer.fd);
}
