/**
 * Which of an image's sockets a reattach takes from their holder, and what becomes of those that nobody holds.
 */
import { createConnection, isIP } from "node:net";
import type { Blocker } from "../errors.js";
import { type HandleRecord, isLiving, type Manifest } from "../image/manifest.js";
import type { TcpPolicy } from "../remap/tcp-policy.js";
import { checkForward, type Forward, heldListeners, type Led, ledOn, notLed } from "./forward.js";
import { askHolder, type Holding, holderSocket, parseReach } from "./holder.js";
import { loadRecords } from "./store.js";

/** What a reattach takes from a holder: handles by the numbers it has for them, and by id. */
export interface Taken {
  socket: string;
  key: string;
  ids: [held: number, handle: number][];
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
  /** Listening sockets whose new clients come through it. */
  listeners: Led[];
}

export interface HeldOptions {
  tcp?: TcpPolicy;
  forward?: Forward;
  /** Where the holder is found from here, if not where the image says. */
  holder?: string;
}

export interface HeldPlan {
  manifest: Manifest;
  taken?: Taken | undefined;
  far: Far[];
  blockers: Blocker[];
  notes: string[];
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
  const kept = new Set<number>();
  const far: Far[] = [];
  let taken: Taken | undefined;
  const local = holder && held.length > 0 ? await askHolder(holder.socket, holder.key) : undefined;
  if (holder && local && local.forwarding === undefined) {
    // Its listening sockets are in the way of new ones, whatever becomes of connections.
    const ids = held.filter((h) => isWhereItWas(image, h, leadsToIt) && (wanted || !isConnection(h))).map((h) => h.id);
    taken = { socket: holder.socket, key: holder.key, ids: ids.map((id) => [id, id]) };
    for (const id of ids) kept.add(id);
  }
  // Or one from which the pod has come back by way of another host: clients have waited there.
  if (!taken) taken = await takenBack(image, manifest, leadsToIt);
  for (const [, id] of taken?.ids ?? []) kept.add(id);
  const forward = checkForward(options.forward);
  const notes: string[] = [];
  const led = (key: string, listeners: readonly Led[]) => {
    if (forward !== "all" || taken?.key === key) return [];
    notes.push(...notLed(manifest, listeners));
    return ledOn(manifest, listeners);
  };
  // Also without connections the holder is to hear of us.
  if (forward === "all" || (wanted && forward !== "none")) {
    for (const [i, { reach, key, cutLimitMs, part, listeners }] of (manifest.far ?? []).entries()) {
      const through = sockets.flatMap((h) =>
        wanted && h.far?.[0] === i && leadsOut(h) ? [[h.id, h.far[1]] as [number, number]] : [],
      );
      const { address, port } = reach;
      far.push({ address, port, key, cutLimitMs, part, sockets: through, listeners: led(key, listeners ?? []) });
    }
    if (holder && !local) {
      const reach = options.holder === undefined ? holder.reach : parseReach(options.holder);
      const through = held.filter((h) => wanted && leadsOut(h)).map((h): [number, number] => [h.id, h.id]);
      const { key, cutLimitMs } = holder;
      const { address, port } = reach ?? {};
      if (address !== undefined && port !== undefined)
        far.push({ address, port, key, cutLimitMs, sockets: through, listeners: led(key, heldListeners(image)) });
    }
  }
  if (forward === "all" && far.length === 0 && !local)
    notes.push("nobody leads new clients here: the image does not say where a holder is reached (detach --hold-at)");
  if (forward === "none") notes.push(...leftAlone(image, local));
  const blockers: Blocker[] = [];
  if (local?.forwarding !== undefined && wanted && forward !== "none") blockers.push(goneOn(local));
  const reached: Far[] = [];
  for (const f of far) {
    for (const [id] of f.sockets) kept.add(id);
    const failure = await canReach(f.address, f.port);
    if (failure === undefined) reached.push(f);
    else if (f.sockets.length + f.listeners.length > 0) blockers.push(unreachable(f, failure)); // else it only had to hear of us
  }
  const clients = new Set(reached.flatMap((f) => f.listeners.map(([, id]) => id)));
  const lost = planLost(manifest, { ...options, forward }, kept, clients);
  const all = [...blockers, ...lost.blockers];
  return { ...lost, taken, far: reached, blockers: all, notes: [...notes, ...lost.notes] };
}

async function takenBack(
  image: Manifest,
  manifest: Manifest,
  leadsToIt: (path: string) => boolean,
): Promise<Taken | undefined> {
  for (const { key, listeners } of manifest.far ?? []) {
    const ids = (listeners ?? []).filter(([, id]) => {
      const h = manifest.handles[id];
      return h !== undefined && isSocket(h) && isWhereItWas(image, h, leadsToIt);
    });
    if (ids.length === 0) continue;
    for (const socket of loadRecords().map(holderSocket)) {
      const holding = await askHolder(socket, key);
      if (holding?.forwarding === "cut" && holding.listeners > 0) return { socket, key, ids };
    }
  }
  return undefined;
}

/** Who is not asked: they go on holding. */
function leftAlone(image: Manifest, local: Holding | undefined): string[] {
  const { holder, far } = image;
  const places = [...(far ?? []).map((f) => f.reach), ...(holder?.reach && !local ? [holder.reach] : [])];
  return places.map((p) => `the holder at ${shownAddress(p)} is left as it is; 'virt-run rm -f' there ends it`);
}

function shownAddress({ address, port }: { address: string; port: number }): string {
  return `${isIP(address) === 6 ? `[${address}]` : address}:${port}`;
}

function goneOn(holding: Holding): Blocker {
  const n = holding.connections + holding.datagrams;
  return {
    code: "ERR_CONNECTION",
    message: `the pod of this image runs on another host, with its ${n} ${n === 1 ? "connection" : "connections"}`,
    hint: "detach it there, or make one without them with --tcp close",
  };
}

function isConnection(h: SocketRecord): boolean {
  return h.state === "connected" || h.state === "outside";
}

function unreachable({ sockets, ...at }: Far, failure: string): Blocker {
  const where = shownAddress(at);
  const n = sockets.length;
  const what = n === 0 ? "new clients" : `${n} ${n === 1 ? "connection" : "connections"}`;
  return {
    code: "ERR_CONNECTION",
    message: `the holder of ${what} is not reached at ${where} (${failure})`,
    path: where,
    hint: `say where it is reached from here with --holder ADDRESS:PORT, or give ${n === 0 ? "them up with --forward established" : "the connections up with --tcp close"}`,
  };
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
function planLost(
  manifest: Manifest,
  { tcp, forward }: HeldOptions,
  kept: ReadonlySet<number>,
  led: ReadonlySet<number>,
): HeldPlan {
  const wanted = tcp === undefined || tcp === "hold";
  const blockers: Blocker[] = [];
  const notes: string[] = [];
  const handles = manifest.handles.map((h) => {
    if (!isSocket(h) || (!h.held && !h.far) || kept.has(h.id)) return h;
    const free = { ...h, held: false };
    if ((h.waiting ?? 0) > 0 && !led.has(h.id))
      notes.push(
        `${shownSocket(h)}: ${h.waiting} ${h.state === "listening" ? "waiting connections" : "bytes that were not read yet"} are lost`,
      );
    if (free.kind === "inet-socket" && free.state === "connected") {
      // One that was over already has no peer.
      if (wanted && (free.peer !== undefined || free.waiting !== undefined)) blockers.push(lost(manifest, h, forward));
      return { ...free, state: tcp === "reconnect" && free.peer ? ("reconnect" as const) : ("reset" as const) };
    }
    if (free.kind === "unix-socket" && free.state === "outside" && wanted) blockers.push(lost(manifest, h, forward));
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
  return a === undefined ? "a socket" : h.family === "ipv6" ? `[${a.address}]:${a.port}` : `${a.address}:${a.port}`;
}

function lost(m: Manifest, h: SocketRecord, forward: Forward | undefined): Blocker {
  const user = m.processes.find((p) => isLiving(p) && p.fds.some(([, id]) => id === h.id));
  const fd = user && isLiving(user) ? user.fds.find(([, id]) => id === h.id)?.[0] : undefined;
  return {
    code: "ERR_CONNECTION",
    message:
      forward === "none"
        ? `the connection to ${shownSocket(h)} is left to its holder (--forward none)`
        : `nobody holds the connection to ${shownSocket(h)} any more`,
    kind: h.kind,
    path: shownSocket(h),
    hint: "let the program find it reset with --tcp close, or dial again with --tcp reconnect",
    ...(user ? { pid: user.pid } : {}),
    ...(fd === undefined ? {} : { fd }),
  };
}
