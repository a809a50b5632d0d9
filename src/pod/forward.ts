/**
 * What a pod's old host still does for it when it is reattached on another one.
 */
import { VirtError } from "../errors.js";
import type { HandleRecord, Manifest } from "../image/manifest.js";
import { isSocket, type SocketRecord } from "./sockets.js";

/**
 * "established": connections go through the old host, new clients are refused there. "all": new clients too are led to the pod's
 * listening sockets here, and those that wait in its backlogs. "none": the old host is not used.
 *
 * @example
 * const forward: Forward = "all";
 */
export type Forward = "established" | "all" | "none";

const all: readonly string[] = ["established", "all", "none"] satisfies Forward[];
const mostPathBytes = 107; // unix(7)

/** Checks what a user gave. Errors: ERR_USAGE. */
export function checkForward(forward: Forward | undefined): Forward {
  if (forward !== undefined && !all.includes(forward))
    throw new VirtError("ERR_USAGE", `forward '${forward}' is none of ${all.join(", ")}`);
  return forward ?? "established";
}

/** A holder's number of a listening socket, and the handle that is it here. */
export type Led = [listener: number, handle: number];

/** Those whose new clients can be led to the pod. */
export function ledOn(manifest: Manifest, listeners: readonly Led[]): Led[] {
  return listeners.filter(([, id]) => {
    const h = manifest.handles[id];
    return h !== undefined && isLed(h);
  });
}

/** What a pod's own holder has of it: each under its handle's number. */
export function heldListeners(image: Manifest): Led[] {
  return image.handles.flatMap((h): Led[] => (listens(h) && h.held === true ? [[h.id, h.id]] : []));
}

/** In words, those whose clients find nobody any more. */
export function notLed(manifest: Manifest, listeners: readonly Led[]): string[] {
  return listeners.flatMap(([, id]) => {
    const h = manifest.handles[id];
    if (h === undefined || !listens(h) || isLed(h)) return [];
    const name = h.kind === "unix-socket" ? (h.path ?? h.name?.toString() ?? "a unix socket") : "a socket";
    return [`new clients of ${name} are refused by the old host: they cannot be led to it here`];
  });
}

function listens(h: HandleRecord): h is SocketRecord {
  return isSocket(h) && h.state === "listening";
}

function isLed(h: HandleRecord): boolean {
  if (!listens(h)) return false;
  if (h.kind === "inet-socket") return h.type === "tcp" && h.local !== undefined;
  if (h.type !== "stream") return false;
  return h.path === undefined ? h.name?.[0] === 0 : Buffer.byteLength(h.path) <= mostPathBytes;
}
