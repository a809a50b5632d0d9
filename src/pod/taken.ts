/**
 * Which of an image's sockets a reattach takes from their holder, and what becomes of those that nobody holds.
 */
import { createConnection, isIP } from "node:net";
import type { Blocker } from "../errors.js";
import { type HandleRecord, isLiving, type Manifest } from "../image/manifest.js";
import type { TcpPolicy } from "../remap/tcp-policy.js";
import { askHolder, parseReach } from "./holder.js";

/** What a reattach takes from a holder: handles by id. */
export interface Taken {
  socket: string;
  key: string;
  ids: number[];
}

/** What is made here and leads through the holder, on another host: handles by id. */
export interface Far {
  address: string;
  port: number;
  key: string;
  /** How long the way there may be cut. */
  cutLimitMs?: number;
  ids: number[];
}

export interface HeldOptions {
  tcp?: TcpPolicy;
  /** Where the holder is found from here, if not where the image says. */
  holder?: string;
}

export interface HeldPlan {
  manifest: Manifest;
  taken?: Taken | undefined;
  far?: Far | undefined;
  blockers: Blocker[];
  notes: string[];
}

/**
 * What of an image its holder still has; for the rest, what becomes of it by `tcp`. `image` is the manifest as it was written:
 * a listening socket that is to be elsewhere here is not the one that is held.
 */
export async function planHeld(image: Manifest, manifest: Manifest, options: HeldOptions): Promise<HeldPlan> {
  const { tcp } = options;
  const held = manifest.handles.filter(isHeld);
  if (held.length === 0) return { manifest, blockers: [], notes: [] };
  const { holder } = image;
  const wanted = tcp === undefined || tcp === "hold";
  if (holder && wanted && (await askHolder(holder.socket, holder.key))) {
    const ids = held.filter((h) => isWhereItWas(image, h)).map((h) => h.id);
    const kept = new Set(ids);
    const handles = manifest.handles.map((h) => (isHeld(h) && !kept.has(h.id) ? { ...h, held: false } : h));
    const { socket, key } = holder;
    return { manifest: { ...manifest, handles }, taken: { socket, key, ids }, blockers: [], notes: [] };
  }
  const reach = options.holder === undefined ? holder?.reach : parseReach(options.holder);
  if (holder && wanted && reach)
    return planFar(manifest, held, {
      ...reach,
      key: holder.key,
      ...(holder.cutLimitMs !== undefined && { cutLimitMs: holder.cutLimitMs }),
    });
  return planLost(manifest, tcp, () => false);
}

/** Elsewhere: connections and datagrams lead through the holder; what listens, listens here. */
async function planFar(manifest: Manifest, held: SocketRecord[], far: Omit<Far, "ids">): Promise<HeldPlan> {
  const where = `${isIP(far.address) === 6 ? `[${far.address}]` : far.address}:${far.port}`;
  const failure = await canReach(far.address, far.port);
  const ids = held.filter(leadsOut).map((h) => h.id);
  if (failure !== undefined) {
    const blocker: Blocker = {
      code: "ERR_CONNECTION",
      message: `the holder of ${ids.length} ${ids.length === 1 ? "connection" : "connections"} is not reached at ${where} (${failure})`,
      path: where,
      hint: "say where it is reached from here with --holder ADDRESS:PORT, or give the connections up with --tcp close",
    };
    return { manifest, blockers: [blocker], notes: [] };
  }
  const through = new Set(ids);
  const plan = planLost(manifest, "close", (h) => through.has(h.id));
  return { ...plan, far: { ...far, ids } };
}

/** Has two ends that are known, or may be sent to by anybody. */
function leadsOut(h: SocketRecord): boolean {
  if (h.kind === "unix-socket") return h.state === "outside";
  return h.local !== undefined && (h.type === "udp" || h.state === "connected");
}

/** Nothing, or why not. */
function canReach(host: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection({ host, port, timeout: 5000 });
    const end = (why?: string) => {
      socket.destroy();
      resolve(why);
    };
    socket.once("connect", () => end());
    socket.once("timeout", () => end("ETIMEDOUT"));
    socket.once("error", (e: NodeJS.ErrnoException) => end(e.code ?? e.message));
  });
}

/** Those that nobody holds, but `kept`. */
function planLost(manifest: Manifest, tcp: TcpPolicy | undefined, kept: (h: SocketRecord) => boolean): HeldPlan {
  const wanted = tcp === undefined || tcp === "hold";
  const blockers: Blocker[] = [];
  const notes: string[] = [];
  const handles = manifest.handles.map((h) => {
    if (!isHeld(h) || kept(h)) return h;
    const free = { ...h, held: false };
    if ((h.waiting ?? 0) > 0)
      notes.push(
        `${shownSocket(h)}: ${h.waiting} ${h.state === "listening" ? "waiting connections" : h.state === "connected" ? "bytes of a connection" : "bytes of datagrams"} are lost`,
      );
    if (free.kind === "inet-socket" && free.state === "connected") {
      if (wanted && (free.peer !== undefined || free.waiting !== undefined)) blockers.push(lost(manifest, h));
      return { ...free, state: tcp === "reconnect" ? ("reconnect" as const) : ("reset" as const) };
    }
    if (free.kind === "unix-socket" && free.state === "outside" && wanted) blockers.push(lost(manifest, h));
    return free;
  });
  return { manifest: { ...manifest, handles }, blockers, notes };
}

type SocketRecord = Extract<HandleRecord, { kind: "inet-socket" | "unix-socket" }>;

function isHeld(h: HandleRecord): h is SocketRecord {
  return (h.kind === "inet-socket" || h.kind === "unix-socket") && h.held === true;
}

function isWhereItWas(image: Manifest, h: SocketRecord): boolean {
  const before = image.handles[h.id];
  if (h.kind !== "inet-socket" || h.state === "connected" || before?.kind !== "inet-socket") return true;
  return before.local?.port === h.local?.port && before.local?.address === h.local?.address;
}

function shownSocket(h: SocketRecord): string {
  if (h.kind === "unix-socket") return (h.peerName ?? h.name)?.toString().replace(/^\0/, "@") || "a unix socket";
  const a = h.peer ?? h.local;
  return a === undefined ? "a socket" : h.family === "ipv6" ? `[${a.address}]:${a.port}` : `${a.address}:${a.port}`;
}

function lost(m: Manifest, h: SocketRecord): Blocker {
  const user = m.processes.find((p) => isLiving(p) && p.fds.some(([, id]) => id === h.id));
  const fd = user && isLiving(user) ? user.fds.find(([, id]) => id === h.id)?.[0] : undefined;
  return {
    code: "ERR_CONNECTION",
    message: `nobody holds the connection to ${shownSocket(h)} any more`,
    kind: h.kind,
    path: shownSocket(h),
    hint: "let the program find it reset with --tcp close, or dial again with --tcp reconnect",
    ...(user ? { pid: user.pid } : {}),
    ...(fd === undefined ? {} : { fd }),
  };
}
