/**
 * Detach, snapshot and check: what a capture does, in order, with the source unharmed whatever fails.
 *
 *   survey → (blockers? thaw and tell) → read pages → manifest, synced and read back → kill the source, or thaw it
 */
import { type Blocker, toVirtError, VirtError } from "../errors.js";
import { checkRecorded, type WithFiles } from "../files/collect.js";
import { Image, imagePath } from "../image/image.js";
import { ImageWriter } from "../image/writer.js";
import type { TcpPolicy, TcpRule } from "../remap/tcp-policy.js";
import { blocked, checkHolding, compose, examine, openCapture, type Survey } from "./compose.js";
import { ownSource } from "./isolation.js";
import { aborted, type Progress, watch } from "./job.js";
import type { Pod } from "./pod.js";
import { podDirectory, removeTree, saveRecord } from "./store.js";

/**
 * What Pod.detach(), snapshot() and check() may be told; everything has a default.
 *
 * @example
 * const options: DetachOptions = { image: "/mnt/usb/cache.image", tcp: "close", signal: AbortSignal.timeout(60_000) };
 */
export interface DetachOptions {
  /**
   * Name (in the images directory) or, with a "/" in it, path of the image. It must not exist. Default: the pod's name, the
   * time and four random digits.
   */
  image?: string;
  /**
   * Kinds of handle whose loss is accepted (`kind` of a Blocker: "unix-socket", "pipe", …); the image says what was lost.
   * Default: none.
   */
  drop?: string[];
  /**
   * What becomes of connections to outside, where `tcpRules` does not say. With "hold" (the default) the pod's init stays and keeps
   * them, listening and datagram sockets too, until a reattach on this host takes them; where
   * neither this nor a rule says "hold" or "repair" it keeps no socket at all. With "repair" it keeps them silent, and their state
   * goes along.
   * A snapshot holds nothing: its source goes on.
   */
  tcp?: TcpPolicy;
  /**
   * An address of this host, "ADDRESS" or "ADDRESS:PORT" (IPv6 in brackets), at which a host that reattaches the image reaches
   * the holder; what goes through it is sealed with a key in the image. Default: none, connections live on on this host alone.
   */
  holdAt?: string;
  /**
   * How long the way between `holdAt` and the host where the pod is then may be cut, in milliseconds; after that both ends find
   * their connections reset. Default 60 000.
   */
  cutLimitMs?: number;
  /** By peer; the first that fits holds. Default: none. */
  tcpRules?: readonly TcpRule[];
  /**
   * Files that go into the image: "written", those that the journal says the pod made or changed and that are still there;
   * "all", those that it has open or mapped as well, programs and libraries included; "none" (the default), neither. Unlinked
   * ones that are open always go, and those that only this pod can see because they came with its image.
   */
  withFiles?: WithFiles;
  /** The most that `withFiles` may carry, in bytes of content; more is ERR_FILES_LIMIT before any is read. Default: no limit. */
  filesLimitBytes?: number;
  /** Stops the capture with ERR_ABORTED, until the image is complete; the pod runs on. */
  signal?: AbortSignal;
  /** Told every 100 ms, and once at the end. */
  onProgress?: (progress: Progress) => void;
  /** How long threads may take to stop, in milliseconds. Default 5000. */
  freezeTimeoutMs?: number;
  /**
   * Takes the complete image somewhere before the pod is let go of, while it stands still: if it fails, detach() rejects
   * with ERR_IMAGE_WRITE, the pod runs on, and the image is removed.
   */
  deliver?: (image: Image) => Promise<void>;
}

/** @internal */
export async function checkPod(pod: Pod, options: DetachOptions & { snapshot?: boolean }): Promise<Blocker[]> {
  checkRecorded(pod.record, options.withFiles ?? "none");
  const capture = openCapture(pod, options.snapshot ? "snapshot" : "check", options);
  try {
    return (await examine(pod, (await capture.survey()) as unknown as Survey, options)).blockers;
  } catch (e) {
    const error = toVirtError(e);
    // What stops the survey itself is a blocker like any other.
    if (["ERR_TRACED", "ERR_32BIT", "ERR_NO_VDSO", "ERR_FREEZE_TIMEOUT"].includes(error.code))
      return [error.toJSON() as unknown as Blocker];
    throw error;
  } finally {
    await capture.close();
  }
}

/** @internal */
export async function detach(pod: Pod, options: DetachOptions, kind: "detach" | "snapshot"): Promise<Image> {
  if (options.signal?.aborted) throw aborted(options.signal);
  checkRecorded(pod.record, options.withFiles ?? "none");
  checkHolding(options);
  const writer = new ImageWriter(imagePath(options.image ?? defaultImageName(pod)));
  const capture = openCapture(pod, kind, options);
  let files: Progress | undefined; // while those are read: the capture itself waits then
  const job = { stop: () => capture.stop(), progress: () => files ?? capture.progress() };
  const stopWatching = watch(job, options);
  const onFiles = (progress: Progress | undefined) => {
    files = progress;
    if (progress) options.onProgress?.(progress);
  };
  try {
    const start = performance.now();
    const found = await examine(pod, (await capture.survey()) as unknown as Survey, options);
    if (found.blockers.length > 0) throw blocked(pod, found.blockers);
    const { manifest, own } = await compose(pod, capture, found, { writer, kind, options, onFiles });
    const image = await writer.finish(manifest);
    if (options.signal?.aborted) {
      image.remove();
      throw aborted(options.signal);
    }
    try {
      await options.deliver?.(image);
    } catch (e) {
      image.remove();
      const { message, code } = e as NodeJS.ErrnoException;
      throw new VirtError("ERR_IMAGE_WRITE", `the image could not be handed over (${message}); the pod runs on`, {
        errnoName: code,
        cause: e,
      });
    }
    if (kind === "detach") {
      saveRecord({ ...pod.record, detachedTo: image.path });
      const ended = pod.ended();
      await capture.release();
      await ended;
      for (const { place } of own) removeTree(ownSource(podDirectory(pod.id), place));
    } else {
      await capture.thaw();
    }
    return new Image(image.path, image.manifest, performance.now() - start);
  } catch (e) {
    writer.discard();
    throw options.signal?.aborted ? aborted(options.signal) : describe(toVirtError(e), writer.target);
  } finally {
    stopWatching();
    await capture.close();
  }
}

function defaultImageName(pod: Pod): string {
  const time = new Date()
    .toISOString()
    .replace(/[-:]/g, "")
    .replace(/\.\d+Z$/, "Z");
  return `${pod.name}-${time}-${Math.random().toString(16).slice(2, 6)}`;
}

function describe(error: VirtError, target: string): VirtError {
  // An error with a pid is about that process: its memory is written too.
  const writing =
    error.pid === undefined &&
    ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EIO"].includes(error.errnoName ?? "") &&
    /write|pwrite|openat|sendfile|fsync|mkdir|ftruncate/.test(error.syscall ?? "");
  if (!writing || error.code === "ERR_IMAGE_WRITE") return error;
  return new VirtError("ERR_IMAGE_WRITE", `the image ${target} cannot be written: ${error.message}`, {
    path: target,
    syscall: error.syscall,
    errnoName: error.errnoName,
    phase: error.phase,
    cause: error,
  });
}
