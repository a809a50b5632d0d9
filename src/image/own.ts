/**
 * The directories that an isolated pod has to itself (/tmp and the like) go with it: read while it stands still, and made
 * again before it is rebuilt. Contents are parts of the image, by hash.
 */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  constants,
  copyFileSync,
  existsSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  symlinkSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { VirtError } from "../errors.js";
import { ownPlaces, ownSource } from "../pod/isolation.js";
import type { Manifest } from "./manifest.js";
import type { ImageWriter } from "./writer.js";

type Own = NonNullable<Manifest["own"]>[number];
type Entry = Own["entries"][number];

/** What is in a pod's own directories, its files' contents written into the image. Sockets are made by who has them. */
export async function captureOwn(stateDirectory: string, writer: ImageWriter): Promise<Own[]> {
  const out: Own[] = [];
  for (const place of ownPlaces) {
    const source = ownSource(stateDirectory, place);
    if (!existsSync(source)) continue;
    const entries: Entry[] = [];
    const links = new Map<number, string>();
    for (const path of below(source)) {
      const entry = await captureEntry(source, path, links, writer);
      if (entry) entries.push(entry);
    }
    out.push({ place, entries });
  }
  return out;
}

/** Relative paths of everything below a directory, parents first. */
function below(directory: string): string[] {
  const walk = (at: string): string[] =>
    readdirSync(join(directory, at), { withFileTypes: true }).flatMap((e) => {
      const path = at === "" ? e.name : `${at}/${e.name}`;
      return e.isDirectory() ? [path, ...walk(path)] : [path];
    });
  return walk("");
}

async function captureEntry(
  source: string,
  path: string,
  links: Map<number, string>,
  writer: ImageWriter,
): Promise<Entry | undefined> {
  const full = join(source, path);
  const st = lstatSync(full, { bigint: true });
  const entry = {
    path,
    mode: Number(st.mode & 0o7777n),
    uid: Number(st.uid),
    gid: Number(st.gid),
    mtimeNs: String(st.mtimeNs),
  };
  if (st.isDirectory()) return { ...entry, kind: "directory" };
  const first = links.get(Number(st.ino));
  if (first !== undefined) return { ...entry, kind: "same", target: first };
  if (st.nlink > 1n) links.set(Number(st.ino), path);
  if (st.isSymbolicLink()) return { ...entry, kind: "link", target: readlinkSync(full) };
  if (st.isFIFO()) return { ...entry, kind: "fifo" };
  if (!st.isFile()) return undefined;
  const copy = "own-file";
  try {
    copyFileSync(full, join(writer.directory, copy), constants.COPYFILE_FICLONE);
    chmodSync(join(writer.directory, copy), 0o600);
  } catch (cause) {
    const e = cause as NodeJS.ErrnoException;
    throw new VirtError("ERR_IMAGE_WRITE", `${path} in a directory of the pod's own cannot be carried: ${e.code}`, {
      path: full,
      errnoName: e.code,
      cause,
    });
  }
  return { ...entry, kind: "file", name: await writer.carry(copy) };
}

/** Makes what an image says of a pod's own directories in the state directory of the pod that is made of it. */
export function restoreOwn(manifest: Manifest, image: string, stateDirectory: string): void {
  for (const { place, entries } of manifest.own ?? []) {
    const source = ownSource(stateDirectory, place);
    mkdirSync(source, { recursive: true });
    for (const entry of entries) restoreEntry(source, entry, image);
    // What is put into a directory changes its time, and what has no right to be written would refuse it.
    for (const entry of [...entries].reverse()) settle(join(source, entry.path), entry);
    chmodSync(source, 0o1777);
  }
}

function restoreEntry(source: string, entry: Entry, image: string): void {
  const path = join(source, entry.path);
  switch (entry.kind) {
    case "directory":
      mkdirSync(path, { recursive: true, mode: 0o700 });
      break;
    case "file":
      copyFileSync(join(image, entry.name), path, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
      break;
    case "same":
      linkSync(join(source, entry.target), path);
      break;
    case "link":
      symlinkSync(entry.target, path);
      break;
    case "fifo":
      execFileSync("mkfifo", ["--", path]);
      break;
  }
}

function settle(path: string, entry: Entry): void {
  if (process.geteuid?.() === 0) lchownSync(path, entry.uid, entry.gid);
  if (entry.kind !== "link") chmodSync(path, entry.mode);
  const seconds = Number(entry.mtimeNs) / 1e9;
  lutimesSync(path, seconds, seconds);
}

/** Whether a path that lies in a place of the pod's own is in the image. */
export function isCarriedInOwn(manifest: Manifest, path: string): boolean {
  return (manifest.own ?? []).some(
    ({ place, entries }) => path === place || entries.some((e) => `${place}/${e.path}` === path),
  );
}

/** The checks of the manifest's part: every entry's parent comes before it, and no path leads out. */
export function ownProblem(own: Manifest["own"], parts: ReadonlySet<string>): string | undefined {
  const places = new Set<string>();
  for (const { place, entries } of own ?? []) {
    if (!ownPlaces.includes(place) || places.has(place)) return `${place} is no directory of a pod's own`;
    places.add(place);
    const kinds = new Map<string, Entry["kind"]>();
    for (const entry of entries) {
      const { path, kind } = entry;
      const parent = dirname(path);
      const plain = path.split("/").every((word) => word !== "" && word !== "." && word !== "..");
      if (!plain || kinds.has(path) || (parent !== "." && kinds.get(parent) !== "directory"))
        return `${place}/${path} is out of place`;
      if (kind === "same" && !["file", "fifo"].includes(kinds.get(entry.target) ?? ""))
        return `${place}/${path} is the same as nothing`;
      if (kind === "file" && !parts.has(entry.name)) return `part ${entry.name} is missing`;
      kinds.set(path, kind);
    }
  }
  return undefined;
}
