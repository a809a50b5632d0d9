/**
 * A stream of Node's made into descriptors: what is read from one arrives at the other, no faster than it is taken
 * (back-pressure), and an end in one direction is an end in that direction only.
 */
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { native } from "../../native.js";
import { closeGraceMs, OwnedFds, settlesWithin } from "./transport.js";

/** The descriptors' side of a pumped stream. */
export interface PumpedStream {
  /** What the stream gives. */
  readFd: number;
  /** What the stream is given. */
  writeFd: number;
  /** Resolves when the stream is closed: with its error, or with nothing. */
  ended: Promise<Error | undefined>;
  endWriting(): void;
  close(): Promise<void>;
}

/**
 * Pumps between a stream, which must allow half-open ends, and descriptors that close() closes.
 *
 * @example
 * const pumped = pumpStream(connect({ path, allowHalfOpen: true }));
 */
export function pumpStream(stream: Duplex): PumpedStream {
  const [readFd, inner] = native.socketPair();
  const [writeFd, outer] = native.socketPair();
  const fds = new OwnedFds(readFd, writeFd);
  const { ended, destroy } = pumpBetween(stream, { into: inner, from: outer });
  return {
    readFd,
    writeFd,
    ended,
    endWriting: () => fds.close(writeFd),
    async close() {
      fds.close();
      // The other end may never end: what we wrote has had its time.
      if (!(await settlesWithin(ended, closeGraceMs))) destroy();
      await ended;
    },
  };
}

/** Pumps what the stream gives `into` a descriptor, and what comes `from` another to the stream. Both are taken over. */
export function pumpBetween(
  stream: Duplex,
  fds: { into: number; from: number },
): { ended: Promise<Error | undefined>; destroy(): void } {
  const into = new Socket({ fd: fds.into, readable: false, writable: true });
  const from = new Socket({ fd: fds.from, readable: true, writable: false });
  let error: Error | undefined;
  // Nobody reads there any more. The other direction goes on; what still comes is of no use to anybody.
  into.on("error", () => {
    stream.unpipe(into);
    stream.resume();
  });
  from.on("error", () => stream.end());
  stream.on("error", (e: Error) => {
    error ??= e;
  });
  const ended = new Promise<Error | undefined>((resolve) => {
    stream.once("close", () => {
      into.end(); // what has come still arrives
      from.destroy();
      resolve(error);
    });
  });
  stream.pipe(into);
  from.pipe(stream);
  return {
    ended,
    destroy() {
      stream.destroy();
      into.destroy();
      from.destroy();
    },
  };
}
