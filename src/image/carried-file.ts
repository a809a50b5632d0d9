/**
 * Files that travel with a pod under their own paths (docs/files.md): their records in the manifest, and the checks of them.
 */
import * as v from "valibot";
import { ownPlaces } from "../pod/isolation.js";
import type { CarriedFile, Manifest } from "./manifest.js";
import { bad } from "./manifest-checks.js";
import { absolutePath, bytes, count, decimal, optional } from "./manifest-values.js";

const uid32 = v.pipe(count, v.maxValue(2 ** 32 - 1));
const xattrs = v.array(v.strictTuple([v.pipe(v.string(), v.regex(/^user\.(?!overlay\.)/), v.maxLength(255)), bytes]));
const attributes = {
  path: absolutePath,
  mode: v.pipe(count, v.maxValue(0o7777)),
  mtimeNs: decimal,
  uid: uid32,
  gid: uid32,
};

/** A file that travels with the pod under its own path: see docs/files.md. Hard links are further entries with `linkTo`. */
export const carriedFile = v.variant("type", [
  v.object({
    ...attributes,
    type: v.literal("file"),
    name: v.pipe(v.string(), v.regex(/^files\/[0-9a-f]{64}$/)),
    sizeBytes: count,
    /** Written by the pod, or only mapped or open: a program, a library. */
    why: v.picklist(["written", "used"]),
    sparse: optional(v.boolean()),
    linkTo: optional(absolutePath),
    xattrs: optional(xattrs),
  }),
  /** `opaque`: nothing of a directory of that name on the host is to be seen. */
  v.object({ ...attributes, type: v.literal("directory"), opaque: optional(v.boolean()), xattrs: optional(xattrs) }),
  v.object({
    ...attributes,
    type: v.literal("symlink"),
    target: v.pipe(
      v.string(),
      v.minLength(1),
      v.maxLength(4095),
      v.check((s) => !s.includes("\0")),
    ),
  }),
  v.object({ ...attributes, type: v.literal("fifo") }),
  /** Was there before the pod came, which removed it where only it can see that. */
  v.object({ path: absolutePath, type: v.literal("absent") }),
]);

const mostNameBytes = 255; // NAME_MAX
const kernelPath = /^\/(proc|sys|dev)(\/|$)/;

const isPlain = (names: string[]) => names.every((n) => n !== "" && n !== "." && n !== "..");

/** Under their own paths, and in the directories that the pod has to itself. */
export function checkCarriedFiles(m: Manifest): void {
  const sizes = new Map(m.parts.map((p) => [p.name, p.sizeBytes]));
  for (const { path } of m.written?.paths ?? [])
    isPlain(path.slice(1).split("/")) || bad(`the written file ${path} is no plain path`);
  for (const e of m.carriedFiles ?? [])
    if (kernelPath.test(e.path) && !e.path.startsWith("/dev/shm/")) bad(`the carried file ${e.path} is the kernel's`);
  checkEntries(m.carriedFiles ?? [], sizes);
  const places = new Set<string>();
  for (const { place, entries } of m.own ?? []) {
    if (!ownPlaces.includes(place) || places.has(place)) bad(`${place} is no directory of a pod's own`);
    places.add(place);
    if (entries.some((e) => e.type === "absent")) bad(`${place} lacks what nobody has`);
    checkEntries(entries, sizes);
  }
}

/** Each path once, none that leads elsewhere than it says, nothing inside of what is no directory, content of its size. */
function checkEntries(entries: readonly CarriedFile[], sizes: ReadonlyMap<string, number>): void {
  const seen = new Map<string, CarriedFile>();
  const above = new Set<string>();
  for (const e of entries) {
    const names = e.path.slice(1).split("/");
    if (!isPlain(names) || names.some((n) => Buffer.byteLength(n) > mostNameBytes))
      bad(`the carried file ${e.path} is no plain path`);
    if (seen.has(e.path)) bad(`the carried file ${e.path} occurs twice`);
    if (e.type !== "directory" && above.has(e.path))
      bad(`the carried file ${e.path} is no directory, and something is in it`);
    let parent = "";
    for (const name of names.slice(0, -1)) {
      parent += `/${name}`;
      above.add(parent);
      const type = seen.get(parent)?.type ?? "directory";
      if (type !== "directory") bad(`the carried file ${e.path} lies in ${parent}, which is no directory`);
    }
    if (e.type === "file") {
      const size = sizes.get(e.name) ?? bad(`part ${e.name} is missing`);
      if (size !== e.sizeBytes) bad(`the carried file ${e.path} has ${e.sizeBytes} bytes, its content ${size}`);
      const first = e.linkTo === undefined ? undefined : seen.get(e.linkTo);
      if (e.linkTo !== undefined && (first?.type !== "file" || first.linkTo !== undefined || first.name !== e.name))
        bad(`the carried file ${e.path} is a link to ${e.linkTo}, which is no such file`);
    }
    seen.set(e.path, e);
  }
}
