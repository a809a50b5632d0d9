/**
 * The sockets among an image's handles: which they are, which program has them, and how they are named to a user.
 */

import type { Blocker } from "../errors.js";
import { type HandleRecord, isLiving, type Manifest } from "../image/manifest.js";
import { showAddress } from "../remap/address.js";

export type SocketRecord = Extract<HandleRecord, { kind: "inet-socket" | "unix-socket" }>;

export function isSocket(h: HandleRecord): h is SocketRecord {
  return h.kind === "inet-socket" || h.kind === "unix-socket";
}

export function isConnection(h: SocketRecord): boolean {
  return h.state === "connected" || h.state === "outside";
}

/** Has two ends that are known, or may be sent to by anybody. */
export function leadsOut(h: SocketRecord): boolean {
  if (h.kind === "unix-socket") return h.state === "outside" && h.type === "stream";
  return h.local !== undefined && (h.type === "udp" || h.state === "connected");
}

/** The kernel's state of a TCP connection, if the image has it. */
export function stateOf(h: SocketRecord) {
  return h.kind === "inet-socket" ? h.repair : undefined;
}

export function shownSocket(h: SocketRecord): string {
  if (h.kind === "unix-socket") return (h.peerName ?? h.name)?.toString().replace(/^\0/, "@") || "a unix socket";
  const a = h.peer ?? h.local;
  return a === undefined ? "a socket" : showAddress(a);
}

/** Where a program has a socket; nothing of one that is only in a queue. */
export function useOf(m: Manifest, { id }: SocketRecord): { pid: number; fd: number } | undefined {
  for (const p of m.processes) {
    const entry = isLiving(p) ? p.fds.find(([, handle]) => handle === id) : undefined;
    if (entry) return { pid: p.pid, fd: entry[0] };
  }
  return undefined;
}

/** The first of them that a program has, as a Blocker names it. */
export function firstUse(m: Manifest, sockets: readonly SocketRecord[]): Partial<Blocker> {
  for (const h of sockets) {
    const use = useOf(m, h);
    if (use) return { kind: h.kind, ...use };
  }
  return {};
}

/** ": 10.0.0.9:80 (pid 2, fd 5), …". */
export function namedSockets(m: Manifest, sockets: readonly SocketRecord[]): string {
  const most = 4;
  if (sockets.length === 0) return "";
  const shown = sockets.slice(0, most).map((h) => {
    const use = useOf(m, h);
    return `${shownSocket(h)}${use ? ` (pid ${use.pid}, fd ${use.fd})` : ""}`;
  });
  return `: ${shown.join(", ")}${sockets.length > most ? ", …" : ""}`;
}
