/**
 * Writing the files of a pod or an image out: what an image carries, or what a pod has written, below a directory.
 */
import { existsSync, mkdirSync, realpathSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { VirtError } from "../errors.js";
import { checkParts, Image, openImage } from "../image/image.js";
import type { CarriedFile } from "../image/manifest.js";
import { native } from "../native.js";
import { openCapture } from "../pod/compose.js";
import { type Pod, podFromRecord } from "../pod/pod.js";
import { findRecord, type PodRecord, podDirectory } from "../pod/store.js";
import { translatePath } from "../remap/path.js";
import { asData, type Collection, collect, copyContent, isRecorded, rootOf, writtenSoFar } from "./collect.js";

/**
 * What exportFiles() did, by path as the pod knows it. Directories are not listed.
 *
 * @example
 * const { conflicts }: ExportResult = await exportFiles("build", "out");
 */
export interface ExportResult {
  /** Absolute. */
  directory: string;
  /** Files, links and fifos that are there now. */
  written: string[];
  /** Were there already, with the same content. */
  unchanged: string[];
  /** Something else is there; it was left as it is. */
  conflicts: string[];
  /** What could not be taken along, in words. */
  left: string[];
  /** Content written, in bytes. */
  bytes: number;
}

/**
 * Writes the files that an image carries, or that a pod has written so far, out below a directory at their old paths
 * (`out/home/user/x`), with mode, time and extended attributes, as this user's own. The directory is made if it is missing.
 * Nothing that is there is overwritten: see `conflicts`. A running pod stands still while its files are read.
 *
 * `what` is a pod, an image, or a word: a pod's name, id or unique prefix of it, else an image's name or path.
 *
 * Errors: ERR_NOT_RECORDED (of a pod whose effects are not recorded nothing is known), ERR_POD_NOT_FOUND or
 * ERR_IMAGE_NOT_FOUND and the other errors of openImage(); those of Pod.check(); ERR_SYSCALL where DIR cannot be written.
 *
 * @example
 * const { written, conflicts } = await exportFiles("build", "out");
 * if (conflicts.length > 0) console.error("left as they are:", conflicts);
 */
export async function exportFiles(what: Pod | Image | string, directory: string): Promise<ExportResult> {
  const source = typeof what === "string" ? await named(what) : what;
  if (source instanceof Image) {
    await checkParts(source);
    return place(source.path, source.manifest.carriedFiles ?? [], resolve(directory), []);
  }
  try {
    return await exportPod(source, resolve(directory));
  } finally {
    if (typeof what === "string") source.disconnect();
  }
}

async function named(word: string): Promise<Pod | Image> {
  let record: PodRecord | undefined;
  try {
    record = findRecord(word);
  } catch (e) {
    if (!(e instanceof VirtError) || e.code !== "ERR_POD_NOT_FOUND") throw e;
  }
  return record ? podFromRecord(record) : openImage(word);
}

async function exportPod(pod: Pod, directory: string): Promise<ExportResult> {
  const { record } = pod;
  if (!isRecorded(record) && record.files === undefined)
    throw new VirtError("ERR_NOT_RECORDED", `nobody knows what the pod ${pod.name} has written: nothing was recorded`);
  const stage = join(podDirectory(record.id), `export-${native.randomHex(4)}`);
  mkdirSync(stage, { mode: 0o700 });
  try {
    const { files, entries } = await read(pod, stage);
    return await place(stage, entries, directory, files.left);
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
}

/** Copies what the pod has to `stage`; it stands still meanwhile, if it runs. */
async function read(pod: Pod, stage: string): Promise<{ files: Collection; entries: CarriedFile[] }> {
  const { record } = pod;
  const capture = pod.running ? openCapture(pod, "export") : undefined;
  try {
    await capture?.survey();
    const written = await writtenSoFar(record, capture ? pod.connection : undefined);
    const root = () => (capture ? rootOf(record) : "/");
    // Of a pod that has ended the host shows all but what lies in its overlays, which is found in its own directory.
    const overlaid = (path: string) =>
      (record.files?.overlays ?? []).some((o) => o.at === "/" || path === o.at || path.startsWith(`${o.at}/`));
    const files = await collect(
      record,
      root,
      {
        written: capture ? written : { ...written, paths: written.paths.filter((w) => !overlaid(w.path)) },
        withFiles: "written",
        drop: ["carried-file"],
      },
      capture ? undefined : (path) => onHost(record, path),
    );
    const entries = await copyContent(
      files,
      stage,
      (name) => Promise.resolve(name),
      () => {},
    );
    return { files, entries };
  } finally {
    await capture?.close();
  }
}

/** Where on the host a path of an ended pod lies, without links in what a rule names. */
function onHost(record: PodRecord, path: string): string {
  const remaps = record.remaps.map(({ from, to }) => ({ from: existsSync(from) ? realpathSync(from) : from, to }));
  return translatePath(remaps, path);
}

async function place(from: string, entries: CarriedFile[], to: string, left: string[]): Promise<ExportResult> {
  mkdirSync(to, { recursive: true });
  // Whom a set-user-id program is to run as, and who else may write, is not for an export to say.
  const plain = entries
    .filter((e) => e.type !== "absent")
    .map((e) => (e.type === "file" ? { ...e, mode: e.mode & 0o777 } : e))
    .map((e) => (e.type === "directory" ? { ...e, mode: e.mode & 0o755 } : e));
  const outcomes = (await native.placeFiles({ to, image: from, entries: asData(plain), keep: true })) as {
    path: string;
    what: "written" | "there" | "conflict";
    lost?: boolean;
  }[];
  const result: ExportResult = { directory: to, written: [], unchanged: [], conflicts: [], left: [...left], bytes: 0 };
  for (const [i, o] of outcomes.entries()) {
    const e = plain[i] as CarriedFile;
    if (o.lost) result.left.push(`extended attributes of ${o.path}: the file system has none`);
    if (o.what === "conflict") result.conflicts.push(o.path);
    if (e.type === "directory") continue;
    if (o.what === "written") result.written.push(o.path);
    if (o.what === "there") result.unchanged.push(o.path);
    if (o.what === "written" && e.type === "file" && e.linkTo === undefined) result.bytes += e.sizeBytes;
  }
  return result;
}
