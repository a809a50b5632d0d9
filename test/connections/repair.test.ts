/**
 * Connections whose kernel state goes along when their address moves to another host (`--tcp repair`): the peer notices a pause,
 * whatever it and the program had on their way; nobody is told anything while the pod is in an image, or when something fails.
 */
import { writeFileSync } from "node:fs";
import { join as path } from "node:path";
import t, { type Test } from "tap";
import { Actor, said } from "../support/actor.js";
import { isRoot, leaveNothing } from "../support/apps.js";
import { sandbox } from "../support/env.js";
import type { Host } from "../support/hosts.js";
import { needs } from "../support/packages.js";
import { until } from "../support/pods.js";
import { type Family, families, ipv4, ipv6, join, pidsOf, type Stage, speak, stage } from "../support/stage.js";

leaveNothing(t);

/** What only root may do, and what only others are refused. */
const root = isRoot ? t.test.bind(t) : t.skip.bind(t);
const ordinary = isRoot ? t.skip.bind(t) : t.test.bind(t);
const timeout = 120_000;

/** The address that the service has, and takes along. */
const service = { AF_INET: "10.77.0.100", AF_INET6: "fd77::100" };
const served = (f: Family): Family => ({ ...f, of: () => service[f.family] });

/** Connections to the program at the service's address. */
async function joined(all: Stage, family: Family, ...names: string[]): Promise<void> {
  for (const name of names) await join(all, served(family), name);
}

async function give(host: Host, what: "add" | "del"): Promise<void> {
  for (const address of [`${service.AF_INET}/24`, `${service.AF_INET6}/64`]) {
    const words = [
      "address",
      what,
      address,
      "dev",
      "eth0",
      ...(what === "add" && address.includes(":") ? ["nodad"] : []),
    ];
    await host.run(needs("ip"), words);
  }
}

/** Who asked for it before asks again. */
async function forget(host: Host): Promise<void> {
  for (const family of ["-4", "-6"]) await host.run(needs("ip"), [family, "neigh", "flush", "all"]);
}

async function moveAddress({ a, b, c }: Stage): Promise<void> {
  await give(a, "del");
  await give(b, "add");
  await forget(c);
}

async function serviceStage(t: Test): Promise<Stage> {
  const all = await stage(t);
  if (isRoot) await give(all.a, "add");
  return all;
}

const repair = ["--tcp", "repair"];

/** Of TCP on a host: OutRsts, OutSegs, RetransSegs … */
async function counters(host: Host): Promise<Record<string, number>> {
  const lines = (await host.run(needs("bash"), ["-c", "grep ^Tcp: /proc/net/snmp"])).trim().split("\n");
  const [names, values] = lines.map((line) => line.split(" ").slice(1)) as [string[], string[]];
  return Object.fromEntries(names.map((n, i) => [n, Number(values[i])]));
}

async function noResets(t: Test, ...hosts: Host[]): Promise<void> {
  for (const host of hosts) t.equal((await counters(host))["OutRsts"], 0, `${host.name} has reset nothing`);
}

/** What both sides agreed on when they connected, of tcp_info: options, window scales; and the greatest segment. */
const agreed = (who: Actor, name: string) =>
  who.do(
    `[list(s['${name}'].getsockopt(IPPROTO_TCP, TCP_INFO, 104)[5:7]), s['${name}'].getsockopt(IPPROTO_TCP, TCP_MAXSEG)]`,
  );

/** Nothing is left on the hosts but the actors outside; the old host's holder goes without a word. */
async function end(t: Test, { a, b, pod, peer }: Stage): Promise<void> {
  await said(a.virtRun(["prune"]));
  for (const line of (await a.virtRun(["ps", "-a"])).out.split("\n").filter((l) => /holding/.test(l)))
    await said(a.virtRun(["rm", "-f", line.split(" ")[0] as string]));
  await noResets(t, a);
  await peer.do("[drop(n) for n in list(s)] and None");
  await said(pod.host.virtRun(["kill", "-s", "KILL", pod.name]));
  for (const host of [a, b]) {
    for (const name of ["virt-hold", "virt-init", "python3"])
      await until(`no ${name} on ${host.name}`, async () => (await pidsOf(host, name)).length === 0);
  }
}

ordinary("whoever is not root is told so, and nothing has happened", { timeout }, async (t) => {
  const all = await serviceStage(t);
  const { a, pod, peer } = all;
  await join(all, ipv4, "one");
  const found = await a.virtRun(["check", pod.name, ...repair]);
  t.match(found, { code: 1, out: /pid 2, fd \d+.*CAP_NET_ADMIN over the host's network[\s\S]*run the pod as root/ });
  const tried = await a.virtRun(["detach", pod.name, ...repair]);
  t.match(tried, { code: 1, err: /ERR_NOT_PERMITTED/ });
  await speak(t, pod, peer, "one");
  t.match(await a.virtRun(["detach", pod.name, "--tcp", `close`, "--tcp", "repair=10.9.9.9"]), { code: 0 });
});

for (const family of families) {
  root(`much on its way in both directions (${family.family}), the address follows`, { timeout }, async (t) => {
    const all = await serviceStage(t);
    const { a, b, pod, peer } = all;
    await joined(all, family, "one");
    const port = await peer.do(`listen('at peer', ${family.family}, '${family.any}')`);
    const from = `source_address=('${service[family.family]}', 0)`;
    await pod.do(`s.update(two=create_connection(('${family.of(all.c)}', ${port}), ${from}))`);
    await peer.do("accept('two', 'at peer')");
    const names = ["one", "two"];
    const before = await Promise.all(names.map((n) => pod.do(`names('${n}')`)));
    const bytes = 48 << 20;
    const flows = names.flatMap((n) => [
      pod.begin(`pour('${n}', 'pod ${n}', ${bytes}, 50000)`, timeout),
      peer.begin(`gulp('${n}', 'pod ${n}', ${bytes})`, timeout),
      peer.begin(`pour('${n}', 'peer ${n}', ${bytes}, 50000)`, timeout),
      pod.begin(`gulp('${n}', 'peer ${n}', ${bytes})`, timeout),
    ]);
    const got = (who: Actor) => who.do<number>("min([progress.get(n + ' in', 0) for n in ('one', 'two')])");
    for (const who of [pod, peer]) await until("something to have come", async () => (await got(who)) > 1 << 20);
    const image = await pod.detach(repair);
    t.match((await a.virtRun(["ps", "-a"])).out, /holding 2 connections/);
    await pod.reattach(image, b, ...repair);
    await moveAddress(all);
    for (const done of flows) t.equal(await done(), bytes);
    t.same(await Promise.all(names.map((n) => pod.do(`names('${n}')`))), before);
    for (const n of names) await speak(t, pod, peer, n);
    await noResets(t, a, b, all.c);
    await end(t, all);
  });
}

for (const family of families) {
  root(`full queues, and what both sides had agreed on (${family.family})`, { timeout }, async (t) => {
    const all = await serviceStage(t);
    const { a, b, c, pod, peer } = all;
    await joined(all, family, "one", "two");
    await pod.do("s['one'].setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)");
    const before = await agreed(pod, "one");
    const written = await pod.do<number>("fill('one', 'pod')", timeout);
    const come = await peer.do<number>("fill('one', 'peer')", timeout);
    const image = await pod.detach(repair);
    t.match(await pod.tryReattach(image, b), { code: 125, err: /not on this host[\s\S]*ERR_CONNECTION/ });
    await give(a, "del");
    await give(b, "add");
    await pod.reattach(image, b);
    await forget(c);
    t.same(await agreed(pod, "one"), before);
    t.equal(await pod.do("s['one'].getsockopt(IPPROTO_TCP, TCP_NODELAY)"), 1);
    t.equal(await peer.do(`gulp('one', 'pod', ${written})`, timeout), written);
    t.equal(await pod.do(`gulp('one', 'peer', ${come})`, timeout), come);
    await speak(t, pod, peer, "one");
    await noResets(t, a, b, c);
    await end(t, all);
  });
}

root("on the same host it has the very sockets again", { timeout }, async (t) => {
  const all = await serviceStage(t);
  const { a, c, pod, peer } = all;
  await joined(all, ipv6, "one");
  await pod.do("s['one'].setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1) or s['one'].setsockopt(IPPROTO_TCP, 18, 77000)");
  await pod.do("send('one', 'and one more')");
  const options =
    "[s['one'].getsockopt(*o) for o in ((SOL_SOCKET, SO_REUSEADDR), (SOL_SOCKET, SO_KEEPALIVE), (IPPROTO_TCP, 18))]";
  const before = await pod.do(options);
  const image = await pod.detach(repair);
  await peer.do("send('one', 'meanwhile')");
  await pod.reattach(image, a);
  t.same(await pod.do(options), before);
  t.equal(await pod.do("whole('one', 9)"), "meanwhile");
  t.equal(await peer.do("whole('one', 12)"), "and one more");
  await speak(t, pod, peer, "one");
  await noResets(t, a, c);
  await end(t, all);
});

root("the old host says nothing, and goes without a word", { timeout }, async (t) => {
  const all = await serviceStage(t);
  const { a, b, c, pod, peer } = all;
  await joined(all, ipv4, "one", "two");
  await speak(t, pod, peer, "one");
  const image = await pod.detach(repair);
  const before = await counters(a);
  const sent = (await counters(c))["RetransSegs"] as number;
  await peer.do("send('one', 'meanwhile')");
  await until("the peer to repeat itself", async () => ((await counters(c))["RetransSegs"] as number) > sent + 2);
  const after = await counters(a);
  for (const name of ["OutSegs", "RetransSegs", "OutRsts"]) t.equal(after[name], before[name], name);
  await pod.reattach(image, b, ...repair);
  await give(a, "del");
  t.match(await a.virtRun(["rm", "-f", pod.name]), { code: 0 });
  t.equal((await counters(a))["OutSegs"], before["OutSegs"], "it closes what it had without a word");
  await give(b, "add");
  await forget(c);
  t.equal(await pod.do("whole('one', 9)"), "meanwhile");
  for (const n of ["one", "two"]) await speak(t, pod, peer, n);
  await noResets(t, a, b, c);
  await end(t, all);
});

for (const family of [ipv4, ipv6]) {
  root(`half-closed connections (${family.family})`, { timeout }, async (t) => {
    const all = await serviceStage(t);
    const { a, b, c, pod, peer } = all;
    const names = ["peers", "ours", "late", "last"];
    await joined(all, family, ...names);
    const state = (name: string) => pod.do<number>(`s['${name}'].getsockopt(IPPROTO_TCP, TCP_INFO, 104)[0]`);
    const reaches = (name: string, n: number) => until(`${name} to be ${n}`, async () => (await state(name)) === n);
    await peer.do("send('peers', 'the end')");
    for (const name of ["peers", "last"]) await peer.do(`s['${name}'].shutdown(SHUT_WR)`);
    for (const name of ["peers", "last"]) await reaches(name, 8); // CLOSE_WAIT
    await pod.do("s['ours'].shutdown(SHUT_WR)");
    await reaches("ours", 5); // FIN_WAIT2
    a.cut();
    await pod.do("send('late', 'so long')");
    for (const name of ["late", "last"]) await pod.do(`s['${name}'].shutdown(SHUT_WR)`);
    await reaches("late", 4); // FIN_WAIT1
    await reaches("last", 9); // LAST_ACK
    const image = await pod.detach(repair);
    await pod.reattach(image, b, ...repair);
    a.restore();
    await moveAddress(all);
    t.equal(await pod.do("rest('peers')"), "the end");
    await pod.do("send('peers', 'heard')");
    t.equal(await peer.do("whole('peers', 5)"), "heard");
    await pod.do("s['peers'].shutdown(SHUT_WR)");
    t.equal(await peer.do("rest('peers')"), "");
    t.equal(await peer.do("rest('ours')"), "");
    await peer.do("send('ours', 'still here')");
    t.equal(await pod.do("whole('ours', 10)"), "still here");
    t.equal(await peer.do("rest('late')", timeout), "so long");
    await peer.do("send('late', 'you too')");
    t.equal(await pod.do("whole('late', 7)"), "you too");
    t.equal(await peer.do("rest('last')", timeout), "");
    t.equal(await pod.do("rest('last')"), "");
    await noResets(t, a, b, c);
    await end(t, all);
  });
}

for (const fault of ["repair-silent", "repair-read", "release"]) {
  root(`a detach that fails (${fault}) harms nothing`, { timeout }, async (t) => {
    const all = await serviceStage(t);
    const { a, c, pod, peer } = all;
    await joined(all, ipv4, "one");
    const bytes = 16 << 20;
    const flows = [
      pod.begin(`pour('one', 'pod', ${bytes}, 5000)`, timeout),
      peer.begin(`gulp('one', 'pod', ${bytes})`, timeout),
      peer.begin(`pour('one', 'peer', ${bytes}, 5000)`, timeout),
      pod.begin(`gulp('one', 'peer', ${bytes})`, timeout),
    ];
    for (const how of ["error", "kill"]) {
      const tried = await a.virtRun(["detach", pod.name, ...repair], { env: { VIRT_RUN_FAULT: `${fault}:${how}` } });
      t.not(tried.code, 0, how);
      t.match((await a.virtRun(["ps"])).out, /running/);
    }
    for (const done of flows) t.equal(await done(), bytes);
    await speak(t, pod, peer, "one");
    t.equal(await pod.do("s['one'].getsockopt(SOL_SOCKET, SO_REUSEADDR)"), 1);
    await noResets(t, a, c);
    await end(t, all);
  });
}

for (const fault of ["rebuild-state", "repair-filled", "rebuild-commit"]) {
  root(
    `a reattach that fails half way (${fault}): nobody hears of it, the next one succeeds`,
    { timeout },
    async (t) => {
      const all = await serviceStage(t);
      const { a, b, c, pod, peer } = all;
      await joined(all, ipv4, "one", "two");
      await peer.do("s['two'].shutdown(SHUT_WR)");
      await pod.do("send('one', 'before')");
      const image = await pod.detach(repair);
      await peer.do("send('one', 'meanwhile')");
      for (const host of [a, b]) {
        for (const how of ["error", "kill"]) {
          const env = { VIRT_RUN_FAULT: `${fault}:${how}` };
          if (host === b) await pod.tryReattach(image, b, "--dry-run");
          t.not((await host.virtRun(["reattach", image, "-d", ...repair], { env })).code, 0, `${how} on ${host.name}`);
          await until(`nothing of it on ${host.name}`, async () => (await pidsOf(host, "python3")).length === 0);
          t.match((await a.virtRun(["ps", "-a"])).out, /holding 2 connections/);
        }
      }
      await pod.reattach(image, b, ...repair);
      await moveAddress(all);
      t.equal(await pod.do("whole('one', 9)"), "meanwhile");
      t.equal(await peer.do("whole('one', 6)"), "before");
      t.equal(await pod.do("rest('two')"), "");
      await speak(t, pod, peer, "one");
      await noResets(t, a, b, c);
      await end(t, all);
    },
  );
}

root("what stands in the way is named, and a snapshot is refused", { timeout }, async (t) => {
  const all = await serviceStage(t);
  const { a, pod, peer } = all;
  await joined(all, ipv4, "one");
  t.match(await a.virtRun(["snapshot", pod.name, ...repair]), {
    code: 1,
    err: /only one pod can have[\s\S]*ERR_CONNECTION/,
  });
  await speak(t, pod, peer, "one");
  // BPF_RET | BPF_K: all of it.
  const filter = "__import__('ctypes').create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0xffffffff))";
  await pod.do(`globals().update(code=${filter})`);
  await pod.do("s['one'].setsockopt(SOL_SOCKET, 26, struct.pack('HxxxxxxQ', 1, __import__('ctypes').addressof(code)))");
  t.match(await a.virtRun(["check", pod.name, ...repair]), { code: 1, out: /fd \d+[\s\S]*SO_ATTACH_FILTER/ });
  await pod.do("s['one'].setsockopt(SOL_SOCKET, 27, 0)");
  await peer.do("s['one'].send(b'!', MSG_OOB)");
  await until("the urgent byte", () => pod.do<boolean>("ready('one') & select.POLLPRI != 0"));
  t.match(await a.virtRun(["check", pod.name, ...repair]), { code: 1, out: /fd \d+[\s\S]*urgent byte/ });
  t.equal(await pod.do("receive('one', 1, MSG_OOB)"), "!");
  const [isolated, other] = [await Actor.inPod(a, "--hide", "/mnt"), "iso"];
  const port = await peer.do("listen('at peer', AF_INET, '0.0.0.0')");
  await isolated.do(`connect('${other}', AF_INET, '${all.c.address}', ${port})`);
  t.match(await a.virtRun(["check", isolated.name, ...repair]), { code: 1, out: /rules for isolation/ });
  await said(a.virtRun(["rm", "-f", isolated.name]));
  await speak(t, pod, peer, "one");
  await end(t, all);
});

/** Sets and gets without waiting, and checks each answer. */
const pipeliner = `
import socket, sys, os, threading
c = socket.create_connection((sys.argv[1], 6379)); stop = sys.argv[2]; sent = 0
def write():
    global sent
    while not os.path.exists(stop):
        lines = b"".join(b"SET k%d v%d\\r\\nGET k%d\\r\\n" % (n % 100, n, n % 100) for n in range(sent, sent + 50))
        c.sendall(lines); sent += 50
    c.sendall(b"ECHO done\\r\\n")
w = threading.Thread(target=write); w.start()
f = c.makefile("rb"); n = 0
while True:
    line = f.readline()
    if line == b"$4\\r\\n" and w.is_alive() is False and n == sent: break
    assert line == b"+OK\\r\\n", line
    size = f.readline(); value = f.readline()
    assert value == b"v%d\\r\\n" % n and size == b"$%d\\r\\n" % (len(value) - 2), (size, value, n)
    n += 1
    if n % 1000 == 0: print("got", n, flush=True)
assert f.readline() == b"done\\r\\n"
print("COMPLETE", n, flush=True)
`;

root("redis under a client that does not wait", { timeout }, async (t) => {
  const { a, b, c, ...rest } = await serviceStage(t);
  const stop = path(sandbox, "stop");
  writeFileSync(path(sandbox, "pipeliner.py"), pipeliner);
  const words = ["--port", "6379", "--protected-mode", "no", "--save", ""];
  await said(a.virtRun(["run", "-d", "--name", "cache", "--", needs("redis-server"), ...words]));
  await until("redis", async () => (await a.virtRun(["logs", "cache"])).out.includes("Ready to accept"));
  const client = c.start(needs("python3"), [path(sandbox, "pipeliner.py"), service.AF_INET, stop]);
  const got = () => Number(/got (\d+)\n(?!.*\n)/s.exec(client.said.out)?.[1] ?? 0);
  const goesOn = async (where: string) => {
    const before = got();
    const what = { toString: () => `answers on ${where}: ${client.said.err}` };
    await until(what, () => got() > before + 20_000, 60_000);
  };
  await goesOn("a");
  const image = path(sandbox, "cache");
  await said(a.virtRun(["detach", "cache", "-o", image, ...repair]));
  await said(b.virtRun(["reattach", image, "-d", ...repair]));
  await moveAddress({ a, b, c, ...rest });
  await goesOn("b");
  await said(a.virtRun(["rm", "-f", "cache"]));
  await goesOn("b, without a");
  writeFileSync(stop, "");
  t.match(await client.ended, { code: 0, out: /COMPLETE \d+\n$/ }, client.said.err);
  await noResets(t, a, b, c);
  for (const host of [a, b]) await host.virtRun(["rm", "-f", ...(host === b ? ["cache"] : [rest.pod.name])]);
});
