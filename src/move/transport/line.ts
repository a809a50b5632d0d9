/**
 * One line from a stream whose rest is for somebody else.
 */
import type { Readable } from "node:stream";
import { VirtError } from "../../errors.js";

/** What a line may have at most. */
const mostBytes = 1024;

/**
 * Reads up to the first newline; what comes after it stays in the stream, which is paused. Errors: ERR_TRANSPORT if the stream
 * ends before, says nothing for too long, or has no newline where there should be one; ERR_ABORTED.
 */
export function readLine(stream: Readable, limitMs: number, signal?: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    let got = Buffer.alloc(0);
    const settle = (error?: VirtError, line = "") => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      stream.off("data", data).off("end", end).off("close", end).pause();
      if (error) reject(error);
      else resolve(line);
    };
    const data = (bytes: Buffer) => {
      got = Buffer.concat([got, bytes]);
      const at = got.indexOf(0x0a);
      if (at > mostBytes || (at < 0 && got.length > mostBytes)) return settle(wrong("says what is not understood"));
      if (at < 0) return;
      settle(undefined, got.subarray(0, at).toString());
      if (got.length > at + 1) stream.unshift(got.subarray(at + 1));
    };
    const end = () => settle(wrong("has ended the connection"));
    const abort = () => settle(new VirtError("ERR_ABORTED", "it was given up"));
    const timer = setTimeout(() => settle(wrong("says nothing")), limitMs);
    if (signal?.aborted) return abort();
    if (stream.destroyed || stream.readableEnded) return end();
    signal?.addEventListener("abort", abort, { once: true });
    stream.on("data", data).on("end", end).on("close", end);
  });
}

function wrong(what: string): VirtError {
  return new VirtError("ERR_TRANSPORT", `the other side ${what}`);
}
