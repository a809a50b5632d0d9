/**
 * Detach, snapshot and check: what a capture does, in order, with the source unharmed whatever fails.
 *
 *   survey → (blockers? thaw and tell) → read pages → manifest, synced and read back → kill the source, or thaw it
 */
import { copyFileSync, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Blocker, toVirtError, VirtError } from "../errors.js";
import {
  checkRecorded,
  collect,
  copyContent,
  isRecorded,
  rootOf,
  type WithFiles,
  writtenSoFar,
} from "../files/collect.js";
import { captureOwn } from "../files/own.js";
import { formatName, formatVersion } from "../image/format.js";
import { describeHost } from "../image/host.js";
import { Image, imagePath } from "../image/image.js";
import { type HandleRecord, isLiving, type Manifest, type ProcessRecord } from "../image/manifest.js";
import { ImpossibleTree, planTree, type TreeProcess } from "../image/tree.js";
import { ImageWriter } from "../image/writer.js";
import type { Written } from "../journal/written.js";
import { type NativeCapture, native } from "../native.js";
import { relocate, toPod } from "../remap/address.js";
import { checkTcp, keepsConnections, type TcpPolicy, type TcpRule } from "../remap/tcp-policy.js";
import type { Interposition } from "../rules/interposition.js";
import { version } from "../version.js";
import { checkCutLimit, holderSocket, parseReach } from "./holder.js";
import { ownSource } from "./isolation.js";
import type { Pod } from "./pod.js";
import { holderName, podDirectory, removeTree, saveRecord } from "./store.js";

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

type Survey = Omit<
  Manifest,
  "format" | "formatVersion" | "virtRun" | "createdAt" | "kind" | "host" | "pod" | "parts"
> & { blockers: Blocker[] };

/** @internal */
export async function checkPod(pod: Pod, options: DetachOptions & { snapshot?: boolean }): Promise<Blocker[]> {
  checkRecorded(pod.record, options.withFiles ?? "none");
  const capture = openCapture(pod, options.snapshot ? "snapshot" : "check", options);
  try {
    const survey = (await capture.survey()) as unknown as Survey;
    const written = await writtenSoFar(pod.record, pod.connection);
    return [...blockersOf(survey), ...(await collectFiles(pod, survey, written, options)).blockers];
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

/** What an image keeps of it: all but hooks, which are functions of a process. */
function interpositionOf({ record, rules, ports, addresses, cover }: Interposition) {
  return {
    ...(record && { record }),
    ...(rules && { rules: rules as Record<string, unknown>[] }),
    ...(ports && { ports }),
    ...(addresses && { addresses }),
    ...(cover && { cover }),
  };
}

/** @internal */
export async function detach(pod: Pod, options: DetachOptions, kind: "detach" | "snapshot"): Promise<Image> {
  if (options.signal?.aborted) throw aborted(options.signal);
  const withFiles = options.withFiles ?? "none";
  checkRecorded(pod.record, withFiles);
  const reach = options.holdAt === undefined ? undefined : parseReach(options.holdAt);
  const cutLimit = options.cutLimitMs === undefined ? {} : { cutLimitMs: checkCutLimit(options.cutLimitMs) };
  const status = await pod.status();
  const host = describeHost();
  const writer = new ImageWriter(imagePath(options.image ?? defaultImageName(pod)));
  const capture = openCapture(pod, kind, options);
  let files: Progress | undefined; // while those are read: the capture itself waits then
  const job = { stop: () => capture.stop(), progress: () => files ?? capture.progress() };
  const stopWatching = watch(job, options);
  try {
    const start = performance.now();
    const survey = (await capture.survey()) as unknown as Survey;
    const written = await writtenSoFar(pod.record, pod.connection);
    const found = await collectFiles(pod, survey, written, options);
    const blockers = [...blockersOf(survey), ...found.blockers];
    if (blockers.length > 0) {
      throw new VirtError(
        "ERR_BLOCKED",
        `the pod ${pod.name} cannot be detached: ${blockers.length} ${blockers.length === 1 ? "thing stands" : "things stand"} in the way; it runs on`,
        { blockers },
      );
    }
    const carriedFiles = await copyContent(
      found,
      writer.directory,
      (name) => {
        if (options.signal?.aborted) throw aborted(options.signal);
        return writer.carry(name);
      },
      (doneBytes) => {
        files = { phase: "files", doneBytes, totalBytes: found.bytes };
        options.onProgress?.(files);
      },
    );
    files = undefined;
    const record = (await capture.read(writer.fd)) as unknown as Survey;
    void writer.add("pages.sum");
    for (const c of record.carried) c.name = await writer.carry(c.name);
    const key = native.randomHex(32);
    const held =
      kind === "detach"
        ? await capture.hold(holderName(pod.id), Buffer.from(key, "hex"), reach ? { ...reach, ...cutLimit } : null)
        : { count: 0, far: [], repaired: [] };
    const far = held.far.map(({ address, port, key, cutLimitMs, state, listeners }, i) => {
      const part = `relay-${i}`;
      writeFileSync(join(writer.directory, part), state, { mode: 0o600 });
      void writer.add(part);
      const led = listeners.length === 0 ? {} : { listeners };
      return { reach: { address, port }, key: key.toString("hex"), cutLimitMs, part, ...led };
    });
    const own = pod.record.isolate === undefined ? [] : await captureOwn(podDirectory(pod.id), writer);
    const log = join(podDirectory(pod.id), "log");
    if (existsSync(log)) {
      copyFileSync(log, join(writer.directory, "log"));
      void writer.add("log");
    }
    const { blockers: _, ...rest } = record;
    // The image says what the pod knows, not what this host made of it.
    const known = { ports: pod.record.ports ?? {}, addresses: pod.record.addresses ?? {} };
    rest.handles = withStates(rest.handles, held.repaired).map((h) => relocate(h, (a) => toPod(known, a)));
    const image = await writer.finish({
      format: formatName,
      formatVersion,
      virtRun: version,
      createdAt: new Date().toISOString(),
      kind,
      host,
      pod: {
        id: pod.id,
        name: pod.name,
        command: [...pod.command],
        cwd: pod.record.cwd,
        stdio: pod.record.stdio,
        labels: pod.record.labels,
        remaps: pod.record.remaps,
        user: { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0, root: process.geteuid?.() === 0 },
        first: { pid: status.firstPid, ended: status.firstEnded, waitStatus: status.waitStatus },
        ...interpositionOf(pod.record),
        ...(pod.record.hostname === undefined ? {} : { hostname: pod.record.hostname }),
        ...(pod.record.machineId === undefined ? {} : { machineId: pod.record.machineId }),
        ...(pod.record.isolate === undefined ? {} : { isolate: pod.record.isolate }),
      },
      ...rest,
      ...(own.length === 0 ? {} : { own }),
      ...(far.length === 0 ? {} : { far }),
      ...(held.count === 0
        ? {}
        : {
            holder: {
              socket: holderSocket(pod.record),
              key,
              ...(reach && { reach: { address: reach.address, port: held.port ?? reach.port }, ...cutLimit }),
            },
          }),
      accepted: [...rest.accepted, ...found.left],
      ...(carriedFiles.length > 0 ? { carriedFiles } : {}),
      ...(isRecorded(pod.record) ? { written } : {}),
    });
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

/** The handles with the states of their TCP connections, by id. One that has ended since the survey has no peer any more. */
function withStates(handles: readonly HandleRecord[], states: readonly [number, unknown][]): HandleRecord[] {
  const found = new Map(states);
  return handles.map((h) => {
    if (h.kind !== "inet-socket" || !found.has(h.id)) return h;
    const { peer: _, ...ended } = h;
    const repair = found.get(h.id) as typeof h.repair | null;
    return repair ? { ...h, repair } : ended;
  });
}

/** What is to be carried, and refuses what is too much: ERR_FILES_LIMIT. */
async function collectFiles(pod: Pod, survey: Survey, written: Written, options: DetachOptions) {
  const withFiles = options.withFiles ?? "none";
  const files = await collect(pod.record, () => rootOf(pod.record), {
    written,
    survey,
    withFiles,
    drop: options.drop ?? [],
  });
  if (withFiles === "all" && !isRecorded(pod.record))
    files.left.push("not carried: what the pod wrote and has closed again, which nobody recorded");
  const most = options.filesLimitBytes ?? Number.POSITIVE_INFINITY;
  if (files.bytes > most) {
    throw new VirtError(
      "ERR_FILES_LIMIT",
      `${files.files} ${files.files === 1 ? "file" : "files"} of ${files.bytes} bytes would be carried, ${most} bytes are allowed; the pod runs on`,
    );
  }
  return files;
}

/** What a pod is stopped for: others whom it keeps waiting are told the word. */
type Purpose = "detach" | "snapshot" | "check" | "remap" | "export";

/** Connections to outside are held, or would be, unless the purpose is a snapshot; only a detach takes them away. @internal */
export function openCapture(pod: Pod, purpose: Purpose, options: DetachOptions = {}): NativeCapture {
  const tcp = checkTcp(options.tcp, options.tcpRules);
  const wantsHeld = [tcp.otherwise, ...tcp.rules.map(({ policy }) => policy)].some(keepsConnections);
  return new native.Capture({
    socket: pod.record.socket,
    lock: purpose,
    drop: options.drop ?? [],
    remapped: pod.record.remaps.map(({ to }) => to),
    tcp,
    hold: purpose !== "snapshot" && wantsHeld,
    leave: purpose === "detach",
    freezeTimeoutMs: options.freezeTimeoutMs ?? 5000,
    threads: 2,
  });
}

/** The survey's blockers, and a tree that could not be grown again. */
function blockersOf(survey: Survey): Blocker[] {
  const blockers = [...survey.blockers];
  try {
    planTree(survey.processes.map(treeProcess));
  } catch (e) {
    if (!(e instanceof ImpossibleTree)) throw e;
    blockers.push({ code: "ERR_TREE", message: `a process tree that cannot be made again: ${e.message}` });
  }
  return blockers;
}

/** @internal */
export function treeProcess(p: ProcessRecord): TreeProcess {
  const { pid, ppid, group, session, exitSignal } = p;
  const place = { pid, ppid, group, session, exitSignal };
  return isLiving(p)
    ? { ...place, subreaper: p.subreaper, tids: p.threads.map((t) => t.tid) }
    : { ...place, zombie: true, exitStatus: p.exitStatus, comm: p.comm };
}

function defaultImageName(pod: Pod): string {
  const time = new Date()
    .toISOString()
    .replace(/[-:]/g, "")
    .replace(/\.\d+Z$/, "Z");
  return `${pod.name}-${time}-${Math.random().toString(16).slice(2, 6)}`;
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
