/**
 * Progress of long work: one line that is rewritten on a terminal, a plain line every five seconds elsewhere, JSON
 * lines on request.
 */
import type { Progress } from "../pod/job.js";
import { formatBytes } from "./report.js";

export type ProgressMode = "auto" | "plain" | "json" | "none";

const plainIntervalMs = 5000;
const shownAfterMs = 300;

export class ProgressReporter {
  readonly #mode: ProgressMode;
  readonly #start = performance.now();
  #lastPlain = performance.now();
  #drawn = false;

  constructor(mode: ProgressMode) {
    this.#mode = mode === "auto" ? (process.stderr.isTTY ? "auto" : "plain") : mode;
  }

  readonly onProgress = (p: Progress): void => {
    const now = performance.now();
    switch (this.#mode) {
      case "none":
        return;
      case "json":
        process.stderr.write(`${JSON.stringify({ ...p, elapsedMs: Math.round(now - this.#start) })}\n`);
        return;
      case "plain":
        if (now - this.#lastPlain < plainIntervalMs) return;
        this.#lastPlain = now;
        process.stderr.write(`${this.#line(p, now)}\n`);
        return;
      case "auto":
        if (now - this.#start < shownAfterMs) return;
        this.#drawn = true;
        process.stderr.write(`\r\x1b[K${this.#line(p, now)}`);
    }
  };

  /** Takes the line away. */
  end(): void {
    if (this.#drawn) process.stderr.write("\r\x1b[K");
    this.#drawn = false;
  }

  #line(p: Progress, now: number): string {
    if (p.totalBytes === 0) return p.phase;
    const seconds = (now - this.#start) / 1000;
    const rate = p.doneBytes / Math.max(seconds, 0.001);
    const percent = Math.floor((100 * p.doneBytes) / p.totalBytes);
    const left = rate > 0 ? (p.totalBytes - p.doneBytes) / rate : 0;
    const eta = p.doneBytes < p.totalBytes ? `, ${left.toFixed(0)} s left` : "";
    return `${p.phase} ${percent} %  ${formatBytes(p.doneBytes)} of ${formatBytes(p.totalBytes)}  ${formatBytes(rate)}/s${eta}`;
  }
}
