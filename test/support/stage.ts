/**
 * What the tests of connections begin with: three hosts, a program in a pod on one and a peer on another, and connections
 * between them.
 */
import type { Test } from "tap";
import { Actor } from "./actor.js";
import { type Host, makeHosts } from "./hosts.js";
import { needs } from "./packages.js";
import { until } from "./pods.js";

/** The pod is on a, its peer on c. */
export interface Stage {
  a: Host;
  b: Host;
  c: Host;
  pod: Actor;
  peer: Actor;
}

export async function stage(t: Test): Promise<Stage> {
  const [a, b, c] = (await makeHosts(t, ["a", "b", "c"])) as [Host, Host, Host];
  const [pod, peer] = [await Actor.inPod(a), Actor.outside(c)];
  return { a, b, c, pod, peer };
}

export interface Family {
  family: "AF_INET" | "AF_INET6";
  any: string;
  of: (host: Host) => string;
}

export const ipv4: Family = { family: "AF_INET", any: "0.0.0.0", of: (host) => host.address };
export const ipv6: Family = { family: "AF_INET6", any: "::", of: (host) => host.address6 };
export const families: readonly Family[] = [ipv4, ipv6];

/** Connections called as given, on both sides; of the first, third … the program is the server. */
export async function join({ a, c, pod, peer }: Stage, { family, any, of }: Family, ...names: string[]): Promise<void> {
  const serves = await pod.do(`listen('at pod', ${family}, '${any}')`);
  const served = await peer.do(`listen('at peer', ${family}, '${any}')`);
  for (const [i, name] of names.entries()) {
    const [server, client, where] =
      i % 2 === 0 ? [pod, peer, `'${of(a)}', ${serves}`] : [peer, pod, `'${of(c)}', ${served}`];
    await client.do(`connect('${name}', ${family}, ${where})`);
    await server.do(`accept('${name}', '${server === pod ? "at pod" : "at peer"}')`);
  }
  // So that a move needs no port but those of the test.
  await pod.do("drop('at pod')");
  await peer.do("drop('at peer')");
}

/** Bytes go through in both directions, in order and once. */
export async function speak(t: Test, pod: Actor, peer: Actor, name: string): Promise<void> {
  await pod.do(`send('${name}', 'from the pod')`);
  await peer.do(`send('${name}', 'from outside')`);
  t.equal(await peer.do(`whole('${name}', 12)`), "from the pod", `${name}: what the program writes`);
  t.equal(await pod.do(`whole('${name}', 12)`), "from outside", `${name}: what its peer writes`);
}

/** Waits until an actor's threads get no further. */
export async function isStuck(actor: Actor): Promise<void> {
  let before = "";
  let same = 0;
  await until(`${actor.name} to be stuck`, async () => {
    const now = JSON.stringify(await actor.do("progress"));
    same = now === before && now !== "{}" ? same + 1 : 0;
    before = now;
    return same > 20;
  });
}

/** Pids, as the host has them, of what is called so and has not ended. */
export async function pidsOf(host: Host, name: string): Promise<number[]> {
  const stats = await host.run(needs("bash"), ["-c", "cat /proc/[0-9]*/stat 2>/dev/null; true"]);
  return [...stats.matchAll(/^(\d+) \((.*)\) ([A-Z])/gm)].flatMap(([, pid, comm, state]) =>
    comm === name && state !== "Z" ? [Number(pid)] : [],
  );
}
