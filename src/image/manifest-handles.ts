/**
 * The shape of a manifest's handles, and of what several of them share.
 */
import * as v from "valibot";
import { absolutePath, bytes, count, decimal, fdNumber, hex, int, optional } from "./manifest-values.js";

/** Of a file; on which process or descriptor depends on its kind. */
export const lock = v.object({
  kind: v.picklist(["flock", "posix", "ofd"]),
  exclusive: v.boolean(),
  start: count,
  length: count,
});

const owner = v.object({ type: count, pid: int, signal: optional(int) });
const common = { id: count, flags: count, owner: optional(owner), locks: optional(v.array(lock)) };
/**
 * Of a socket that its pod's holder has: `held`. Connections or datagrams in its queue: `waiting`. One that leads through another
 * host's holder: `far`, which of those, and the number it has there; and what its program has not read: `unread`.
 */
const holdable = {
  held: optional(v.boolean()),
  waiting: optional(count),
  far: optional(v.strictTuple([count, count])),
  unread: optional(bytes),
};
export const socketAddress = v.object({
  address: v.string(),
  port: v.pipe(count, v.maxValue(65535)),
  scope: optional(count),
});
const sequence = v.pipe(count, v.maxValue(0xffffffff));
const scale = v.pipe(count, v.maxValue(14));
const queued = v.pipe(bytes, v.maxLength(256 << 20));
/**
 * The kernel's state of a TCP connection (native/resources/tcp_repair.h), with its addresses on the line whatever rules made of them in
 * the pod. Sequence numbers are those of the first byte in each queue, windows count bytes; `timestamp` is RFC 7323's, at `realtimeMs`.
 */
const repair = v.object({
  state: v.picklist(["established", "close-wait", "fin-wait-1", "fin-wait-2", "last-ack", "closing"]),
  local: socketAddress,
  peer: socketAddress,
  sendSequence: sequence,
  receiveSequence: sequence,
  unacknowledged: queued,
  unread: queued,
  /** Nothing more comes: the peer has ended it, or the program does not want it. */
  ended: optional(v.boolean()),
  maxSegment: v.pipe(count, v.minValue(1), v.maxValue(65535)),
  windowScales: optional(v.strictTuple([scale, scale])),
  selective: optional(v.boolean()),
  timestamp: optional(sequence),
  realtimeMs: count,
  sendWindowFrom: sequence,
  sendWindow: sequence,
  mostSendWindow: sequence,
  receiveWindow: sequence,
  receiveWindowFrom: sequence,
});
const socketOptions = v.array(v.strictTuple([int, int, bytes]));
const unixType = v.picklist(["stream", "datagram", "seqpacket"]);

/** Handles, by kind. Each is written and read by the file of that name in native/resources. */
export const handle = v.variant("kind", [
  v.object({ ...common, kind: v.literal("dropped"), was: v.string() }),
  v.object({ ...common, kind: v.literal("launcher-stream"), stream: v.picklist([0, 1, 2]), waiting: optional(bytes) }),
  v.object({ ...common, kind: v.literal("terminal"), object: count, role: v.picklist(["master", "slave"]) }),
  v.object({ ...common, kind: v.literal("memfd"), memory: count, position: count }),
  v.object({ ...common, kind: v.literal("file"), file: count, position: count }),
  v.object({
    ...common,
    kind: v.literal("directory"),
    path: absolutePath,
    position: v.union([hex, count]),
    /** Whose word the position is (statfs(2), f_type). */
    fileSystem: optional(hex),
  }),
  v.object({ ...common, kind: v.literal("path"), path: absolutePath }),
  v.object({ ...common, kind: v.literal("device"), path: absolutePath, device: count }),
  v.object({ ...common, kind: v.literal("pipe"), object: count }),
  v.object({ ...common, kind: v.literal("eventfd"), count: hex, semaphore: optional(v.boolean()) }),
  v.object({
    ...common,
    kind: v.literal("epoll"),
    items: v.array(v.object({ fd: fdNumber, events: count, data: hex, handle: count })),
  }),
  v.object({
    ...common,
    kind: v.literal("timerfd"),
    clock: int,
    ticks: count,
    settimeFlags: count,
    /** Of the wall clock, where an absolute end was set. */
    endNs: optional(decimal),
    valueNs: count,
    intervalNs: count,
  }),
  v.object({ ...common, kind: v.literal("signalfd"), mask: hex }),
  v.object({
    ...common,
    kind: v.literal("unix-socket"),
    type: unixType,
    ...holdable,
    /** outside: connected to a process that is not in the pod. */
    state: v.picklist(["connected", "outside", "listening", "unconnected"]),
    options: socketOptions,
    name: optional(bytes),
    peerName: optional(bytes),
    sendsTo: optional(bytes),
    path: optional(absolutePath),
    mode: optional(count),
    backlog: optional(count),
    object: optional(count),
    end: optional(v.picklist(["a", "b"])),
    peerClosed: optional(v.boolean()),
    listener: optional(count),
    listenerPath: optional(absolutePath),
    shutdown: optional(count),
    queue: optional(v.array(bytes)),
    /** The names of those who sent what waits, where any has one. */
    senders: optional(v.array(bytes)),
  }),
  v.object({
    ...common,
    kind: v.literal("inet-socket"),
    family: v.picklist(["ipv4", "ipv6"]),
    type: v.picklist(["tcp", "udp"]),
    ...holdable,
    state: v.picklist(["listening", "closed", "connected", "reconnect", "reset"]),
    options: socketOptions,
    local: optional(socketAddress),
    peer: optional(socketAddress),
    shutdown: optional(count),
    backlog: optional(count),
    repair: optional(repair),
  }),
]);

/** What several handles share, by kind. */
export const object = v.variant("kind", [
  v.object({
    id: count,
    kind: v.literal("pipe"),
    sizeBytes: int,
    packets: optional(v.boolean()),
    path: optional(absolutePath),
    unlinked: optional(v.boolean()),
    mode: optional(count),
    content: optional(bytes),
  }),
  v.object({
    id: count,
    kind: v.literal("terminal"),
    index: v.pipe(count, v.maxValue(2 ** 20)),
    keptByInit: optional(v.boolean()),
    termios: bytes,
    rows: v.pipe(count, v.maxValue(65535)),
    columns: v.pipe(count, v.maxValue(65535)),
    pixelWidth: optional(count),
    pixelHeight: optional(count),
    session: optional(count),
    foreground: optional(count),
    packet: optional(v.boolean()),
    /** Typed and not read yet. */
    input: optional(bytes),
  }),
  v.object({ id: count, kind: v.literal("unix-pair"), type: unixType }),
]);
