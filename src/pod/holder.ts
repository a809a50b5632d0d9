/**
 * What a detached pod's init keeps for the image: connections to outside, listening sockets (native/init/holder.h). Found by a
 * socket beside the pod's own, whose name the pod's id tells.
 */
import { closeSync } from "node:fs";
import { dirname, join } from "node:path";
import { FrameType, frame, uint32s } from "../control/protocol.js";
import { VirtError } from "../errors.js";
import { native } from "../native.js";
import { parseAddress } from "../remap/address.js";
import { holderName, isListening, type PodRecord, tryConnect } from "./store.js";

/**
 * What is kept alive of a detached pod until its image is reattached.
 *
 * @example
 * const [first] = await list({ all: true });
 * console.log(first?.holding?.connections);
 */
export interface Holding {
  /** Connections to outside: TCP, and unix sockets. */
  connections: number;
  /** Listening sockets; new clients wait in their backlogs. */
  listeners: number;
  /** Sockets that take and send datagrams. */
  datagrams: number;
  /** For how long, in milliseconds. */
  heldMs: number;
  /** The pod is on another host, to which these are passed on; "cut" while that cannot be reached. */
  forwarding?: "connected" | "cut";
}

export function holderSocket(record: Pick<PodRecord, "id" | "socket">): string {
  return join(dirname(record.socket), holderName(record.id));
}

/** Asks a holder; nothing if there is none, or if `key` is given and is not its own. Errors: ERR_POD_VERSION. */
export async function askHolder(socket: string, key?: string): Promise<Holding | undefined> {
  const connection = tryConnect(socket);
  if (!connection) return undefined;
  try {
    const { connections, listeners, datagrams, heldMs, goneOn, connected } = await connection.helloHolder(
      key === undefined ? undefined : keyText(key),
    );
    return {
      connections,
      listeners,
      datagrams,
      heldMs,
      ...(goneOn && { forwarding: connected ? "connected" : "cut" }),
    };
  } catch (e) {
    const { code, errnoName } = e as VirtError;
    if (code === "ERR_POD_GONE" || errnoName === "EACCES") return undefined;
    throw e;
  } finally {
    connection.close();
  }
}

/** For those who ask several holders: what one that speaks another version has they need not know. */
export function ofAnotherVersion(e: VirtError): undefined {
  if (e.code !== "ERR_POD_VERSION") throw e;
}

/** What a detached pod holds. */
export async function holdingOf(record: PodRecord): Promise<Holding | undefined> {
  return askHolder(holderSocket(record));
}

/** Whether anybody keeps something for it. */
export function isHolding(record: PodRecord): boolean {
  return isListening(holderSocket(record));
}

/** Ends a pod's holder, and with it the connections. */
export function endHolder(record: PodRecord): void {
  try {
    const fd = native.connect(holderSocket(record));
    native.sendFds(fd, frame(FrameType.drop, 1, uint32s(0)), []);
    closeSync(fd);
  } catch (e) {
    if ((e as { code?: string }).code !== "ERR_POD_GONE") throw e;
  }
}

/** "holding 3 connections, 1 listener". */
export function describeHolding(h: Holding): string {
  const some = (n: number, one: string) => (n === 0 ? [] : [`${n} ${one}${n === 1 ? "" : "s"}`]);
  const how = h.forwarding === undefined ? "holding" : h.forwarding === "cut" ? "forwarding (cut)" : "forwarding";
  const what = [
    ...some(h.connections, "connection"),
    ...some(h.listeners, "listener"),
    ...some(h.datagrams, "datagram socket"),
  ];
  return `${how} ${what.join(", ")}`;
}

function keyText(key: string): Buffer {
  const bytes = Buffer.from(key, "hex");
  return Buffer.concat([uint32s(bytes.length), bytes]);
}

/** "10.0.0.1", "10.0.0.1:7000", "[fd00::1]:7000"; without port it is 0. Errors: ERR_USAGE. */
export function parseReach(text: string): { address: string; port: number } {
  const { address, port } = parseAddress(text) ?? {};
  if (address === undefined)
    throw new VirtError("ERR_USAGE", `'${text}' is no address of a host: ADDRESS or ADDRESS:PORT, IPv6 in brackets`);
  return { address, port: port ?? 0 };
}

/** Whole milliseconds, from a second to a day. Errors: ERR_USAGE. */
export function checkCutLimit(ms: number): number {
  if (!Number.isInteger(ms) || ms < 1000 || ms > 86_400_000)
    throw new VirtError("ERR_USAGE", `a way may be cut for 1000 to 86400000 ms, not for ${ms}`);
  return ms;
}

/** Throws ERR_HOLDING for a pod that keeps something. */
export function refuseIfHolding(record: PodRecord): void {
  if (!isHolding(record)) return;
  throw new VirtError(
    "ERR_HOLDING",
    `the pod ${record.name} keeps connections for its image ${record.detachedTo ?? ""}`,
  );
}
