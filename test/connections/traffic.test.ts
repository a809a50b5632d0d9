/**
 * Bytes and datagrams on connections of a pod that is moved to another host: all of them arrive, once and in order, however full
 * the queues were, however many connections there are, and whoever shares them.
 */
import { join as path } from "node:path";
import t from "tap";
import { Actor } from "../support/actor.js";
import { leaveNothing } from "../support/apps.js";
import type { Host } from "../support/hosts.js";
import { until } from "../support/pods.js";
import { families, ipv4, isStuck, join, pidsOf, speak, stage } from "../support/stage.js";

leaveNothing(t);

for (const f of families) {
  t.test(`${f.family}: both queues full, both sides blocked in write`, async (t) => {
    const all = await stage(t);
    const { pod, peer, b } = all;
    const [names, bytes] = [["server", "client"], 24 << 20];
    await join(all, f, ...names);
    const written = names.flatMap((n) => [
      pod.begin(`pour('${n}', 'pod ${n}', ${bytes})`, 60_000),
      peer.begin(`pour('${n}', 'peer ${n}', ${bytes})`, 60_000),
    ]);
    await isStuck(pod);
    await isStuck(peer);
    await pod.move(b);
    const read = names.flatMap((n) => [
      pod.begin(`gulp('${n}', 'peer ${n}', ${bytes})`, 60_000),
      peer.begin(`gulp('${n}', 'pod ${n}', ${bytes})`, 60_000),
    ]);
    for (const done of [...written, ...read]) t.equal(await done(), bytes);
    for (const n of names) await speak(t, pod, peer, n);
  });

  t.test(`${f.family}: datagrams, from anybody and of a connected socket`, async (t) => {
    const { a, b, c, pod, peer } = await stage(t);
    const { family, of } = f;
    const bind = (who: Actor, name: string, address: string) =>
      who.do<number>(
        `s.update({'${name}': socket(${family}, SOCK_DGRAM)}) or s['${name}'].bind(('${address}', 0)) or s['${name}'].getsockname()[1]`,
      );
    const port = await bind(pod, "any", f.any);
    const own = await bind(pod, "own", of(a));
    const connected = await bind(pod, "connected", of(a));
    const there = await bind(peer, "one", of(c));
    const other = await bind(peer, "other", of(c));
    await pod.do(`s['connected'].connect(('${of(c)}', ${there}))`);
    const names = await pod.do("names('connected')");
    const to = (where: Host, at: number) => `('${of(where)}', ${at})`;
    const sent = (from: string, text: string, at: number) =>
      peer.do(`s['${from}'].sendto(b'${text}', ${to(a, at)}) and None`);
    const heard = async (name: string, text: string, from: number) => {
      await pod.do(`ready('${name}', select.POLLIN, 10000)`);
      const [got, [address, at]] = await pod.do<[string, [string, number]]>(`s['${name}'].recvfrom(100, MSG_DONTWAIT)`);
      t.same([got, address, at], [text, of(c), from], `${name} gets '${text}'`);
    };
    await sent("one", "early", port);
    await sent("other", "and from another", port);
    await sent("one", "", own);
    await sent("one", "in order", connected);
    for (const name of ["any", "own", "connected"]) await pod.do(`ready('${name}', select.POLLIN, 10000)`);
    const image = await pod.detach();
    await sent("one", "meanwhile", port);
    await sent("one", "meanwhile", connected);
    await pod.reattach(image, b);
    t.same(await pod.do("names('connected')"), names, "the same names");
    t.equal(await pod.do("s['any'].getsockname()[1]"), port, "the same port");
    await heard("any", "early", there);
    await heard("any", "and from another", other);
    await heard("any", "meanwhile", there);
    await heard("own", "", there);
    await heard("connected", "in order", there);
    await heard("connected", "meanwhile", there);
    await sent("one", "late", port);
    await heard("any", "late", there);
    for (const [name, at] of [
      ["any", port],
      ["own", own],
    ] as const) {
      await pod.do(`s['${name}'].sendto(b'answer', ${to(c, other)}) and None`);
      await peer.do("ready('other', select.POLLIN, 10000)");
      const [got, [address, from]] = await peer.do<[string, [string, number]]>("s['other'].recvfrom(100)");
      t.same([got, address, from], ["answer", of(a), at], `${name} answers from its address`);
    }
    await pod.do("s['connected'].send(b'to whom it was said') and None");
    await peer.do("ready('one', select.POLLIN, 10000)");
    const [got, [address, from]] = await peer.do<[string, [string, number]]>("s['one'].recvfrom(100)");
    t.same([got, address, from], ["to whom it was said", of(a), connected]);
  });
}

t.test("a connection that several processes share", async (t) => {
  const all = await stage(t);
  const { pod, peer, b } = all;
  await join(all, ipv4, "shared");
  const child = await pod.child();
  await pod.move(b);
  child.host = b;
  t.same(await child.do("names('shared')"), await pod.do("names('shared')"));
  await peer.do("send('shared', 'abc')");
  t.equal(await pod.do("whole('shared', 1)"), "a");
  t.equal(await child.do("whole('shared', 1)"), "b");
  t.equal(await pod.do("whole('shared', 1)"), "c");
  await pod.do("send('shared', '1')");
  await child.do("send('shared', '2')");
  await pod.do("drop('shared')");
  await child.do("send('shared', '3')");
  t.equal(await peer.do("whole('shared', 3)"), "123");
  await speak(t, child, peer, "shared");
  await child.do("drop('shared')");
  t.equal(await peer.do("rest('shared')"), "", "the last of them closes it");
});

t.test("a unix connection to a server outside", async (t) => {
  const { a, b, c, pod } = await stage(t);
  const server = Actor.outside(a);
  const at = path(a.directory, "server.sock");
  await server.do(`s.update(at=socket(AF_UNIX)) or s['at'].bind('${at}') or s['at'].listen(5)`);
  for (const name of ["u", "v", "shut", "ended", "dropped"]) {
    await pod.do(`s.update(${name}=socket(AF_UNIX)) or s['${name}'].connect('${at}')`);
    await server.do(`accept('${name}', 'at')`);
  }
  await server.do("send('u', 'early')");
  const names = await pod.do("names('u')");
  await pod.move(b);
  t.same(await pod.do("names('u')"), names);
  t.equal(await pod.do("whole('u', 5)"), "early");
  await speak(t, pod, server, "u");
  await pod.do("s['shut'].shutdown(SHUT_WR)");
  t.equal(await server.do("rest('shut')"), "");
  await server.do("send('ended', 'last') and s['ended'].shutdown(SHUT_WR)");
  await server.do("send('dropped', 'last') and drop('dropped')");
  for (const name of ["ended", "dropped"]) await pod.do(`ready('${name}', 0x2000, 10000)`);
  await server.do("send('u', 'unread')");
  await pod.do("ready('u', select.POLLIN, 10000)");
  await pod.move(c);
  t.same(await pod.do("names('u')"), names, "on a third host");
  t.equal(await pod.do("whole('u', 6)"), "unread");
  await speak(t, pod, server, "u");
  t.equal(await pod.fails("send('shut', 'x')"), "EPIPE");
  await server.do("send('shut', 'answer') and drop('shut')");
  t.equal(await pod.do("rest('shut')"), "answer");
  for (const name of ["ended", "dropped"]) t.equal(await pod.do(`rest('${name}')`), "last", name);
  await pod.do("send('ended', 'answer') and drop('ended')");
  t.equal(await server.do("rest('ended')"), "answer");
  await pod.do("s['u'].shutdown(SHUT_WR)");
  t.equal(await server.do("rest('u')"), "");
  await server.do("send('u', 'answer') and drop('u')");
  t.equal(await pod.do("rest('u')"), "answer");
  await server.do("drop('v')");
  t.equal(await pod.do("rest('v')"), "");
});

t.test("more in queues than a frame holds, on to a third host", async (t) => {
  const all = await stage(t);
  const { pod, peer, b, c } = all;
  await join(all, ipv4, "some", "full");
  // As much as it may, on this machine.
  for (const n of ["some", "full"]) await pod.do(`s['${n}'].setsockopt(SOL_SOCKET, SO_RCVBUF, 64 << 20)`);
  await pod.move(b);
  const waiting = (n: string) =>
    pod.do<number>(
      `int.from_bytes(__import__('fcntl').ioctl(s['${n}'], __import__('termios').FIONREAD, bytes(4)), 'little')`,
    );
  const [some, full] = [3_900_000, 24 << 20];
  const poured = [peer.begin(`pour('some', 'some', ${some})`), peer.begin(`pour('full', 'full', ${full})`, 60_000)];
  await isStuck(peer);
  t.comment(`${await waiting("some")} and ${await waiting("full")} bytes wait`);
  await pod.move(c);
  t.equal(await pod.do(`gulp('some', 'some', ${some})`), some);
  t.equal(await pod.do(`gulp('full', 'full', ${full})`, 60_000), full);
  for (const done of poured) await done();
  for (const n of ["some", "full"]) await speak(t, pod, peer, n);
});

t.test("what a program writes last, before it ends", async (t) => {
  const all = await stage(t);
  const { a, pod, peer, b } = all;
  await join(all, ipv4, "said", "much");
  await pod.move(b);
  const bytes = 8 << 20;
  const much = peer.begin(`gulp_to_end('much', 'last', ${bytes})`);
  await pod.begin(`pour('much', 'last', ${bytes}) and send('said', 'bye') and os._exit(0)`);
  t.equal(await much(), bytes);
  t.equal(await peer.do("rest('said')"), "bye");
  await peer.do("drop('said') or drop('much')");
  await until("the holder to end", async () => (await pidsOf(a, "virt-hold")).length === 0);
});

t.test("a hundred connections under load both ways", async (t) => {
  const all = await stage(t);
  const { pod, peer, b } = all;
  const [count, bytes] = [100, 1 << 20];
  await join(all, ipv4, ...Array.from({ length: count }, (_, i) => `f${i}`));
  await pod.do("globals().update(mine='pod', theirs='peer')");
  await peer.do("globals().update(mine='peer', theirs='pod')");
  const flooded = [pod, peer].map((who) => who.begin(`flood('f', ${count}, ${bytes}, 20000)`, 120_000));
  const done = async () =>
    Object.entries(await pod.do<Record<string, number>>("progress")).reduce(
      (sum, [name, n]) => sum + (name.endsWith(" in") ? n : 0),
      0,
    );
  await until("some of it to be through", async () => (await done()) > (count * bytes) / 20, 60_000);
  const image = await pod.detach();
  await pod.reattach(image, b);
  for (const end of flooded) t.same(await end(), []);
  t.equal(await done(), count * bytes);
});
