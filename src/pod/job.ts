/**
 * Long native jobs as users follow and stop them.
 */
import { VirtError } from "../errors.js";

/**
 * How far a long job is.
 *
 * @example
 * const onProgress = ({ phase, doneBytes, totalBytes }: Progress) => console.log(phase, doneBytes, "of", totalBytes);
 */
export interface Progress {
  /**
   * Of a capture: "freeze", "survey", "files" (only if any are carried), "read", "verify" (image is synced and read back), then "thaw" or "release". Of a
   * rebuild: "files" (only if any are carried), "launch", "tree", "handles", "memory", "state", "commit". More may come; "start" before the first.
   */
  phase: string;
  /** Memory that is done, in bytes; in the phase "files" their content. */
  doneBytes: number;
  /** Memory there is to do, in bytes; an estimate, and 0 until it is known. */
  totalBytes: number;
}

/** Progress and AbortSignal for a native job; gives the function that ends both. @internal */
export function watch(
  job: { stop(): void; progress(): Progress },
  options: { signal?: AbortSignal; onProgress?: (progress: Progress) => void },
): () => void {
  const stop = () => job.stop();
  options.signal?.addEventListener("abort", stop);
  const { onProgress } = options;
  const timer = onProgress ? setInterval(() => onProgress(job.progress()), 100) : undefined;
  timer?.unref();
  return () => {
    options.signal?.removeEventListener("abort", stop);
    clearInterval(timer);
    onProgress?.(job.progress());
  };
}

/** @internal */
export function aborted(signal: AbortSignal, hint?: string): VirtError {
  return new VirtError("ERR_ABORTED", "stopped on request", { cause: signal.reason, hint });
}
