/**
 * Which of an image's sockets a reattach takes from their holder, and what becomes of those that nobody holds.
 */
import { createConnection } from "node:net";
import { type Blocker, VirtError } from "../errors.js";
import { type HandleRecord, isLiving, type Manifest } from "../image/manifest.js";
import { showAddress } from "../remap/address.js";
import type { TcpPolicy } from "../remap/tcp-policy.js";
import { askHolder, type Holding, parseReach } from "./holder.js";

/** What a reattach takes from a holder: handles by id. */
export interface Taken {
  socket: string;
  key: string;
  ids: number[];
}

/** Sockets that are made here and lead through a holder on another host: handles by id, and the numbers they have there. */
export interface Far {
  address: string;
  port: number;
  key: string;
  /** Part of the image from which the relay goes on; none if it is the first. */
  part?: string | undefined;
  /** How long the way there may be cut. */
  cutLimitMs?: number | undefined;
  sockets: [handle: number, channel: number][];
}

export interface HeldOptions {
  tcp?: TcpPolicy;
  /** Where the holder is found from here, if not where the image says; without port at the one it says. */
  holder?: string;
}

export interface HeldPlan {
  manifest: Manifest;
  taken?: Taken | undefined;
  far: Far[];
  blockers: Blocker[];
  notes: string[];
}

/** A socket that a reattach takes over from who holds it. */
export interface HeldSocket {
  /** Of a handle. */
  kind: string;
  /** Its peer; its own address, if it has none. */
  socket: string;
  /** "here", or where its holder on another host is reached: "10.0.0.1:7000", "[fd00::1]:7000". */
  from: string;
  /** Of the first program that has it; not of one that is only in a queue. */
  pid?: number;
  fd?: number;
}

/**
 * What of an image its holder still has; for the rest, what becomes of it by `tcp`. `image` is the manifest as it was written:
 * a listening socket that is to be elsewhere here, or whose path does not lead to it any more (`leadsToIt`), is not the one that
 * is held.
 */
export async function planHeld(
  image: Manifest,
  manifest: Manifest,
  options: HeldOptions,
  leadsToIt: (path: string) => boolean,
): Promise<HeldPlan> {
  const wanted = options.tcp === undefined || options.tcp === "hold";
  const sockets = manifest.handles.filter(isSocket);
  const held = sockets.filter((h) => h.held === true);
  const { holder } = image;
  const given = options.holder === undefined ? undefined : parseReach(options.holder);
  const kept = new Set<number>();
  const far: Far[] = [];
  let taken: Taken | undefined;
  const socket = holder?.socket;
  const local = holder && socket && held.length > 0 ? await askHolder(socket, holder.key) : undefined;
  if (holder && socket && local && local.forwarding === undefined) {
    // Its listening sockets are in the way of new ones, whatever becomes of connections.
    const ids = held.filter((h) => isWhereItWas(image, h, leadsToIt) && (wanted || !isConnection(h))).map((h) => h.id);
    taken = { socket, key: holder.key, ids };
    for (const id of ids) kept.add(id);
  }
  if (wanted) {
    for (const [i, { reach, key, cutLimitMs, part }] of (manifest.far ?? []).entries()) {
      const through = sockets.flatMap((h) =>
        h.far?.[0] === i && leadsOut(h) ? [[h.id, h.far[1]] as [number, number]] : [],
      );
      far.push({ address: reach.address, port: reach.port, key, cutLimitMs, part, sockets: through });
    }
    if (holder && !local) {
      const reach = given ? { ...given, port: given.port || portOf(given.address, holder) } : holder.reach;
      const through = held.filter(leadsOut).map((h): [number, number] => [h.id, h.id]);
      const { key, cutLimitMs } = holder;
      if (reach) far.push({ address: reach.address, port: reach.port, key, cutLimitMs, sockets: through });
    }
  }
  const blockers: Blocker[] = [];
  if (local?.forwarding !== undefined && wanted) blockers.push(goneOn(manifest, local, held.filter(isConnection)));
  const reached: Far[] = [];
  for (const f of far) {
    for (const [id] of f.sockets) kept.add(id);
    const failure = await canReach(f.address, f.port);
    if (failure === undefined) reached.push(f);
    else if (f.sockets.length > 0) blockers.push(unreachable(manifest, f, failure)); // else it only had to hear of us
  }
  const lost = planLost(manifest, options.tcp, kept);
  return { ...lost, taken, far: reached, blockers: [...blockers, ...lost.blockers] };
}

/** Who is found at another address is there at the port that the image says. */
function portOf(address: string, { reach }: NonNullable<Manifest["holder"]>): number {
  if (reach) return reach.port;
  throw new VirtError("ERR_USAGE", `the image does not say at which port of ${address} its holder is`, {
    hint: "say it: --holder ADDRESS:PORT, IPv6 in brackets",
  });
}

function goneOn(m: Manifest, holding: Holding, sockets: readonly SocketRecord[]): Blocker {
  const n = holding.connections + holding.datagrams;
  return {
    code: "ERR_CONNECTION",
    message: `the pod of this image runs on another host, with its ${n} ${n === 1 ? "connection" : "connections"}${named(m, sockets)}`,
    hint: "detach it there, or make one without them with --tcp close",
    ...firstUse(m, sockets),
  };
}

function isConnection(h: SocketRecord): boolean {
  return h.state === "connected" || h.state === "outside";
}

function unreachable(m: Manifest, far: Far, failure: string): Blocker {
  const sockets = far.sockets.flatMap(([id]) => m.handles[id] ?? []).filter(isSocket);
  const where = showAddress(far);
  const what = `${sockets.length} ${sockets.length === 1 ? "connection" : "connections"}`;
  return {
    code: "ERR_CONNECTION",
    message: `the holder of ${what} is not reached at ${where} (${failure})${named(m, sockets)}`,
    path: where,
    hint: "say where it is reached from here with --holder ADDRESS:PORT, or give the connections up with --tcp close",
    ...firstUse(m, sockets),
  };
}

/** Where a program has a socket; nothing of one that is only in a queue. */
function useOf(m: Manifest, { id }: SocketRecord): { pid: number; fd: number } | undefined {
  for (const p of m.processes) {
    const entry = isLiving(p) ? p.fds.find(([, handle]) => handle === id) : undefined;
    if (entry) return { pid: p.pid, fd: entry[0] };
  }
  return undefined;
}

/** The first of them that a program has, as a Blocker names it. */
function firstUse(m: Manifest, sockets: readonly SocketRecord[]): Partial<Blocker> {
  for (const h of sockets) {
    const use = useOf(m, h);
    if (use) return { kind: h.kind, ...use };
  }
  return {};
}

/** ": 10.0.0.9:80 (pid 2, fd 5), …". */
function named(m: Manifest, sockets: readonly SocketRecord[]): string {
  const most = 4;
  if (sockets.length === 0) return "";
  const shown = sockets.slice(0, most).map((h) => {
    const use = useOf(m, h);
    return `${shownSocket(h)}${use ? ` (pid ${use.pid}, fd ${use.fd})` : ""}`;
  });
  return `: ${shown.join(", ")}${sockets.length > most ? ", …" : ""}`;
}

/** What a plan says of the sockets that are taken over. @internal */
export function takenOver({ manifest, taken, far }: HeldPlan): HeldSocket[] {
  const ids = [
    ...(taken?.ids ?? []).map((id) => ({ id, from: "here" })),
    ...far.flatMap((f) => f.sockets.map(([id]) => ({ id, from: showAddress(f) }))),
  ];
  return ids.flatMap(({ id, from }) => {
    const h = manifest.handles[id];
    return h && isSocket(h) ? [{ kind: h.kind, socket: shownSocket(h), from, ...useOf(manifest, h) }] : [];
  });
}

/** Has two ends that are known, or may be sent to by anybody. */
function leadsOut(h: SocketRecord): boolean {
  if (h.kind === "unix-socket") return h.state === "outside" && h.type === "stream";
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

/** Those that nobody holds: all but `kept`. */
function planLost(manifest: Manifest, tcp: TcpPolicy | undefined, kept: ReadonlySet<number>): HeldPlan {
  const wanted = tcp === undefined || tcp === "hold";
  const blockers: Blocker[] = [];
  const notes: string[] = [];
  const handles = manifest.handles.map((h) => {
    if (!isSocket(h) || (!h.held && !h.far) || kept.has(h.id)) return h;
    const free = { ...h, held: false };
    if ((h.waiting ?? 0) > 0)
      notes.push(
        `${shownSocket(h)}: ${h.waiting} ${h.state === "listening" ? "waiting connections" : "bytes that were not read yet"} are lost`,
      );
    if (free.kind === "inet-socket" && free.state === "connected") {
      // One that was over already has no peer.
      if (wanted && (free.peer !== undefined || free.waiting !== undefined)) blockers.push(lost(manifest, h));
      return { ...free, state: tcp === "reconnect" && free.peer ? ("reconnect" as const) : ("reset" as const) };
    }
    if (free.kind === "unix-socket" && free.state === "outside" && wanted) blockers.push(lost(manifest, h));
    return free;
  });
  return { manifest: { ...manifest, handles }, far: [], blockers, notes };
}

type SocketRecord = Extract<HandleRecord, { kind: "inet-socket" | "unix-socket" }>;

function isSocket(h: HandleRecord): h is SocketRecord {
  return h.kind === "inet-socket" || h.kind === "unix-socket";
}

function isWhereItWas(image: Manifest, h: SocketRecord, leadsToIt: (path: string) => boolean): boolean {
  if (h.kind === "unix-socket" && h.path !== undefined) return leadsToIt(h.path);
  const before = image.handles[h.id];
  if (h.kind !== "inet-socket" || h.state === "connected" || before?.kind !== "inet-socket") return true;
  return before.local?.port === h.local?.port && before.local?.address === h.local?.address;
}

function shownSocket(h: SocketRecord): string {
  if (h.kind === "unix-socket") return (h.peerName ?? h.name)?.toString().replace(/^\0/, "@") || "a unix socket";
  const a = h.peer ?? h.local;
  return a === undefined ? "a socket" : showAddress(a);
}

function lost(m: Manifest, h: SocketRecord): Blocker {
  return {
    code: "ERR_CONNECTION",
    message: `nobody holds the connection to ${shownSocket(h)} any more`,
    kind: h.kind,
    path: shownSocket(h),
    hint: "let the program find it reset with --tcp close, or dial again with --tcp reconnect",
    ...useOf(m, h),
  };
}
