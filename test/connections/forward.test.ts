/**
 * New clients of a pod that has gone on to another host, who still come to the old one: led on to the pod, refused, or left waiting.
 */
import { join as path } from "node:path";
import t, { type Test } from "tap";
import { Actor, said } from "../support/actor.js";
import { leaveNothing } from "../support/apps.js";
import type { Host } from "../support/hosts.js";
import { sleep, until } from "../support/pods.js";
import { pidsOf, type Stage, speak, stage } from "../support/stage.js";

leaveNothing(t);

interface Doors {
  v4: number;
  v6: number;
  unix: string;
}

/** The program listens on all sorts of sockets. */
async function open({ a, pod }: Stage): Promise<Doors> {
  const unix = path(a.directory, "door");
  await pod.do(`listen_unix('door', '${unix}')`);
  return {
    v4: await pod.do("listen('v4', AF_INET, '0.0.0.0')"),
    v6: await pod.do("listen('v6', AF_INET6, '::')"),
    unix,
  };
}

/** Somebody connects, and the program accepts it: bytes go both ways. */
async function visit(t: Test, pod: Actor, client: Actor, name: string, door: string, how: string): Promise<void> {
  await client.do(`${how.replace("NAME", `'${name}'`)}`);
  await pod.do(`accept('${name}', '${door}')`);
  await speak(t, pod, client, name);
}

const by4 = (host: Host, { v4 }: Doors) => `connect(NAME, AF_INET, '${host.address}', ${v4})`;
const by6 = (host: Host, { v6 }: Doors) => `connect(NAME, AF_INET6, '${host.address6}', ${v6})`;
const byUnix = ({ unix }: Doors) => `connect_unix(NAME, '${unix}')`;

interface Held {
  forwarding?: string;
  connections: number;
  listeners: number;
}

async function heldOn(host: Host): Promise<Held | undefined> {
  const { pods } = JSON.parse(await said(host.virtRun(["ps", "-a", "--json"]))) as { pods: { holding?: Held }[] };
  return pods.map((p) => p.holding).find((h) => h !== undefined);
}

async function endsHolding(host: Host): Promise<void> {
  await until(`nothing to be held on ${host.name}`, async () => (await pidsOf(host, "virt-hold")).length === 0, 60_000);
}

async function kill(pod: Actor): Promise<void> {
  await said(pod.host.virtRun(["kill", "-s", "KILL", pod.name]));
}

async function refused(t: Test, client: Actor, how: string): Promise<void> {
  t.equal(await client.fails(how.replace("NAME", "'nobody'")), "ECONNREFUSED", `${how} is refused`);
}

t.test("all: who waited, who comes, by any sort of socket", { timeout: 180_000 }, async (t) => {
  const all = await stage(t);
  const { a, b, pod, peer } = all;
  const local = Actor.outside(a);
  const doors = await open(all);
  await visit(t, pod, peer, "before", "v4", by4(a, doors));
  const image = await pod.detach();
  const waiting = ["waits", "waits too"];
  for (const name of waiting) await peer.do(by4(a, doors).replace("NAME", `'${name}'`));
  await local.do(byUnix(doors).replace("NAME", "'waits here'"));
  await peer.do("send('waits', 'early')");
  const come = await pod.tryReattach(image, b, "--forward", "all");
  t.strictSame([come.code, come.err], [0, ""]);
  pod.host = b;
  // In the order in which they came.
  for (const name of waiting) await pod.do(`accept('${name}', 'v4')`);
  t.equal(await pod.do("whole('waits', 5)"), "early");
  for (const name of waiting) await speak(t, pod, peer, name);
  await pod.do("accept('waits here', 'door')");
  await speak(t, pod, local, "waits here");
  await speak(t, pod, peer, "before");
  t.match(await heldOn(a), { forwarding: "connected", connections: 4, listeners: 3 });

  await visit(t, pod, peer, "four", "v4", by4(a, doors));
  await visit(t, pod, peer, "six", "v6", by6(a, doors));
  await visit(t, pod, local, "unix", "door", byUnix(doors));
  const [me, other] = (await pod.do("names('four')")) as [string, number][];
  t.strictSame([me, other?.[0]], [["127.0.0.1", doors.v4], "127.0.0.1"], "it seems to come from here");
  t.equal(await pod.do("names('unix')[0]"), doors.unix);

  // Ends and resets, both ways.
  await peer.do("s['four'].shutdown(SHUT_WR)");
  t.equal(await pod.do("rest('four')"), "");
  await pod.do("send('four', 'last words')");
  await pod.do("drop('four')");
  t.equal(await peer.do("rest('four')"), "last words");
  await peer.do("reset('six')");
  t.equal(await pod.fails("rest('six')"), "ECONNRESET");

  // Its own clients come as ever.
  await visit(t, pod, peer, "direct", "v4", by4(b, doors));

  b.cut();
  await peer.do(by4(a, doors).replace("NAME", "'in the cut'"));
  await peer.do("send('waits', 'on its way')");
  await sleep(3000);
  b.restore();
  await pod.do("accept('in the cut', 'v4')");
  await speak(t, pod, peer, "in the cut");
  t.equal(await pod.do("whole('waits', 10)"), "on its way");

  const bytes = 4 << 20;
  const flows = ["waits too", "unix"].flatMap((n) => {
    const client = n === "unix" ? local : peer;
    return [
      pod.begin(`pour('${n}', 'pod ${n}', ${bytes}, 50000)`, 120_000),
      client.begin(`gulp('${n}', 'pod ${n}', ${bytes})`, 120_000),
      client.begin(`pour('${n}', 'client ${n}', ${bytes}, 50000)`, 120_000),
      pod.begin(`gulp('${n}', 'client ${n}', ${bytes})`, 120_000),
    ];
  });
  for (const done of flows) t.equal(await done(), bytes);

  // What the program closes is closed there too.
  await pod.do("drop('v6')");
  await peer.do(by6(a, doors).replace("NAME", "'late'"));
  t.equal(await peer.fails("rest('late')"), "ECONNRESET");

  await kill(pod);
  await endsHolding(a);
  await refused(t, peer, by4(a, doors));
  t.match(await peer.fails("rest('in the cut')"), /^(|ECONNRESET)$/);
});

t.test("all: a pod without connections, only listening", { timeout: 120_000 }, async (t) => {
  const all = await stage(t);
  const { a, b, pod, peer } = all;
  const doors = await open(all);
  await pod.move(b, "--forward", "all");
  await visit(t, pod, peer, "one", "v4", by4(a, doors));
  await peer.do("drop('one')");
  await until("its end", async () => (await heldOn(a))?.connections === 0 || (await pod.do("rest('one')")) === "");
  await pod.do("drop('one')");
  await visit(t, pod, peer, "two", "v4", by4(a, doors));
  await kill(pod);
  await endsHolding(a);
});

t.test("established: refused, and who waited is lost, and that is said", { timeout: 120_000 }, async (t) => {
  const all = await stage(t);
  const { a, b, pod, peer } = all;
  const doors = await open(all);
  await visit(t, pod, peer, "before", "v4", by4(a, doors));
  await peer.do(by4(a, doors).replace("NAME", "'waits'"));
  const image = await pod.detach();
  const come = await pod.tryReattach(image, b);
  t.match(come, { code: 0, err: /0\.0\.0\.0:\d+: 1 waiting connections are lost/ });
  pod.host = b;
  t.equal(await peer.fails("rest('waits')"), "ECONNRESET");
  await refused(t, peer, by4(a, doors));
  await refused(t, peer, by6(a, doors));
  await speak(t, pod, peer, "before");
  await visit(t, pod, peer, "after", "v4", by4(b, doors));
  await kill(pod);
  await endsHolding(a);
});

t.test("none: the old host is left alone", { timeout: 120_000 }, async (t) => {
  const all = await stage(t);
  const { a, b, pod, peer } = all;
  const doors = await open(all);
  await visit(t, pod, peer, "before", "v4", by4(a, doors));
  const image = await pod.detach();
  const not = await pod.tryReattach(image, b, "--forward", "none");
  t.not(not.code, 0);
  t.match(not.err, /\(ERR_CONNECTION\).*is left to its holder \(--forward none\)/s);
  const come = await pod.tryReattach(image, b, "--forward", "none", "--tcp", "close");
  t.match(come, { code: 0, err: /the holder at 10\.77\.0\.1:\d+ is left as it is; 'virt-run rm -f' there ends it/ });
  pod.host = b;
  t.equal(await pod.fails("rest('before')"), "ECONNRESET");
  await visit(t, pod, peer, "after", "v4", by4(b, doors));
  t.match(await heldOn(a), { forwarding: undefined, connections: 1, listeners: 3 });
  await peer.do(by4(a, doors).replace("NAME", "'waits'"));
  await said(a.virtRun(["rm", "-f", pod.name]));
  await endsHolding(a);
  t.match(await peer.fails("rest('before')"), /^(|ECONNRESET)$/);
  await kill(pod);
});

t.test("on to a third host, with clients of both", { timeout: 180_000 }, async (t) => {
  const all = await stage(t);
  const { a, b, c, pod, peer } = all;
  const local = Actor.outside(a);
  const doors = await open(all);
  await visit(t, pod, peer, "before", "v4", by4(a, doors));
  await pod.move(b, "--forward", "all");
  await visit(t, pod, peer, "four", "v4", by4(a, doors));
  await visit(t, pod, peer, "six", "v6", by6(a, doors));
  await visit(t, pod, local, "unix", "door", byUnix(doors));
  await visit(t, pod, peer, "of b", "v4", by4(b, doors));
  const names = await pod.do("[names(n) for n in ('four', 'six', 'unix')]");
  // Unread on both sides.
  await peer.do("send('four', 'to be read there')");
  await pod.do("ready('four', select.POLLIN, 30000)");
  const image = await pod.detach(["--hold-at", b.address]);
  for (const [name, host] of [
    ["to a", a],
    ["to b", b],
  ] as const)
    await peer.do(by4(host, doors).replace("NAME", `'${name}'`));
  await pod.reattach(image, c, "--forward", "all");
  t.strictSame(await pod.do("[names(n) for n in ('four', 'six', 'unix')]"), names);
  t.equal(await pod.do("whole('four', 16)"), "to be read there");
  for (const name of ["before", "four", "six", "of b"]) await speak(t, pod, peer, name);
  await speak(t, pod, local, "unix");
  for (const name of ["to a", "to b"]) await peer.do(`send('${name}', '${name}')`);
  await pod.do("accept('x', 'v4')");
  await pod.do("accept('y', 'v4')");
  const got = (await pod.do("[whole('x', 4), whole('y', 4)]")) as string[];
  t.strictSame(got.sort(), ["to a", "to b"]);
  await visit(t, pod, peer, "again a", "v4", by4(a, doors));
  await visit(t, pod, peer, "again b", "v6", by6(b, doors));
  await visit(t, pod, local, "again unix", "door", byUnix(doors));
  t.match(await heldOn(a), { forwarding: "connected", listeners: 3 });
  await peer.do("reset('six')");
  t.equal(await pod.fails("rest('six')"), "ECONNRESET");
  await kill(pod);
  await endsHolding(a);
  await endsHolding(b);
});

t.test("on to a third host, with no more new clients", { timeout: 120_000 }, async (t) => {
  const all = await stage(t);
  const { a, b, c, pod, peer } = all;
  const doors = await open(all);
  await pod.move(b, "--forward", "all");
  await visit(t, pod, peer, "four", "v4", by4(a, doors));
  await pod.move(c);
  await speak(t, pod, peer, "four");
  await refused(t, peer, by4(a, doors));
  await refused(t, peer, by4(b, doors));
  await peer.do("drop('four')");
  t.equal(await pod.do("rest('four')"), "");
  await pod.do("drop('four')");
  await endsHolding(a);
  await kill(pod);
  await endsHolding(b);
});

t.test("and back: its clients have waited at home", { timeout: 120_000 }, async (t) => {
  const all = await stage(t);
  const { a, b, pod, peer } = all;
  const local = Actor.outside(a);
  const doors = await open(all);
  await visit(t, pod, peer, "before", "v4", by4(a, doors));
  await pod.move(b, "--forward", "all");
  await visit(t, pod, peer, "four", "v4", by4(a, doors));
  const image = await pod.detach(["--hold-at", b.address]);
  await peer.do(by4(a, doors).replace("NAME", "'waits'"));
  await peer.do(by6(b, doors).replace("NAME", "'waits at b'"));
  await pod.reattach(image, a, "--forward", "all");
  await pod.do("accept('waits', 'v4')");
  await pod.do("accept('waits at b', 'v6')");
  for (const name of ["before", "four", "waits", "waits at b"]) await speak(t, pod, peer, name);
  await visit(t, pod, peer, "direct", "v4", by4(a, doors));
  await visit(t, pod, local, "unix", "door", byUnix(doors));
  await visit(t, pod, peer, "of b", "v4", by4(b, doors));
  t.equal(await pod.do("names('direct')[1][0]"), all.c.address, "nobody is between");
  await kill(pod);
  await endsHolding(a);
  await endsHolding(b);
  await refused(t, peer, by4(a, doors));
});
