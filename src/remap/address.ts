/**
 * Addresses as users write them, and port and address rules: what the pod knows as OLD is NEW on this host. The interposer
 * translates calls; here the same translation for what an image says of its sockets.
 */
import { isIP } from "node:net";
import { VirtError } from "../errors.js";
import type { HandleRecord } from "../image/manifest.js";
import type { Rule } from "../rules/rules.js";

/** Ports and addresses, the pod's to the host's. */
export interface AddressRemap {
  ports: Record<string, number>;
  addresses: Record<string, string>;
}

const loopback = ["127.0.0.0/8", "::1", "0.0.0.0", "::"];
const calls = ["bind", "connect", "sendto"] as const;

/**
 * "10.0.0.1", "10.0.0.1:7000", "fd00::1", "[fd00::1]:7000", ":7000". Nothing if it is none of these. A port is 0 to 65535:
 * whether 0 means anything is for who asks.
 */
export function parseAddress(text: string): { address?: string; port?: number } | undefined {
  if (isIP(text) !== 0) return { address: text };
  const parts = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::(\d{1,5}))?$/.exec(text);
  if (!parts) return undefined;
  const address = parts[1] ?? parts[2] ?? "";
  const port = parts[3] === undefined ? undefined : Number(parts[3]);
  if (address === "" ? port === undefined : isIP(address) === 0) return undefined;
  if (port !== undefined && port > 65535) return undefined;
  return { ...(address !== "" && { address }), ...(port !== undefined && { port }) };
}

/** As parseAddress() takes it. */
export function showAddress({ address, port }: SocketAddress): string {
  return `${isIP(address) === 6 ? `[${address}]` : address}:${port}`;
}

/** Checks what a user gave. Errors: ERR_REMAP. */
export function checkAddressRemap(remap: {
  port?: Record<string, number | string>;
  addr?: Record<string, string>;
}): AddressRemap {
  const ports: Record<string, number> = {};
  for (const [old, now] of Object.entries(remap.port ?? {})) {
    for (const port of [old, now]) {
      if (!/^\d{1,5}$/.test(String(port)) || Number(port) < 1 || Number(port) > 65535)
        throw new VirtError("ERR_REMAP", `port:${old}=${now} needs two ports from 1 to 65535`);
    }
    ports[String(Number(old))] = Number(now);
  }
  for (const [old, now] of Object.entries(remap.addr ?? {})) {
    if (isIP(old) === 0 || isIP(old) !== isIP(now))
      throw new VirtError("ERR_REMAP", `addr:${old}=${now} needs two IP addresses of one kind`);
  }
  unambiguous("port", ports);
  unambiguous("addr", remap.addr ?? {});
  return { ports, addresses: { ...remap.addr } };
}

// What the program is told is found by going back from what is: that must be one.
function unambiguous(kind: string, rules: Record<string, number | string>): void {
  const seen = new Map<number | string, string>();
  for (const [old, now] of Object.entries(rules)) {
    const other = seen.get(now);
    if (other !== undefined)
      throw new VirtError("ERR_REMAP", `${kind}:${other}=${now} and ${kind}:${old}=${now} collide`);
    seen.set(now, old);
  }
}

/** As the interposer takes it. A port is the pod's own where it binds it, and where it talks to itself. */
export function addressRules(ports: Record<string, number>, addresses: Record<string, string>): Rule[] {
  const ported = Object.entries(ports);
  const addressed = Object.entries(addresses);
  return [
    ...addressed.flatMap(([address, host]) =>
      ported.map(([port, to]): Rule => ({ on: [...calls], address, port, redirect: { host, port: to } })),
    ),
    ...addressed.map(([address, host]): Rule => ({ on: [...calls], address, redirect: { host } })),
    ...ported.map(([port, to]): Rule => ({ on: "bind", port, remap: to })),
    ...ported.flatMap(([port, to]) =>
      loopback.map((address): Rule => ({ on: ["connect", "sendto"], address, port, remap: to })),
    ),
  ];
}

interface SocketAddress {
  address: string;
  port: number;
}

/** Where on this host the pod's address is. */
export function toHost<A extends SocketAddress>(remap: AddressRemap, a: A): A {
  return { ...a, address: remap.addresses[a.address] ?? a.address, port: remap.ports[String(a.port)] ?? a.port };
}

/** What the pod knows an address of this host as. */
export function toPod<A extends SocketAddress>(remap: AddressRemap, a: A): A {
  const address = Object.entries(remap.addresses).find(([, host]) => host === a.address)?.[0] ?? a.address;
  const port = Object.entries(remap.ports).find(([, host]) => host === a.port)?.[0];
  return { ...a, address, port: port === undefined ? a.port : Number(port) };
}

/** A handle with its own addresses translated; of a socket that is connected the peer is somebody else's. */
export function relocate(handle: HandleRecord, translate: <A extends SocketAddress>(a: A) => A): HandleRecord {
  if (handle.kind !== "inet-socket" || handle.local === undefined) return handle;
  return { ...handle, local: translate(handle.local) };
}
