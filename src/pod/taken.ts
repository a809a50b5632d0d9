/**
 * Which of an image's sockets a reattach takes from their holder, and what becomes of those that nobody holds.
 */
import { createConnection, createServer } from "node:net";
import { type Blocker, VirtError } from "../errors.js";
import type { Manifest } from "../image/manifest.js";
import { showAddress } from "../remap/address.js";
import { keepsConnections, type TcpPolicy } from "../remap/tcp-policy.js";
import { checkForward, type Forward, heldListeners, type Led, ledOn, notLed } from "./forward.js";
import { askHolder, type Holding, holderSocket, ofAnotherVersion, parseReach } from "./holder.js";
import {
  firstUse,
  isConnection,
  isSocket,
  leadsOut,
  namedSockets,
  type SocketRecord,
  shownSocket,
  stateOf,
  useOf,
} from "./sockets.js";
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
  const wanted = keepsConnections(options.tcp);
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
    taken = { socket, key: holder.key, ids: ids.map((id) => [id, id]) };
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
      const reach = given ? { ...given, port: given.port || portOf(given.address, holder) } : holder.reach;
      const through = held.flatMap((h) =>
        wanted && leadsOut(h) && !stateOf(h) ? [[h.id, h.id] as [number, number]] : [],
      );
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
  if (local?.forwarding !== undefined && wanted && forward !== "none")
    blockers.push(goneOn(manifest, local, held.filter(isConnection)));
  const reached: Far[] = [];
  for (const f of far) {
    for (const [id] of f.sockets) kept.add(id);
    const failure = await canReach(f.address, f.port);
    if (failure === undefined) reached.push(f);
    else if (f.sockets.length + f.listeners.length > 0) blockers.push(unreachable(manifest, f, failure)); // else it only had to hear of us
  }
  if (wanted) {
    // Made of their states, where they are not taken.
    const carried = sockets.filter((h) => stateOf(h) !== undefined);
    for (const h of carried) kept.add(h.id);
    if (options.tcp !== "repair") blockers.push(...(await notHere(manifest, carried)));
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
      const holding = await askHolder(socket, key).catch(ofAnotherVersion);
      if (holding?.forwarding === "cut" && holding.listeners > 0) return { socket, key, ids };
    }
  }
  return undefined;
}

/** Who is not asked: they go on holding. */
function leftAlone(image: Manifest, local: Holding | undefined): string[] {
  const { holder, far } = image;
  const places = [...(far ?? []).map((f) => f.reach), ...(holder?.reach && !local ? [holder.reach] : [])];
  return places.map((p) => `the holder at ${showAddress(p)} is left as it is; 'virt-run rm -f' there ends it`);
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
    message: `the pod of this image runs on another host, with its ${n} ${n === 1 ? "connection" : "connections"}${namedSockets(m, sockets)}`,
    hint: "detach it there, or make one without them with --tcp close",
    ...firstUse(m, sockets),
  };
}

/** Connections whose address this host does not have. */
async function notHere(m: Manifest, carried: readonly SocketRecord[]): Promise<Blocker[]> {
  const found = new Map<string, Promise<boolean>>();
  const blockers: Blocker[] = [];
  for (const h of carried) {
    const { address, scope } = stateOf(h)?.local ?? { address: "" };
    const at = scope === undefined ? address : `${address}%${scope}`;
    if (!found.has(at)) found.set(at, isHere(at));
    if (await found.get(at)) continue;
    blockers.push({
      code: "ERR_CONNECTION",
      message: `the address ${address} of the connection to ${shownSocket(h)} is not on this host`,
      kind: h.kind,
      path: shownSocket(h),
      hint: "move the address here first, or reattach with --tcp repair and move it then: nothing is reset in between",
      ...useOf(m, h),
    });
  }
  return blockers;
}

/** Whether a socket can be bound to the address. */
function isHere(host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", (e: NodeJS.ErrnoException) => resolve(e.code !== "EADDRNOTAVAIL" && e.code !== "EINVAL"));
    server.listen({ host, port: 0 }, () => server.close(() => resolve(true)));
  });
}

function unreachable(m: Manifest, far: Far, failure: string): Blocker {
  const n = far.sockets.length;
  const ids = n === 0 ? far.listeners.map(([, id]) => id) : far.sockets.map(([id]) => id);
  const sockets = ids.flatMap((id) => m.handles[id] ?? []).filter(isSocket);
  const where = showAddress(far);
  const what = n === 0 ? "new clients" : `${n} ${n === 1 ? "connection" : "connections"}`;
  return {
    code: "ERR_CONNECTION",
    message: `the holder of ${what} is not reached at ${where} (${failure})${namedSockets(m, sockets)}`,
    path: where,
    hint: `say where it is reached from here with --holder ADDRESS:PORT, or give ${n === 0 ? "them up with --forward established" : "the connections up with --tcp close"}`,
    ...firstUse(m, sockets),
  };
}

/** What a plan says of the sockets that are taken over. @internal */
export function takenOver({ manifest, taken, far }: HeldPlan): HeldSocket[] {
  const ids = [
    ...(taken?.ids ?? []).map(([, id]) => ({ id, from: "here" })),
    ...far.flatMap((f) => f.sockets.map(([id]) => ({ id, from: showAddress(f) }))),
  ];
  return ids.flatMap(({ id, from }) => {
    const h = manifest.handles[id];
    return h && isSocket(h) ? [{ kind: h.kind, socket: shownSocket(h), from, ...useOf(manifest, h) }] : [];
  });
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
  const wanted = keepsConnections(tcp);
  const blockers: Blocker[] = [];
  const notes: string[] = [];
  const handles = manifest.handles.map((h) => {
    if (!isSocket(h) || (!h.held && !h.far) || kept.has(h.id)) return h;
    const free = { ...h, held: false };
    if ((h.waiting ?? 0) > 0 && !led.has(h.id))
      notes.push(
        `${shownSocket(h)}: ${h.waiting} ${h.state === "listening" ? "waiting connections" : "bytes that were not read yet"} are lost`,
      );
    if (free.kind === "inet-socket") delete free.repair;
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

function isWhereItWas(image: Manifest, h: SocketRecord, leadsToIt: (path: string) => boolean): boolean {
  if (h.kind === "unix-socket" && h.path !== undefined) return leadsToIt(h.path);
  const before = image.handles[h.id];
  if (h.kind !== "inet-socket" || h.state === "connected" || before?.kind !== "inet-socket") return true;
  return before.local?.port === h.local?.port && before.local?.address === h.local?.address;
}

function lost(m: Manifest, h: SocketRecord, forward: Forward | undefined): Blocker {
  return {
    code: "ERR_CONNECTION",
    message:
      forward === "none"
        ? `the connection to ${shownSocket(h)} is left to its holder (--forward none)`
        : `nobody holds the connection to ${shownSocket(h)} any more`,
    kind: h.kind,
    path: shownSocket(h),
    hint: "let the program find it reset with --tcp close, or dial again with --tcp reconnect",
    ...useOf(m, h),
  };
}
