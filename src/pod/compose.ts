/**
 * What a capture of a pod becomes: what stands in its way, and the manifest of its image with everything that goes into the
 * image beside pages. Detach, snapshot and a move have this in common.
 */
import { copyFileSync, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Blocker, VirtError } from "../errors.js";
import { collect, copyContent, isRecorded, rootOf, writtenSoFar } from "../files/collect.js";
import { captureOwn } from "../files/own.js";
import { formatName, formatVersion } from "../image/format.js";
import { describeHost } from "../image/host.js";
import { isLiving, type Manifest, type ProcessRecord } from "../image/manifest.js";
import { ImpossibleTree, planTree, type TreeProcess } from "../image/tree.js";
import type { ImageWriter } from "../image/writer.js";
import type { Written } from "../journal/written.js";
import { type NativeCapture, type NativeWire, native } from "../native.js";
import { relocate, toPod } from "../remap/address.js";
import { checkTcp } from "../remap/tcp-policy.js";
import type { Interposition } from "../rules/interposition.js";
import { version } from "../version.js";
import type { DetachOptions } from "./detach.js";
import { checkCutLimit, holderSocket, parseReach } from "./holder.js";
import { aborted, type Progress } from "./job.js";
import type { Pod } from "./pod.js";
import { holderName, podDirectory } from "./store.js";

/** What the engine tells of a frozen pod. @internal */
export type Survey = Omit<
  Manifest,
  "format" | "formatVersion" | "virtRun" | "createdAt" | "kind" | "host" | "pod" | "parts"
> & { blockers: Blocker[] };

/** What was found in a survey, and what goes with it. @internal */
export interface Examined {
  survey: Survey;
  written: Written;
  found: Awaited<ReturnType<typeof collectFiles>>;
  /** Everything that stands in the way. */
  blockers: Blocker[];
}

/** What a pod is stopped for: others whom it keeps waiting are told the word. */
type Purpose = "detach" | "snapshot" | "check" | "remap" | "export" | "move";

/** Connections to outside are held, or would be, unless the purpose is a snapshot; only a detach or a move takes them away. @internal */
export function openCapture(pod: Pod, purpose: Purpose, options: DetachOptions = {}, wire?: NativeWire): NativeCapture {
  const tcp = checkTcp(options.tcp, options.tcpRules);
  const wantsHeld = [tcp.otherwise, ...tcp.rules.map(({ policy }) => policy)].includes("hold");
  return new native.Capture(
    {
      socket: pod.record.socket,
      lock: purpose,
      drop: options.drop ?? [],
      remapped: pod.record.remaps.map(({ to }) => to),
      tcp,
      hold: purpose !== "snapshot" && wantsHeld,
      leave: purpose === "detach" || purpose === "move",
      freezeTimeoutMs: options.freezeTimeoutMs ?? 5000,
      threads: 2,
    },
    wire,
  );
}

/** Throws what is wrong with the options about holding before anything is done. @internal */
export function checkHolding(options: DetachOptions): void {
  if (options.holdAt !== undefined) parseReach(options.holdAt);
  if (options.cutLimitMs !== undefined) checkCutLimit(options.cutLimitMs);
}

/** What a survey of a frozen pod means. @internal */
export async function examine(
  pod: Pod,
  survey: Survey,
  options: DetachOptions & { also?: ReadonlySet<string> },
): Promise<Examined> {
  const written = await writtenSoFar(pod.record, pod.connection);
  const found = await collectFiles(pod, survey, written, options);
  return { survey, written, found, blockers: [...blockersOf(survey), ...found.blockers] };
}

/** @internal */
export function blocked(pod: Pod, blockers: Blocker[]): VirtError {
  return new VirtError(
    "ERR_BLOCKED",
    `the pod ${pod.name} cannot be detached: ${blockers.length} ${blockers.length === 1 ? "thing stands" : "things stand"} in the way; it runs on`,
    { blockers },
  );
}

/** What an image is made of beside its parts. @internal */
export interface Composed {
  manifest: Omit<Manifest, "parts">;
  /** Directories of the pod's own that went along. */
  own: Awaited<ReturnType<typeof captureOwn>>;
}

/**
 * Reads the rest of a frozen pod into an image, and has init keep what leads to outside. @internal
 */
export async function compose(
  pod: Pod,
  capture: NativeCapture,
  { written, found }: Examined,
  how: {
    writer: ImageWriter;
    kind: "detach" | "snapshot";
    options: DetachOptions;
    /** It goes on elsewhere while this host is still at it: nobody can take connections from its holder here. */
    elsewhere?: boolean;
    onFiles?: (progress: Progress | undefined) => void;
  },
): Promise<Composed> {
  const { writer, kind, options } = how;
  const reach = options.holdAt === undefined ? undefined : parseReach(options.holdAt);
  const cutLimit = options.cutLimitMs === undefined ? {} : { cutLimitMs: checkCutLimit(options.cutLimitMs) };
  const carriedFiles = await copyContent(
    found,
    writer.directory,
    (name) => {
      if (options.signal?.aborted) throw aborted(options.signal);
      return writer.carry(name);
    },
    (doneBytes) => how.onFiles?.({ phase: "files", doneBytes, totalBytes: found.bytes }),
  );
  how.onFiles?.(undefined);
  const record = (await capture.read(writer.fd)) as unknown as Survey;
  void writer.add("pages.sum"); // pages themselves may be elsewhere
  for (const c of record.carried) c.name = await writer.carry(c.name);
  const key = native.randomHex(32);
  const held =
    kind === "detach"
      ? await capture.hold(holderName(pod.id), Buffer.from(key, "hex"), reach ? { ...reach, ...cutLimit } : null)
      : { count: 0, far: [] };
  const far = held.far.map(({ address, port, key, cutLimitMs, state }, i) => {
    const part = `relay-${i}`;
    writeFileSync(join(writer.directory, part), state, { mode: 0o600 });
    void writer.add(part);
    return { reach: { address, port }, key: key.toString("hex"), cutLimitMs, part };
  });
  const own = pod.record.isolate === undefined ? [] : await captureOwn(podDirectory(pod.id), writer);
  const log = join(podDirectory(pod.id), "log");
  if (existsSync(log)) {
    copyFileSync(log, join(writer.directory, "log"));
    void writer.add("log");
  }
  const manifest: Omit<Manifest, "parts"> = {
    ...(await describeImage(pod, record, kind)),
    ...(own.length === 0 ? {} : { own }),
    ...(far.length === 0 ? {} : { far }),
    ...(held.count === 0
      ? {}
      : {
          holder: {
            ...(how.elsewhere ? {} : { socket: holderSocket(pod.record) }),
            key,
            ...(reach && { reach: { address: reach.address, port: held.port ?? reach.port }, ...cutLimit }),
          },
        }),
    accepted: [...record.accepted, ...found.left],
    ...(carriedFiles.length > 0 ? { carriedFiles } : {}),
    ...(isRecorded(pod.record) ? { written } : {}),
  };
  return { manifest, own };
}

/** What an image says of its pod, whoever makes it. @internal */
export async function describeImage(
  pod: Pod,
  survey: Survey,
  kind: "detach" | "snapshot",
): Promise<Omit<Manifest, "parts">> {
  const status = await pod.status();
  const { blockers: _, ...rest } = survey;
  const { record } = pod;
  // The image says what the pod knows, not what this host made of it.
  const known = { ports: record.ports ?? {}, addresses: record.addresses ?? {} };
  return {
    format: formatName,
    formatVersion,
    virtRun: version,
    createdAt: new Date().toISOString(),
    kind,
    host: describeHost(),
    pod: {
      id: pod.id,
      name: pod.name,
      command: [...pod.command],
      cwd: record.cwd,
      stdio: record.stdio,
      labels: record.labels,
      remaps: record.remaps,
      user: { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0, root: process.geteuid?.() === 0 },
      first: { pid: status.firstPid, ended: status.firstEnded, waitStatus: status.waitStatus },
      ...interpositionOf(record),
      ...(record.hostname === undefined ? {} : { hostname: record.hostname }),
      ...(record.machineId === undefined ? {} : { machineId: record.machineId }),
      ...(record.isolate === undefined ? {} : { isolate: record.isolate }),
    },
    ...rest,
    handles: rest.handles.map((h) => relocate(h, (a) => toPod(known, a))),
  };
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

/** What is to be carried, and refuses what is too much: ERR_FILES_LIMIT. */
async function collectFiles(
  pod: Pod,
  survey: Survey,
  written: Written,
  options: DetachOptions & { also?: ReadonlySet<string> },
) {
  const withFiles = options.withFiles ?? "none";
  const files = await collect(pod.record, () => rootOf(pod.record), {
    written,
    survey,
    withFiles,
    ...(options.also && { also: options.also }),
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
