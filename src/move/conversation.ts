/**
 * A move's wire as its two sides use it: messages one after the other, and no wait that ends never. A hang of the other side
 * ends as a cut does: each side says `alive` from time to time, and what comes, these words or data, says that the other does not
hang. What goes says nothing: it may lie in a buffer.
 */
import { toVirtError, VirtError } from "../errors.js";
import {
  decodeMessage,
  encodeMessage,
  type Message,
  type MessageOf,
  type MessageType,
  protocolError,
} from "./messages.js";
import { type MoveClock, type MoveSettings, type MoveWire, systemClock } from "./parts.js";

/** What both sides of a move are about. */
export interface About {
  move: string;
  epoch: number;
}

/** @internal */
export class Conversation {
  readonly #wire: MoveWire;
  readonly #clock: MoveClock;
  readonly silenceMs: number;
  /** Ends every wait with ERR_ABORTED, until uninterruptible(). */
  #signal: AbortSignal | undefined;
  /** A message that was waited for while something else ended first is the next one's. */
  #incoming: Promise<Message | undefined> | undefined;
  #closed = false;
  #preventAlive = () => {};
  /** What was said and taken already: if it comes again, it says nothing. */
  readonly #past = new Set<MessageType>(["alive", "round"]);

  constructor(wire: MoveWire, settings: MoveSettings, signal?: AbortSignal) {
    this.#wire = wire;
    this.#clock = settings.clock ?? systemClock;
    this.silenceMs = settings.silenceMs ?? 30_000;
    this.#signal = signal;
    this.#sayAlive();
  }

  /** From here on it is too late to stop. */
  uninterruptible(): void {
    this.#signal = undefined;
  }

  async send(message: Message): Promise<void> {
    await this.#unlessSilent(this.#wire.send(encodeMessage(message)));
  }

  /**
   * The next message that says something. Errors: ERR_MOVE_LOST, ERR_MOVE_PROTOCOL, ERR_ABORTED.
   * @param mostMs however often the other side says it is alive
   */
  async next(mostMs?: number): Promise<Message> {
    const message = this.#nextThatSays();
    return await this.#unlessSilent(mostMs === undefined ? message : this.#within(message, mostMs));
  }

  /**
   * One of these, about this move; other versions of an answer are ended by `failed`. Errors: ERR_MOVE_LOST,
   * ERR_MOVE_PROTOCOL, ERR_MOVE_REFUSED, ERR_ABORTED.
   */
  async expect<T extends MessageType>(types: readonly T[], about?: About, mostMs?: number): Promise<MessageOf<T>> {
    const message = await this.next(mostMs);
    if (message.type === "failed" && !(types as readonly string[]).includes("failed")) throw failure(message);
    if (!(types as readonly string[]).includes(message.type))
      throw protocolError(`'${message.type}' where ${types.join(" or ")} was to come`);
    if (about && "move" in message) checkAbout(message, about);
    return message as MessageOf<T>;
  }

  /** This type was taken: copies of it that still come are passed over. */
  passed(...types: MessageType[]): void {
    for (const type of types) this.#past.add(type);
  }

  /**
   * Waits for work of ours. Rejects at once if the other side says anything, or is gone; what becomes of the work then is the
   * caller's.
   * @param interruptible false: only the work decides when this ends
   */
  async during<T>(work: Promise<T>, interruptible = true): Promise<T> {
    if (!interruptible) return await work;
    work.catch(() => {}); // if something else ends the wait
    const word = this.#peekThatSays().then((message): never => {
      if (message.type === "failed") throw failure(message);
      throw new Interruption(message);
    });
    word.catch(() => {}); // the work may end first
    return await this.#unlessSilent(Promise.race([work, word]));
  }

  async sleep(ms: number): Promise<void> {
    await new Promise<void>((resolve) => this.#clock.after(ms, resolve));
  }

  get now(): number {
    return this.#clock.now();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#preventAlive();
    this.#incoming?.catch(() => {});
    await this.#wire.close().catch(() => {}); // it is over either way
  }

  #sayAlive(): void {
    this.#preventAlive = this.#clock.after(this.silenceMs / 3, () => {
      // Whether it fails is of no interest: then theirs do not come either.
      const said = this.#wire.send(encodeMessage({ type: "alive" })).catch(() => {});
      void said.then(() => this.#closed || this.#sayAlive());
    });
  }

  /** Taken for good; the end of the stream is an error. */
  async #nextThatSays(): Promise<Message> {
    const message = await this.#peekThatSays();
    this.#incoming = undefined;
    return message;
  }

  async #peekThatSays(): Promise<Message> {
    for (;;) {
      this.#incoming ??= this.#wire.next().then((bytes) => bytes && decodeMessage(bytes));
      const mine = this.#incoming;
      const message = await mine;
      if (message === undefined) throw lost("it was closed");
      if (!this.#past.has(message.type)) return message;
      if (this.#incoming === mine) this.#incoming = undefined;
    }
  }

  #unlessSilent<T>(work: Promise<T>): Promise<T> {
    const bytes = () => this.#wire.progress().receivedBytes;
    this.#peekThatSays().catch(() => {}); // or nothing would be taken while something else is waited for
    let prevent = () => {};
    const silence = new Promise<never>((_, reject) => {
      const watch = (before: number) => {
        prevent = this.#clock.after(this.silenceMs, () => {
          const now = bytes();
          if (now !== before) watch(now);
          else reject(lost(`nothing came for ${this.silenceMs} ms`));
        });
      };
      watch(bytes());
    });
    return this.#unlessAborted(Promise.race([work, silence])).finally(() => prevent());
  }

  #within<T>(work: Promise<T>, mostMs: number): Promise<T> {
    let prevent = () => {};
    const late = new Promise<never>((_, reject) => {
      prevent = this.#clock.after(mostMs, () => reject(lost(`the other end was not ready after ${mostMs} ms`)));
    });
    return Promise.race([work, late]).finally(() => prevent());
  }

  async #unlessAborted<T>(work: Promise<T>): Promise<T> {
    const signal = this.#signal;
    let forget = () => {};
    const stopped = new Promise<never>((_, reject) => {
      if (!signal) return;
      const stop = () => reject(new VirtError("ERR_ABORTED", "stopped on request", { cause: signal.reason }));
      if (signal.aborted) return stop();
      signal.addEventListener("abort", stop);
      forget = () => signal.removeEventListener("abort", stop);
    });
    try {
      return await Promise.race([work, stopped]);
    } catch (e) {
      throw asLost(e);
    } finally {
      forget();
    }
  }
}

/** The other side said something while work was being done. */
export class Interruption extends Error {
  constructor(readonly said: Message) {
    super(`'${said.type}' came in the middle of work`);
  }
}

/** @internal */
export function checkAbout(message: About, about: About): void {
  if (message.move !== about.move || message.epoch !== about.epoch)
    throw protocolError(`a word about another move (${message.move}, epoch ${message.epoch})`);
}

function lost(why: string): VirtError {
  return new VirtError("ERR_MOVE_LOST", `the connection to the other host is lost: ${why}`);
}

function failure({ code, message }: MessageOf<"failed">): VirtError {
  return new VirtError("ERR_MOVE_REFUSED", `the other host failed: ${message} (${code})`, {
    blockers: [{ code, message }],
  });
}

/** Errors of a stream say that it is cut; others come from what is done with what it brings. */
function asLost(thrown: unknown): Error {
  if (thrown instanceof Interruption) return thrown;
  const error = toVirtError(thrown);
  const ends = ["EPIPE", "ECONNRESET", "ETIMEDOUT", "ENOTCONN", "ECONNABORTED", "EHOSTUNREACH", "ENETUNREACH"];
  if (!ends.includes(error.errnoName ?? "")) return error;
  return new VirtError("ERR_MOVE_LOST", `the connection to the other host is lost: ${error.message}`, { cause: error });
}
