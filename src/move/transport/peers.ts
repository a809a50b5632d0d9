/**
 * The hosts that are known by their keys: agents that pods may be moved to, and clients that may move pods here. One does not
 * follow from the other.
 */
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { VirtError } from "../../errors.js";
import { native } from "../../native.js";
import { configurationDirectory } from "../../pod/paths.js";
import { readPrivate, replacePrivate } from "./identity.js";

/** One host, or rather a user of it, with the key that it has. */
export interface Peer {
  /** "SHA256:…" of its public key. */
  fingerprint: string;
  /** What it calls itself; not necessarily unique. */
  name: string;
  /** It may move pods here. */
  client: boolean;
  /** "tls://host:port" of its agents, as they were enrolled. */
  agents: string[];
  /** RFC 3339. */
  enrolledAt: string;
}

function peersFile(): string {
  return join(configurationDirectory(), "peers.json");
}

/** Errors: ERR_UNSAFE_PATH; ERR_BAD_VALUE if the file is none of ours. */
export function loadPeers(): Peer[] {
  const text = readPrivate(peersFile());
  if (text === undefined) return [];
  try {
    const { schemaVersion, peers } = JSON.parse(text) as { schemaVersion: unknown; peers: unknown };
    if (schemaVersion === 1 && Array.isArray(peers) && peers.every(isPeer)) return peers;
  } catch {
    // said below
  }
  const hint = "remove it, and enroll the hosts again";
  throw new VirtError("ERR_BAD_VALUE", `${peersFile()} is no list of hosts`, { path: peersFile(), hint });
}

function isPeer(value: unknown): value is Peer {
  const p = value as Partial<Peer> | null;
  return (
    typeof p?.fingerprint === "string" &&
    typeof p.name === "string" &&
    typeof p.client === "boolean" &&
    Array.isArray(p.agents) &&
    p.agents.every((a) => typeof a === "string") &&
    typeof p.enrolledAt === "string"
  );
}

/** Runs `f` while nobody else changes what is known of hosts. */
export async function withPeersLocked<T>(f: () => T): Promise<T> {
  const fd = openSync(join(configurationDirectory(), ".peers"), "a", 0o600);
  try {
    while (!native.tryLock(fd)) await new Promise((resolve) => setTimeout(resolve, 5));
    return f();
  } finally {
    closeSync(fd);
  }
}

/**
 * Adds what was enrolled to what is known of the host; under withPeersLocked(). An agent that had another key at this address is
 * known by the new one only.
 */
export function rememberPeer(enrolled: { fingerprint: string; name: string; client?: true; agent?: string }): void {
  const { fingerprint, name, agent } = enrolled;
  const others = loadPeers().map((p) => ({ ...p, agents: p.agents.filter((a) => a !== agent) }));
  const known = others.find((p) => p.fingerprint === fingerprint);
  const peer: Peer = {
    fingerprint,
    name,
    client: enrolled.client ?? known?.client ?? false,
    agents: [...(known?.agents ?? []), ...(agent === undefined ? [] : [agent])],
    enrolledAt: new Date().toISOString(),
  };
  savePeers([...others.filter((p) => p !== known), peer]);
}

/** Forgets a host, by its name or fingerprint. Errors: ERR_USAGE if that is none, or several. */
export function forgetPeer(wanted: string): Promise<Peer> {
  return withPeersLocked(() => {
    const peers = loadPeers();
    const found = peers.filter((p) => p.fingerprint === wanted || p.name === wanted);
    const [peer] = found;
    if (found.length !== 1 || peer === undefined) {
      const which = found.map((p) => p.fingerprint).join(", ");
      throw new VirtError(
        "ERR_USAGE",
        which === "" ? `no host '${wanted}' is known` : `'${wanted}' is one of ${which}`,
        {
          hint: "`virt-run peers` lists names and fingerprints",
        },
      );
    }
    savePeers(peers.filter((p) => p !== peer));
    return peer;
  });
}

function savePeers(peers: Peer[]): void {
  // One of which nothing is left is nobody.
  const left = peers.filter((p) => p.client || p.agents.length > 0);
  replacePrivate(peersFile(), `${JSON.stringify({ schemaVersion: 1, peers: left }, null, 2)}\n`);
}
