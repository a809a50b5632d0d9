/**
 * What becomes of the connections of a pod that was moved, or is to be, when something fails: a cable, a host, either end, the
 * reattach itself, or two of them at once. Each ends in a clear state: all of them go on, or all of them are reset; nobody hangs,
 * and nothing is delivered twice.
 */
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join as path } from "node:path";
import t, { type Test } from "tap";
import { Actor, carry, said } from "../support/actor.js";
import { leaveNothing } from "../support/apps.js";
import { program, type Said } from "../support/cli.js";
import { type Host, makeHosts } from "../support/hosts.js";
import { needs } from "../support/packages.js";
import { until } from "../support/pods.js";
import { ipv4, ipv6, isStuck, join, pidsOf, type Stage, speak, stage } from "../support/stage.js";

leaveNothing(t);

async function endsHolding(host: Host): Promise<void> {
  await until(`nothing to be held on ${host.name}`, async () => (await pidsOf(host, "virt-hold")).length === 0, 60_000);
}

async function stateOf(host: Host): Promise<string> {
  return (await host.virtRun(["ps", "-a"])).out;
}

/** Ends the pod where it is, and proves that nothing is left on the hosts. */
async function end({ a, b, pod, peer }: Stage): Promise<void> {
  await peer.do("[drop(n) for n in list(s)] and None");
  await said(pod.host.virtRun(["kill", "-s", "KILL", pod.name]));
  for (const host of [a, b]) {
    await endsHolding(host);
    await until(`no pod on ${host.name}`, async () => (await pidsOf(host, "virt-init")).length === 0);
    await until(`no process on ${host.name}`, async () => (await pidsOf(host, "python3")).length === 0);
  }
}

function refused(t: Test, { code, err }: Said, errorCode: string, what: string): void {
  t.not(code, 0, what);
  t.match(err, new RegExp(`\\(${errorCode}\\)`), what);
}

const resets = ["ECONNRESET", "EPIPE"];

/** A read of it fails, or ends, and soon enough. */
async function isReset(t: Test, who: Actor, name: string, patienceMs = 60_000): Promise<void> {
  const how = await who.fails(`rest('${name}')`, patienceMs);
  t.ok(resets.includes(how), `${name} on ${who.host.name} is reset: ${how}`);
}

const limit = ["--cut-limit", "3"];

/** The manifest of an image that was made on a host: its path, and what is in it. */
function manifestOf(host: Host, image: string) {
  const file = path(host.disk, image.slice(host.directory.length), "manifest.json");
  return { file, manifest: JSON.parse(readFileSync(file, "utf8")) };
}

/** Much on its way on both connections, in both directions: each waits for its end, and that all came through. */
async function flows(t: Test, { pod, peer }: Stage, bytes: number): Promise<() => Promise<void>> {
  const all = ["one", "two"].flatMap((n) => [
    pod.begin(`pour('${n}', 'pod ${n}', ${bytes}, 50000)`, 120_000),
    peer.begin(`gulp('${n}', 'pod ${n}', ${bytes})`, 120_000),
    peer.begin(`pour('${n}', 'peer ${n}', ${bytes}, 50000)`, 120_000),
    pod.begin(`gulp('${n}', 'peer ${n}', ${bytes})`, 120_000),
  ]);
  await comes(pod);
  return async () => {
    for (const done of all) t.equal(await done(), bytes);
  };
}

/** Waits until a program has got another MiB. */
async function comes(pod: Actor): Promise<void> {
  const got = () => pod.do<number>("progress.get('one in', 0)");
  const from = await got();
  await until("more to have come", async () => (await got()) > from + (1 << 20));
}

t.test("a cable is out until nothing moves any more", async (t) => {
  const all = await stage(t);
  const { a, b, pod, peer } = all;
  await join(all, ipv4, "one", "two");
  await pod.move(b);
  const whole = await flows(t, all, 64 << 20);
  a.cut();
  await isStuck(pod);
  await isStuck(peer);
  a.restore();
  await whole();
  for (const n of ["one", "two"]) await speak(t, pod, peer, n);
  await end(all);
});

t.test("the tunnel is torn, again and again", async (t) => {
  const all = await stage(t);
  const { a, b, pod, peer } = all;
  await join(all, ipv4, "one", "two");
  const image = await pod.detach();
  const { port } = manifestOf(a, image).manifest.holder.reach;
  await pod.reattach(image, b);
  const whole = await flows(t, all, 64 << 20);
  for (const host of [a, b, a, b]) {
    // What one end has sent, and the other has not got, is lost with it.
    b.cut();
    await isStuck(pod);
    t.ok(host.tear(port), `the tunnel was there, and is no more on ${host.name}`);
    b.restore();
    await comes(pod);
  }
  await whole();
  for (const n of ["one", "two"]) await speak(t, pod, peer, n);
  await end(all);
});

t.test("a cable is out for ever", async (t) => {
  const all = await stage(t);
  const { a, b, pod, peer } = all;
  await join(all, ipv4, "one", "two");
  await pod.reattach(await pod.detach(["--hold-at", a.address, ...limit]), b);
  await speak(t, pod, peer, "one");
  b.cut();
  // What nobody has acknowledged makes it sure that there is something to lose.
  await peer.do("send('two', 'into the void')");
  const [here, there] = [isReset(t, pod, "one"), isReset(t, peer, "one")];
  await Promise.all([here, there, isReset(t, pod, "two"), isReset(t, peer, "two")]);
  await endsHolding(a);
  t.notMatch(await stateOf(a), /forwarding|holding/);
  b.restore();
  await end(all);
});

t.test("the holder is killed", async (t) => {
  const all = await stage(t);
  const { a, b, pod, peer } = all;
  await join(all, ipv4, "one");
  await pod.reattach(await pod.detach(["--hold-at", a.address, ...limit]), b);
  await speak(t, pod, peer, "one");
  await a.run("kill", ["-KILL", ...(await pidsOf(a, "virt-hold")).map(String)]);
  await isReset(t, pod, "one");
  // Its kernel closes what it had.
  t.ok(["", ...resets].includes(await peer.fails("rest('one')")));
  t.notMatch(await stateOf(a), /forwarding|holding/);
  await end(all);
});

t.test("the new pod's init is killed", async (t) => {
  const all = await stage(t);
  const { a, b, pod, peer } = all;
  await join(all, ipv4, "one");
  await pod.reattach(await pod.detach(["--hold-at", a.address, ...limit]), b);
  await speak(t, pod, peer, "one");
  await b.run("kill", ["-KILL", ...(await pidsOf(b, "virt-init")).map(String)]);
  await isReset(t, peer, "one");
  await endsHolding(a);
  t.notMatch(await stateOf(a), /forwarding|holding/);
});

t.test("the new host crashes", async (t) => {
  const all = await stage(t);
  const { a, b, pod, peer } = all;
  await join(all, ipv4, "one");
  await pod.reattach(await pod.detach(["--hold-at", a.address, ...limit]), b);
  await speak(t, pod, peer, "one");
  await b.crash();
  await isReset(t, peer, "one");
  await endsHolding(a);
});

t.test("while it forwards, ps says so; when the last connection ends, so does the holder", async (t) => {
  const all = await stage(t);
  const { a, b, pod, peer } = all;
  await join(all, ipv4, "one", "two");
  const image = await pod.detach();
  t.match(await stateOf(a), /detached, holding 2 connections/);
  await pod.reattach(image, b);
  t.match(await stateOf(a), /forwarding 2 connections/);
  const again = await a.virtRun(["reattach", image, "-d"]);
  refused(t, again, "ERR_CONNECTION", "on the old host, while they are passed on");
  await speak(t, pod, peer, "one");
  await peer.do("drop('one')");
  t.equal(await pod.do("rest('one')"), "");
  await pod.do("drop('one')");
  await until("one to be left", async () => /forwarding 1 connection\b/.test(await stateOf(a)));
  await pod.do("drop('two')");
  t.equal(await peer.do("rest('two')"), "");
  await peer.do("drop('two')");
  await endsHolding(a);
  t.notMatch(await stateOf(a), /forwarding|holding/);
  await end(all);
});

t.test("a reattach that cannot reach the holder", async (t) => {
  const all = await stage(t);
  const { a, b, pod, peer } = all;
  await join(all, ipv6, "one");
  const names = await pod.do("names('one')");
  await pod.do("s['one'].setsockopt(SOL_SOCKET, SO_OOBINLINE, 0) or s['one'].setsockopt(IPPROTO_TCP, TCP_NODELAY, 0)");
  const options = () =>
    pod.do("[s['one'].getsockopt(SOL_SOCKET, SO_OOBINLINE), s['one'].getsockopt(IPPROTO_TCP, TCP_NODELAY)]");
  const image = await pod.detach();
  const { file } = manifestOf(a, image);
  const before = readFileSync(file);
  a.cut();
  refused(t, await pod.tryReattach(image, b), "ERR_CONNECTION", "nobody answers");
  a.restore();
  refused(t, await pod.tryReattach(image, b, "--holder", `${a.address}:1`), "ERR_CONNECTION", "nobody is there");
  t.match(await stateOf(a), /holding 1 connection/);
  await peer.do("send('one', 'meanwhile')");
  t.same(readFileSync(file), before);
  await pod.reattach(image, a);
  t.same(await pod.do("names('one')"), names);
  t.same(await options(), [0, 0], "the very same socket, as it was");
  t.equal(await pod.do("whole('one', 9)"), "meanwhile");
  await speak(t, pod, peer, "one");
  await end(all);
});

t.test("who knows no key gets nothing, and disturbs nobody", async (t) => {
  const all = await stage(t);
  const { a, b, pod, peer } = all;
  await join(all, ipv4, "one");
  const image = await pod.detach();
  const { file, manifest } = manifestOf(a, image);
  const { port } = manifest.holder.reach;
  await peer.do(`babble('${a.address}', ${port}, 30)`);
  // An image with another key: the right place, the wrong word.
  const write = (document: unknown) => {
    const text = JSON.stringify(document);
    writeFileSync(file, text);
    writeFileSync(file.replace(/json$/, "sha256"), createHash("sha256").update(text).digest("hex"));
  };
  write({ ...manifest, holder: { ...manifest.holder, key: "5".repeat(64) } });
  refused(t, await pod.tryReattach(image, b), "ERR_CONNECTION", "the wrong key");
  write(manifest);
  await pod.reattach(image, b);
  const bytes = 8 << 20;
  const flow = [pod.begin(`pour('one', 'x', ${bytes}, 5000)`), peer.begin(`gulp('one', 'x', ${bytes})`)];
  await peer.do(`babble('${a.address}', ${port}, 60)`);
  for (const done of flow) t.equal(await done(), bytes);
  await speak(t, pod, peer, "one");
  await end(all);
});

for (const fault of ["rebuild-state", "rebuild-commit"]) {
  t.test(`a reattach that fails half way (${fault}): the next one succeeds`, async (t) => {
    const all = await stage(t);
    const { a, b, pod, peer } = all;
    await join(all, ipv4, "one");
    const image = await pod.detach();
    await peer.do("send('one', 'meanwhile')");
    carry(image, a, b);
    for (const how of ["error", "kill"]) {
      const { code } = await b.virtRun(["reattach", image, "-d"], { env: { VIRT_RUN_FAULT: `${fault}:${how}` } });
      t.not(code, 0, how);
      t.match(await stateOf(a), /holding 1 connection/, how);
    }
    await pod.reattach(image, b);
    t.equal(await pod.do("whole('one', 9)"), "meanwhile", "once");
    await speak(t, pod, peer, "one");
    await end(all);
  });
}

t.test("a port that is taken on the new host", async (t) => {
  const all = await stage(t);
  const { b, pod, peer } = all;
  await join(all, ipv4, "one");
  const port = await pod.do("listen('at pod', AF_INET, '0.0.0.0')");
  const squatter = Actor.outside(b);
  await squatter.do(`listen('mine', AF_INET, '0.0.0.0', ${port})`);
  const image = await pod.detach();
  refused(t, await pod.tryReattach(image, b), "ERR_PORT_IN_USE", "said");
  await squatter.do("drop('mine')");
  await pod.reattach(image, b);
  await speak(t, pod, peer, "one");
});

t.test("a thousand connections, and too few descriptors for them", async (t) => {
  const all = await stage(t);
  const { b, pod, peer } = all;
  const count = 1000;
  const many = (what: string) => `[${what} for i in range(${count})] and None`;
  const { a } = all;
  const raise = "__import__('resource').setrlimit(7, (4000, 4000))";
  for (const who of [pod, peer]) await who.do(raise);
  const port = await pod.do("listen('at pod', AF_INET, '0.0.0.0')");
  const accepted = pod.begin(many("accept('f%d' % i, 'at pod')"));
  await peer.do(many(`connect('f%d' % i, AF_INET, '${a.address}', ${port})`));
  await accepted();
  await pod.do("drop('at pod')");
  // In the order of the program's descriptors, each peer is found by its port.
  const ports = (who: Actor, which: string) =>
    who.do<number[]>(`[s['f%d' % i].${which}()[1] for i in range(${count})]`);
  t.same((await ports(pod, "getpeername")).sort(), (await ports(peer, "getsockname")).sort());
  await pod.do(many("send('f%d' % i, str(s['f%d' % i].getpeername()[1]).zfill(5))"));
  const image = await pod.detach();
  carry(image, a, b);
  const line = 'ulimit -n 300; exec "$@"';
  const few = await b.start(needs("bash"), ["-c", line, "few", process.execPath, program, "reattach", image, "-d"], {
    input: "",
  }).ended;
  refused(t, few, "ERR_TOO_MANY_FILES", "said");
  t.match(await stateOf(a), /holding 1000 connections/);
  await pod.reattach(image, b);
  const got = await peer.do<string[]>(`[whole('f%d' % i, 5) for i in range(${count})]`, 60_000);
  t.same(got.map(Number), await ports(peer, "getsockname"), "each has what was written to it");
  await peer.do(many("send('f%d' % i, str(s['f%d' % i].getsockname()[1]).zfill(5))"));
  const back = await pod.do<string[]>(`[whole('f%d' % i, 5) for i in range(${count})]`, 60_000);
  t.same(back.map(Number), await ports(pod, "getpeername"));
  await end(all);
});

t.test("two hosts reattach the same image at the same time: one has the connections", async (t) => {
  const [a, b, c, d] = (await makeHosts(t, ["a", "b", "c", "d"])) as [Host, Host, Host, Host];
  const [pod, peer] = [await Actor.inPod(a), Actor.outside(c)];
  const all = { a, b, c, pod, peer };
  const names = ["one", "two", "three", "four"];
  await join(all, ipv4, ...names);
  const image = await pod.detach();
  const [first, second] = await Promise.all([pod.tryReattach(image, b), pod.tryReattach(image, d)]);
  const done = [first, second].map(({ code }) => code === 0);
  t.equal(done.filter(Boolean).length, 1, `one succeeds: ${first.err} ${second.err}`);
  refused(t, done[0] ? second : first, "ERR_CONNECTION", "the other says why");
  pod.host = done[0] ? b : d;
  for (const n of names) await speak(t, pod, peer, n);
  refused(t, await pod.tryReattach(image, done[0] ? d : b), "ERR_CONNECTION", "and again later");
  for (const n of names) await speak(t, pod, peer, n);
});
