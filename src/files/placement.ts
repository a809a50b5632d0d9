/**
 * Where the files go that an image carries, decided before there is a pod: what is on this host unchanged is used; the rest
 * appears at its old path inside the pod only, in overlays over as few directories as can be, or as single files mounted over
 * others. Nothing is changed by deciding.
 */
import { type BigIntStats, lstatSync, readlinkSync, realpathSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { hashFile } from "../image/image.js";
import type { CarriedFile, FileRecord, Manifest } from "../image/manifest.js";
import type { PathRemap } from "../pod/store.js";
import { translatePath } from "../remap/path.js";
import { openForWriting } from "./collect.js";
import { isBelow, mountPoints } from "./mounts.js";

/** What native/files/place.h takes: a carried file, or one of this host's that the pod writes to. */
export type PlacedFile =
  | Exclude<CarriedFile, { type: "file" }>
  | (Extract<CarriedFile, { type: "file" }> & { host?: string });

export interface Overlay {
  /** The directory it lies over, as the pod sees it. */
  at: string;
  /** There are mounts below it, or it is the root: what is in it is mounted back, and only what is not there is new. */
  assembled: boolean;
  /** Paths begin at the overlay's directory; parents first. "/" is that directory itself. */
  files: PlacedFile[];
}

export interface Placement {
  overlays: Overlay[];
  /** Single files that stand in place of others. */
  bound: { at: string; file: Extract<CarriedFile, { type: "file" }> }[];
  /** Paths of files that are used as this host has them. */
  host: string[];
  /** Missing here: the pod sees its own. */
  carried: string[];
  /** Programs and libraries that differ here: the pod sees its own. */
  replaced: string[];
  /** Written by the pod and different here: the pod sees its own, the host's stay as they are. */
  conflicts: string[];
  /** In overlays, and not written by the pod. */
  used: string[];
  /** What was lost, in words. */
  notes: string[];
  /** Whether the pod will see something at this path that the host has not, or not so. */
  provides(path: string): boolean;
}

const tryStat = (path: string): BigIntStats | undefined => {
  try {
    return statSync(path, { bigint: true });
  } catch {
    return undefined; // not there, or nobody's business
  }
};

const tryLstat = (path: string): BigIntStats | undefined => {
  try {
    return lstatSync(path, { bigint: true });
  } catch {
    return undefined;
  }
};

/** What this host has at a carried file's path: the same, something else, nothing. */
async function compare(e: CarriedFile, where: string): Promise<"same" | "differs" | "missing"> {
  // What is only used may be reached through a link: another distribution's layout.
  const st = e.type === "directory" || (e.type === "file" && e.why === "used") ? tryStat(where) : tryLstat(where);
  if (!st) return e.type === "absent" ? "same" : "missing";
  switch (e.type) {
    case "directory":
      return st.isDirectory() && !e.opaque ? "same" : "differs";
    case "symlink":
      return st.isSymbolicLink() && readlinkSync(where) === e.target ? "same" : "differs";
    case "fifo":
      return st.isFIFO() ? "same" : "differs";
    case "absent":
      return "differs";
    case "file": {
      if (!st.isFile() || Number(st.size) !== e.sizeBytes) return "differs";
      const hash = await hashFile(where).catch(() => undefined); // one that cannot be read is another
      return `files/${hash}` === e.name ? "same" : "differs";
    }
  }
}

/** A path, and where it lies with links on the way resolved: what exists of it, and the rest. */
interface Location {
  base: string;
  path: string;
}

class Host {
  readonly remaps: readonly PathRemap[];
  #points: string[] | undefined;
  readonly #bases = new Map<string, string>();

  constructor(remaps: readonly PathRemap[]) {
    this.remaps = remaps;
  }

  where(path: string): string {
    return translatePath(this.remaps, path);
  }

  /** The nearest directory above that exists. */
  locate(path: string): Location {
    let parent = dirname(path);
    while (parent !== "/" && !tryStat(this.where(parent))?.isDirectory()) parent = dirname(parent);
    let base = this.#bases.get(parent);
    if (base === undefined) {
      base = parent;
      if (this.where(parent) === parent) {
        try {
          base = realpathSync(parent);
        } catch {
          // as it is
        }
      }
      this.#bases.set(parent, base);
    }
    const rest = path.slice(parent === "/" ? 0 : parent.length);
    return { base, path: base === "/" ? rest : base + rest };
  }

  isAssembled(directory: string): boolean {
    this.#points ??= mountPoints(this.remaps);
    return directory === "/" || this.#points.some((p) => isBelow(p, directory));
  }

  /** Whether an overlay over `directory` shows `path`: nothing is mounted in between. */
  reaches(directory: string, path: string): boolean {
    if (!isBelow(path, directory)) return false;
    if (!this.isAssembled(directory)) return true;
    // What is in an assembled one is mounted back, whole, if it is a directory: such things have their own overlay.
    const first = path.slice(directory === "/" ? 1 : directory.length + 1).split("/")[0] as string;
    const child = `${directory === "/" ? "" : directory}/${first}`;
    return child === path || !tryStat(this.where(child))?.isDirectory();
  }
}

function hostAttributes(st: BigIntStats) {
  return { mode: Number(st.mode) & 0o7777, mtimeNs: String(st.mtimeNs), uid: Number(st.uid), gid: Number(st.gid) };
}

/** Decides for every carried file of an image. Reads those that this host has. */
export async function planPlacement(m: Manifest, remaps: readonly PathRemap[]): Promise<Placement> {
  const host = new Host(remaps);
  const entries = m.carriedFiles ?? [];
  const found = new Map<CarriedFile, "same" | "differs" | "missing">();
  for (const e of entries) found.set(e, await compare(e, host.where(e.path)));
  const wanting = entries.filter((e) => found.get(e) !== "same");

  // A file that differs can be covered by itself, if nothing else needs its directory.
  const alone = (e: CarriedFile) =>
    e.type === "file" &&
    e.why === "used" &&
    found.get(e) === "differs" &&
    tryLstat(host.where(e.path))?.isFile() === true;
  const bases = new Set(wanting.filter((e) => !alone(e)).map((e) => host.locate(e.path).base));
  const directories: string[] = [];
  for (const base of [...bases].sort((a, b) => a.length - b.length))
    if (!directories.some((d) => host.reaches(d, base))) directories.push(base);
  const ownerOf = (path: string) => directories.findLast((d) => host.reaches(d, path));

  // What the pod writes to must not be the host's below an overlay and the pod's own from the first write on.
  const writing = openForWriting(m);
  const linked = new Set(
    entries.flatMap((e) => (e.type === "file" && e.linkTo !== undefined && found.get(e) !== "same" ? [e.linkTo] : [])),
  );
  for (const e of entries)
    if (
      e.type === "file" &&
      e.linkTo !== undefined &&
      (linked.has(e.linkTo) || wanting.some((w) => w.path === e.linkTo))
    )
      linked.add(e.path).add(e.linkTo);

  const placed = new Map<string, Map<string, PlacedFile>>(directories.map((d) => [d, new Map()]));
  const provided = new Set<string>();
  const bound: Placement["bound"] = [];
  const notes: string[] = [];
  const put = (directory: string, path: string, file: PlacedFile) => {
    const list = placed.get(directory) as Map<string, PlacedFile>;
    for (let above = dirname(path); isBelow(above, directory); above = dirname(above)) {
      const st = tryStat(host.where(above));
      const known = list.get(above);
      if (known || !st?.isDirectory()) continue;
      list.set(above, { path: above, type: "directory", ...hostAttributes(st) });
    }
    list.set(path, { ...file, path });
  };
  for (const e of entries) {
    const { path } = host.locate(e.path);
    const directory = ownerOf(path);
    const wanted = found.get(e) !== "same";
    const kept = e.type === "file" && (writing.has(e.path) || linked.has(e.path));
    if (!wanted && !(kept && directory !== undefined)) continue;
    if (directory !== undefined) {
      put(directory, path, e);
      provided.add(e.path);
    } else if (e.type === "file") {
      bound.push({ at: e.path, file: e });
      provided.add(e.path);
    }
  }
  for (const f of m.files) {
    if (f.unlinked || f.byKernel || !writing.has(f.path) || provided.has(f.path)) continue;
    const { path } = host.locate(f.path);
    const directory = ownerOf(path);
    const st = directory === undefined ? undefined : tryStat(host.where(f.path));
    if (directory !== undefined && st?.isFile()) put(directory, path, ofHost(f, host.where(f.path), st));
  }
  const overlays = directories.map((at) => {
    const list = placed.get(at) as Map<string, PlacedFile>;
    const st = tryStat(host.where(at));
    const top = st ? [{ path: "/", type: "directory" as const, ...hostAttributes(st) }] : [];
    const under = (path: string) => (at === "/" ? path : path.slice(at.length));
    const where = new Map([...list].map(([path, f]) => [f.path, under(path)]));
    const files = [...list].map(([path, f]) => {
      const first = f.type === "file" && f.linkTo !== undefined ? where.get(host.locate(f.linkTo).path) : undefined;
      if (f.type !== "file" || f.linkTo === undefined) return { ...f, path: under(path) };
      const { linkTo, ...plain } = f;
      if (first === undefined) notes.push(`${path} and ${linkTo} are two files now: they lie in different overlays`);
      return { ...plain, path: under(path), ...(first === undefined ? {} : { linkTo: first }) };
    });
    return { at, assembled: host.isAssembled(at), files: [...top, ...files.sort(byPath)] };
  });

  const paths = (what: (e: CarriedFile) => boolean) => entries.filter(what).map((e) => e.path);
  const isUsed = (e: CarriedFile) => e.type === "file" && e.why === "used";
  const isSame = (e: CarriedFile) => found.get(e) === "same";
  return {
    overlays,
    bound,
    host: paths((e) => isSame(e) && e.type !== "absent" && e.type !== "directory" && !provided.has(e.path)),
    carried: paths((e) => found.get(e) === "missing" || (isSame(e) && provided.has(e.path))),
    replaced: paths((e) => found.get(e) === "differs" && isUsed(e)),
    conflicts: paths(
      (e) => found.get(e) === "differs" && !isUsed(e) && e.type !== "absent" && !(e.type === "directory" && e.opaque),
    ),
    used: paths((e) => isUsed(e) && provided.has(e.path)),
    notes,
    provides: (path) => provided.has(path),
  };
}

/** Parents before what lies in them, links after what they lead to. */
function byPath(a: PlacedFile, b: PlacedFile): number {
  const later = (f: PlacedFile) => (f.type === "file" && f.linkTo !== undefined ? 1 : 0);
  return later(a) - later(b) || (a.path < b.path ? -1 : 1);
}

function ofHost(f: FileRecord, where: string, st: BigIntStats): PlacedFile {
  return {
    path: f.path,
    type: "file",
    name: "",
    host: where,
    sizeBytes: Number(st.size),
    why: "written",
    ...hostAttributes(st),
  };
}
