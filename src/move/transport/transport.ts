/**
 * What every way to another host has in common: two descriptors for native code, and an end that says why.
 */
import { closeSync } from "node:fs";
import type { VirtError } from "../../errors.js";

/** A byte stream to the other end of a move. */
export interface Transport {
  /** What the other end says; end of file is its end. */
  readonly readFd: number;
  /** What it is to hear. Another one than `readFd`: closing it (endWriting()) is how it hears an end. */
  readonly writeFd: number;
  /** An address of this host under which the other end knows it, where that can be told from here. */
  readonly localAddressSeenByPeer?: string;
  /**
   * Resolves when the stream has ended: with why, or with nothing if that was in order. Never rejects. Whoever reads an
   * unexpected end waits for this and throws what it says, with the cure.
   */
  readonly failure: Promise<VirtError | undefined>;
  /** "ssh://b", as users write it. */
  describe(): string;
  /** Closes `writeFd`. What was written arrives, and then an end. */
  endWriting(): void;
  /**
   * Closes both descriptors and waits until nothing is left of the transport, its ssh above all; what does not end in
   * time is ended. Whoever uses the descriptors has to have stopped before. May be called again.
   */
  close(): Promise<void>;
}

/** What says how long things may take, and lets a caller give up. */
export interface OpenOptions {
  /** Gives up opening; an open transport is ended by close(). */
  signal?: AbortSignal;
  /** Limit for reaching the other host, in milliseconds; default 30 000. Over ssh its own ConnectTimeout holds. */
  connectTimeoutMs?: number;
  /** Over ssh: the command `virt-run` there, as its shell takes it; default $VIRT_RUN_REMOTE_COMMAND, or "virt-run". */
  remoteCommand?: string;
}

/** How long a transport may take to end by itself once it is closed. */
export const closeGraceMs = 2000;

/** Descriptors that are closed once. */
export class OwnedFds {
  readonly #open: Set<number>;

  constructor(...fds: number[]) {
    this.#open = new Set(fds);
  }

  close(...fds: number[]): void {
    for (const fd of fds.length > 0 ? fds : [...this.#open]) if (this.#open.delete(fd)) closeSync(fd);
  }
}

/** Whether it settles in time. Keeps nobody waiting afterwards. */
export async function settlesWithin(promise: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  const settled = promise.then(
    () => true,
    () => true,
  );
  return Promise.race([settled, late]).finally(() => clearTimeout(timer));
}
