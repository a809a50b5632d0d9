/**
 * The shape of a manifest's processes: their threads, mappings, signals and limits.
 */
import * as v from "valibot";
import { lock } from "./manifest-handles.js";
import { absolutePath, address, bytes, count, fdNumber, hex, int, optional, pid, run } from "./manifest-values.js";

const mapping = v.object({
  start: address,
  end: address,
  protection: v.pipe(int, v.minValue(0), v.maxValue(7)),
  kind: v.picklist(["anonymous", "file", "memory", "vdso", "vvar"]),
  file: optional(count),
  memory: optional(count),
  offset: optional(count),
  shared: optional(v.boolean()),
  writable: optional(v.boolean()),
  growsDown: optional(v.boolean()),
  noReserve: optional(v.boolean()),
  locked: optional(v.boolean()),
  lockedOnFault: optional(v.boolean()),
  guards: optional(v.array(v.strictTuple([address, address]))),
  advice: optional(v.array(v.pipe(count, v.maxValue(100)))),
  was: optional(v.string()),
});

const signalAction = v.object({
  signal: v.pipe(int, v.minValue(1), v.maxValue(64)),
  handler: hex,
  flags: hex,
  restorer: hex,
  mask: hex,
});

const thread = v.object({
  tid: pid,
  comm: optional(bytes),
  registers: bytes,
  xstate: bytes,
  signalMask: hex,
  pending: v.array(bytes),
  altStack: v.object({ address: count, size: count, flags: count }),
  tidAddress: optional(count),
  robustList: optional(count),
  robustListSize: optional(count),
  rseq: optional(v.object({ address: count, size: count, signature: count })),
  nice: optional(int),
  policy: optional(int),
  priority: optional(int),
  affinity: optional(v.array(count)),
  ioprio: optional(count),
  timerSlackNs: optional(count),
});

const timer = v.object({
  id: count,
  clock: int,
  signal: int,
  value: hex,
  notify: int,
  tid: optional(int),
  valueNs: count,
  intervalNs: count,
});

const place = {
  pid,
  ppid: pid,
  group: pid,
  session: pid,
  comm: bytes,
  exitSignal: optional(v.pipe(int, v.minValue(0), v.maxValue(64))),
};

export const zombie = v.object({ ...place, zombie: v.literal(true), exitStatus: v.pipe(count, v.maxValue(0xffff)) });

export const living = v.object({
  ...place,
  zombie: optional(v.literal(false)),
  stopSignal: optional(v.pipe(int, v.minValue(1), v.maxValue(64))),
  /** Its parent has been told of the stop by wait(2). */
  stopTold: optional(v.boolean()),
  credentials: v.object({
    uid: v.pipe(v.array(count), v.length(4)),
    gid: v.pipe(v.array(count), v.length(4)),
    groups: v.array(count),
    inheritable: hex,
    permitted: hex,
    effective: hex,
    bounding: hex,
    ambient: hex,
  }),
  cwd: absolutePath,
  root: absolutePath,
  exe: count,
  limits: v.array(v.strictTuple([v.string(), v.string()])),
  umask: v.pipe(count, v.maxValue(0o7777)),
  noNewPrivs: optional(v.boolean()),
  personality: optional(count),
  oomScoreAdj: optional(int),
  mm: v.object({
    startCode: address,
    endCode: address,
    startData: address,
    endData: address,
    startBrk: address,
    brk: address,
    startStack: address,
    argStart: address,
    argEnd: address,
    envStart: address,
    envEnd: address,
    auxv: bytes,
  }),
  posixTimers: v.array(timer),
  itimers: v.array(v.object({ valueUs: count, intervalUs: count })),
  pending: v.array(bytes),
  signalActions: v.array(signalAction),
  deathSignal: optional(int),
  subreaper: optional(v.boolean()),
  dumpable: v.pipe(int, v.minValue(0), v.maxValue(2)),
  coreDumpFilter: optional(hex),
  denyWriteExecute: optional(count),
  noHugePages: optional(v.boolean()),
  keepCaps: optional(v.boolean()),
  secureBits: optional(count),
  threads: v.pipe(v.array(thread), v.minLength(1)),
  mappings: v.array(mapping),
  fds: v.array(v.strictTuple([fdNumber, count, v.boolean()])),
  locks: optional(v.array(v.object({ ...lock.entries, fd: fdNumber, handle: count }))),
  pages: v.array(run),
});
