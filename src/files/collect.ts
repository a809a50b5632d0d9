/**
 * The files that a pod takes along into its image: which they are, looked at while it stands still, and their content,
 * stored by hash.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { ControlConnection } from "../control/connection.js";
import { FrameType } from "../control/protocol.js";
import { type Blocker, VirtError } from "../errors.js";
import { type CarriedFile, isLiving, type Manifest } from "../image/manifest.js";
import { readJournal } from "../journal/journal.js";
import { type Written, writtenPaths } from "../journal/written.js";
import { type Data, native } from "../native.js";
import { boundFile, overlayUpper, type PodRecord, podDirectory } from "../pod/store.js";

/** What a detach carries: nothing but what only the pod has, what it wrote, or what it has mapped and open as well. */
export type WithFiles = "none" | "written" | "all";

/** Of a manifest, as far as it exists before anything is read. Where something stands in the way members may be missing. */
export type Surveyed = Pick<Manifest, "files" | "handles" | "objects" | "processes">;

export type FoundFile = CarriedFile & { layer?: number; at?: string };

/** What is to be carried, and how to get at it. */
export interface Collection {
  entries: FoundFile[];
  blockers: Blocker[];
  /** What is there and not carried, in words. */
  left: string[];
  /** Regular files and their bytes, each content counted once. */
  files: number;
  bytes: number;
  source: { root: string; layers: { at: string; upper: string }[] };
}

/** The directory that shows what a running pod sees. */
export function rootOf(record: PodRecord): string {
  // Only a connection that was made by connect() knows who is at its other end.
  const connection = ControlConnection.connect(record.socket);
  try {
    return `/proc/${connection.initPid}/root`;
  } finally {
    connection.close();
  }
}

/** Asks the pod's init to write down what was done so far; then the paths that the pod has written in all its lives. */
export async function writtenSoFar(record: PodRecord, connection?: ControlConnection): Promise<Written> {
  if (!isRecorded(record)) return { paths: [] };
  const caughtUp = await connection?.request(FrameType.catchUp).then(
    () => true,
    (e: VirtError) => {
      if (e.errnoName === "ENOSPC" || e.errnoName === "ETIMEDOUT") return false;
      throw e;
    },
  );
  const written = writtenPaths(readJournal(podDirectory(record.id)), earlierWritten(record.id));
  return caughtUp === false ? { ...written, incomplete: true } : written;
}

export function isRecorded(record: PodRecord): boolean {
  return (record.record ?? "none") !== "none";
}

const earlierFile = (id: string) => join(podDirectory(id), "written.json");

function earlierWritten(id: string): Written | undefined {
  return existsSync(earlierFile(id)) ? (JSON.parse(readFileSync(earlierFile(id), "utf8")) as Written) : undefined;
}

/** A reattached pod begins with a new journal: this is what it wrote before. */
export function saveEarlierWritten(id: string, written: Written): void {
  writeFileSync(earlierFile(id), JSON.stringify(written), { mode: 0o600 });
}

/** Refuses what cannot be: ERR_NOT_RECORDED. */
export function checkRecorded(record: PodRecord, withFiles: WithFiles): void {
  if (withFiles !== "written" || isRecorded(record)) return;
  throw new VirtError(
    "ERR_NOT_RECORDED",
    `nobody knows what the pod ${record.name} has written: nothing was recorded`,
    { hint: "launch it with --record default; --with-files all carries what is open or mapped" },
  );
}

/** Paths whose files are open for writing, or mapped so. */
export function openForWriting(m: Surveyed): Set<string> {
  const accessMode = 3; // O_ACCMODE
  const ids = new Set<number>();
  for (const h of m.handles) if (h.kind === "file" && (h.flags & accessMode) !== 0) ids.add(h.file);
  for (const p of m.processes) {
    if (!isLiving(p)) continue;
    for (const map of p.mappings ?? []) if (map.shared && map.writable && map.file !== undefined) ids.add(map.file);
  }
  return new Set(m.files.filter((f) => ids.has(f.id)).map((f) => f.path));
}

/** Everything that a pod has open, mapped, or stands in. */
function usedPaths(m: Surveyed): string[] {
  const paths: (string | undefined)[] = m.files.filter((f) => !f.unlinked && !f.byKernel).map((f) => f.path);
  for (const f of m.files) if (f.unlinked) paths.push(dirname(f.path));
  for (const h of m.handles) {
    if (h.kind === "directory" || h.kind === "path") paths.push(h.path);
    if (h.kind === "unix-socket" && h.path !== undefined) paths.push(dirname(h.path));
  }
  for (const o of m.objects) if (o.kind === "pipe" && o.path !== undefined && !o.unlinked) paths.push(o.path);
  for (const p of m.processes) if (isLiving(p)) paths.push(p.cwd, p.root);
  return paths.filter((path) => path !== undefined);
}

const madeUp = /^\/(proc|sys|dev)(\/|$)/;
const isCarried = (path: string) => path !== "/" && (!madeUp.test(path) || path.startsWith("/dev/shm/"));

/** Why a file cannot be carried, in words. */
export const reasons: Record<string, string> = {
  name: "its name, or where it leads to, is not UTF-8",
  depth: "its directories are too many in each other",
  EACCES: "it cannot be read",
  EPERM: "it cannot be read",
};

/**
 * Looks at everything that is to be carried. The pod stands still, or has ended (then `root` is the host's, and `place` says
 * where there a path of the pod's lies).
 */
export async function collect(
  record: PodRecord,
  root: () => string,
  wanted: {
    written: Written;
    survey?: Surveyed | undefined;
    withFiles: WithFiles;
    also?: ReadonlySet<string>;
    drop?: string[];
  },
  place?: (path: string) => string,
): Promise<Collection> {
  const { written, survey, withFiles } = wanted;
  const own = record.files;
  const layers = (own?.overlays ?? []).map((o) => ({ at: o.at, upper: overlayUpper(record.id, o.directory) }));
  // Whoever names more can have what is used, and nothing else.
  const isWanted = (path: string) => withFiles === "all" || wanted.also?.has(path) === true;
  const used = survey ? usedPaths(survey).filter((path) => isCarried(path) && isWanted(path)) : [];
  const usedBefore = new Set([...(own?.used ?? []), ...(own?.bound ?? []).map((b) => b.at)]);
  const ofJournal = withFiles === "none" ? [] : written.paths.filter((w) => isCarried(w.path));
  const at = (path: string) => (place === undefined || place(path) === path ? {} : { at: place(path) });
  const bound = (own?.bound ?? []).map((b) => ({ path: b.at, ...(place ? { at: boundFile(record.id, b.name) } : {}) }));
  const paths = [
    ...ofJournal.map((w) => ({ ...w, ...at(w.path) })),
    ...used.map((path) => ({ path, ...at(path) })),
    ...bound,
  ];
  const result: Collection = { entries: [], blockers: [], left: [], files: 0, bytes: 0, source: { root: "/", layers } };
  if (written.incomplete && withFiles !== "none") {
    const message = "the pod's journal has lost lines: not all that it wrote is known";
    if (wanted.drop?.includes("carried-file")) {
      result.left.push(message);
    } else {
      const hint = "accept that with --drop carried-file, and look what is missing where it is reattached";
      result.blockers.push({ code: "ERR_JOURNAL", message, kind: "carried-file", hint });
    }
  }
  if (paths.length + layers.length === 0) return result;
  const source = { root: root(), layers };
  result.source = source;
  const found = (await native.listFiles({ ...source, paths, ancestors: survey !== undefined })) as {
    entries: FoundFile[];
    refused: { path: string; reason: string }[];
  };
  const writing = survey ? openForWriting(survey) : new Set<string>();
  const inJournal = new Set(written.paths.map((w) => w.path));
  const onlyUsed = new Set(used);
  for (const e of found.entries) {
    if (!isCarried(e.path)) continue;
    if (e.type === "file") {
      const ours = inJournal.has(e.path) || writing.has(e.path);
      e.why = !ours && (usedBefore.has(e.path) || (onlyUsed.has(e.path) && e.layer === undefined)) ? "used" : "written";
      if (e.linkTo === undefined) {
        result.files++;
        result.bytes += e.sizeBytes;
      }
    }
    result.entries.push(e);
  }
  const sockets = new Set(survey?.handles.flatMap((h) => (h.kind === "unix-socket" && h.path ? [h.path] : [])));
  for (const { path, reason } of found.refused) {
    if (!isCarried(path) || sockets.has(path)) continue; // a socket that somebody holds is made again with it
    if (reason === "socket" || reason === "device") {
      result.left.push(`not carried: ${path} (a ${reason})`);
    } else if (wanted.drop?.includes("carried-file")) {
      result.left.push(`not carried: ${path} (${reasons[reason] ?? reason})`);
    } else {
      result.blockers.push({
        code: reasons[reason] === undefined || reason === "EACCES" ? "ERR_FILE_UNREACHABLE" : "ERR_UNSUPPORTED",
        message: `${path} belongs to the pod and cannot be carried: ${reasons[reason] ?? reason}`,
        path,
        kind: "carried-file",
        hint: "change that, or accept its loss with --drop carried-file",
      });
    }
  }
  return result;
}

const mostAtOnce = { files: 256, bytes: 64 << 20 };

/** Copies the content of what was found into a directory and gives each a name there. `told` is called with the bytes so far. */
export async function copyContent(
  collection: Pick<Collection, "entries" | "source">,
  directory: string,
  name: (path: string) => Promise<string>,
  told: (doneBytes: number) => void,
): Promise<CarriedFile[]> {
  const contents = collection.entries.filter((e) => e.type === "file" && e.linkTo === undefined) as (FoundFile & {
    type: "file";
  })[];
  let done = 0;
  let number = 0;
  for (let at = 0; at < contents.length; ) {
    let bytes = 0;
    const some: typeof contents = [];
    for (; at < contents.length && some.length < mostAtOnce.files && bytes < mostAtOnce.bytes; at++) {
      const e = contents[at] as (typeof contents)[number];
      bytes += e.sizeBytes;
      some.push(e);
    }
    const names = some.map(() => `file-${number++}.bin`);
    const sizes = (await native.copyFiles({
      ...collection.source,
      directory,
      files: some.map(({ path, at: where, layer }, i) => ({
        path,
        name: names[i] as string,
        ...(where === undefined ? {} : { at: where }),
        ...(layer === undefined ? {} : { layer }),
      })),
    })) as number[];
    for (const [i, e] of some.entries()) {
      e.sizeBytes = sizes[i] as number;
      e.name = await name(names[i] as string);
    }
    done += bytes;
    told(done);
  }
  const named = new Map(contents.map((e) => [e.path, e]));
  return collection.entries.map(({ layer: _, at: __, ...e }) => {
    const first = e.type === "file" && e.linkTo !== undefined ? named.get(e.linkTo) : undefined;
    return first && e.type === "file" ? { ...e, name: first.name, sizeBytes: first.sizeBytes } : e;
  });
}

/** As native takes it. */
export function asData(entries: readonly object[]): Data {
  return entries as unknown as Data;
}
