/**
 * The image's manifest: its shape, and reading and writing it. An image is hostile input: everything is checked, shape
 * first, then every reference and bound (manifest-checks.ts), before anything is made of it. Bytes are { base64: "…" }
 * in the file.
 */
import * as v from "valibot";
import { VirtError } from "../errors.js";
import { carriedFile } from "./carried-file.js";
import { formatName, formatVersion } from "./format.js";
import { bad, checkReferences } from "./manifest-checks.js";
import { handle, object, socketAddress } from "./manifest-handles.js";
import { isolation, own } from "./manifest-isolation.js";
import { living, zombie } from "./manifest-processes.js";
import { absolutePath, bytes, carriedName, count, decimal, int, optional, run, sha256 } from "./manifest-values.js";

const memory = v.object({
  id: count,
  kind: v.picklist(["memfd", "anonymous", "sysv"]),
  sizeBytes: count,
  name: optional(v.pipe(v.string(), v.maxLength(255))),
  mode: optional(count),
  /** Where the file ends, of a memfd that is open somewhere: sizeBytes counts what is mapped beyond. */
  exactBytes: optional(count),
  seals: optional(int),
  shmid: optional(count),
  key: optional(int),
  removed: optional(v.boolean()),
  uid: optional(count),
  gid: optional(count),
  pages: v.array(run),
});

const file = v.object({
  id: count,
  path: absolutePath,
  sizeBytes: count,
  mode: count,
  mtimeNs: decimal,
  unlinked: optional(v.boolean()),
  /** In /proc, /sys …: made up as it is read. */
  byKernel: optional(v.boolean()),
});

const remap = v.object({ from: absolutePath, to: absolutePath });

export const manifestSchema = v.object({
  format: v.literal(formatName),
  formatVersion: v.pipe(count, v.maxValue(formatVersion)),
  virtRun: v.string(),
  createdAt: v.string(),
  kind: v.picklist(["detach", "snapshot"]),
  host: v.object({
    name: v.string(),
    kernel: v.string(),
    arch: v.string(),
    pageSizeBytes: count,
    cpu: v.object({ model: v.string(), features: v.array(v.string()) }),
  }),
  pod: v.object({
    id: v.string(),
    name: v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/)),
    command: v.array(v.string()),
    cwd: v.string(),
    stdio: v.picklist(["inherit", "streams", "terminal"]),
    labels: v.record(v.string(), v.string()),
    remaps: v.array(remap),
    hostname: optional(v.string()),
    machineId: optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/))),
    /** What it may not write, see or reach. */
    isolate: optional(isolation),
    /** What of its effects goes into its journal. */
    record: optional(v.picklist(["none", "default", "all"])),
    rules: optional(v.array(v.looseObject({}))),
    ports: optional(v.record(v.string(), v.pipe(count, v.maxValue(65535)))),
    addresses: optional(v.record(v.string(), v.string())),
    cover: optional(v.array(v.string())),
    user: v.object({ uid: count, gid: count, root: v.boolean() }),
    first: v.object({ pid: count, ended: v.boolean(), waitStatus: int }),
  }),
  clocks: v.object({ monotonicNs: decimal, boottimeNs: decimal, realtimeNs: decimal }),
  processes: v.array(v.union([zombie, living])),
  handles: v.array(handle),
  objects: v.array(object),
  files: v.array(file),
  memory: v.array(memory),
  vdso: bytes,
  xstate: v.array(v.strictTuple([count, count, count])),
  /** Pages in pages-1.bin, pages-2.bin, …; the first page of part n (from 0) has index n × 16384. */
  pagesInPart: v.array(v.pipe(count, v.minValue(1), v.maxValue(16384))),
  carried: v.array(v.object({ file: count, name: carriedName, sizeBytes: count })),
  /** Parents before what lies in them. */
  carriedFiles: optional(v.array(carriedFile)),
  /** What the pod has written in all its lives, of which carriedFiles has what is there, if that was asked for. */
  written: optional(
    v.object({
      paths: v.array(v.object({ path: absolutePath, follow: optional(v.boolean()), tree: optional(v.boolean()) })),
      incomplete: optional(v.boolean()),
    }),
  ),
  /**
   * Every other file of the image but the pages themselves, which are checked page by page against pages.sum whenever
   * they are read (hashing them with sha256 as well would take longer than all the rest of a detach).
   */
  parts: v.array(
    v.object({
      name: v.pipe(v.string(), v.regex(/^(pages\.sum|files\/[0-9a-f]{64}|relay-\d+|log)$/)),
      sizeBytes: count,
      sha256,
    }),
  ),
  /** Directories of the pod's own, under a read-only root. */
  own: optional(v.array(own)),
  /** Who keeps the handles that are `held`, and what it must be told (hexadecimal). */
  holder: optional(
    v.object({
      /** On the host where the image was made; without it nobody takes them back there. */
      socket: optional(absolutePath),
      key: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
      /** Where other hosts find it. */
      reach: optional(socketAddress),
      /** How long the way from there to here may be cut, before connections are reset. */
      cutLimitMs: optional(count),
    }),
  ),
  /** Holders of other hosts that the pod came through, with the state of the relay to each, a part of the image. */
  far: optional(
    v.array(
      v.object({
        reach: socketAddress,
        key: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
        cutLimitMs: count,
        part: v.pipe(v.string(), v.regex(/^relay-\d+$/)),
      }),
    ),
  ),
  /** Losses the user agreed to, in words. */
  accepted: v.array(v.string()),
});

/**
 * What an image says of the pod: all of manifest.json, checked. Units are in the names: `…Bytes`, `…Ns` (nanoseconds;
 * text where it may be larger than 2^53), `…Us` (microseconds). Pids are the pod's own; addresses, offsets and positions
 * count bytes; text such as "0x1f" is a number of up to 64 bits; Buffers are the kernel's structures as they are
 * (registers as ptrace(2) gives them, siginfo as sigaction(2) describes it). Page runs are [address or offset, pages,
 * index of the first in pages-*.bin], pages of 4096 bytes. The format has its own version and list of changes, in
 * CHANGELOG.md: read what you need and expect more members.
 *
 * @example
 * const { manifest } = await openImage("cache");
 * console.log(manifest.host.kernel, manifest.handles.map((h) => h.kind));
 */
export type Manifest = v.InferOutput<typeof manifestSchema>;
export type ProcessRecord = Manifest["processes"][number];
export type LivingProcess = v.InferOutput<typeof living>;
export type HandleRecord = Manifest["handles"][number];
export type CarriedFile = NonNullable<Manifest["carriedFiles"]>[number];
export type FileRecord = Manifest["files"][number];

export function isLiving(p: ProcessRecord): p is LivingProcess {
  return p.zombie !== true;
}

/** JSON with Buffers as { base64 }. */
export function stringifyManifest(manifest: unknown): string {
  return JSON.stringify(manifest, function (key) {
    const value = (this as Record<string, unknown>)[key];
    return Buffer.isBuffer(value) ? { base64: value.toString("base64") } : value;
  });
}

/** Puts bytes in place of their text. A reviver of JSON.parse() does the same more slowly. */
function withBytes(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  const { base64 } = value as { base64?: unknown };
  const keys = Object.keys(value);
  if (typeof base64 === "string" && keys.length === 1) return Buffer.from(base64, "base64");
  const members = value as Record<string, unknown>; // of an array too
  for (const key of keys) {
    const member = members[key];
    if (typeof member === "object" && member !== null) members[key] = withBytes(member);
  }
  return value;
}

/** Parses and checks a manifest: ERR_IMAGE_VERSION for a newer one, ERR_BAD_VALUE naming what is wrong. */
export function parseManifest(text: string): Manifest {
  let raw: unknown;
  try {
    raw = withBytes(JSON.parse(text));
  } catch (cause) {
    throw new VirtError("ERR_BAD_VALUE", "manifest.json is not JSON", { cause });
  }
  const head = raw as { format?: unknown; formatVersion?: unknown; virtRun?: unknown } | null;
  if (typeof head !== "object" || head === null || head.format !== formatName) {
    throw new VirtError("ERR_BAD_VALUE", "manifest.json is not of a virt-run image");
  }
  if (typeof head.formatVersion === "number" && head.formatVersion > formatVersion) {
    const version = typeof head.virtRun === "string" && /^[\w.+-]{1,64}$/.test(head.virtRun) ? head.virtRun : "?";
    throw new VirtError(
      "ERR_IMAGE_VERSION",
      `the image has format version ${head.formatVersion} (written by virt-run ${version}), this virt-run reads up to ${formatVersion}`,
    );
  }
  const parsed = v.safeParse(manifestSchema, raw, { abortEarly: true });
  if (!parsed.success) {
    const [issue] = parsed.issues;
    bad(`${v.getDotPath(issue) ?? "it"}: ${issue.message}`);
  }
  checkReferences(parsed.output);
  return parsed.output;
}
