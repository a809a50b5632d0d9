/**
 * What a program sees of its TCP connections after it was moved to another host, and what its peers see: addresses, options,
 * readiness, half-closes, resets, the urgent byte, full queues; in every state that they can be in before, meanwhile and after.
 */
import t, { type Test } from "tap";
import type { Actor } from "../support/actor.js";
import { leaveNothing } from "../support/apps.js";
import { families, join, speak, stage } from "../support/stage.js";

leaveNothing(t);

/** Nothing more comes but the end. */
async function end(t: Test, pod: Actor, peer: Actor, name: string): Promise<void> {
  await pod.do(`s['${name}'].shutdown(SHUT_WR)`);
  t.equal(await peer.do(`rest('${name}')`), "", `${name}: the end comes to the peer`);
  await peer.do(`drop('${name}')`);
  t.equal(await pod.do(`rest('${name}')`), "", `${name}: the end comes to the program`);
  await pod.do(`drop('${name}')`);
}

for (const f of families) {
  t.test(`${f.family}: addresses, options and readiness are as they were`, async (t) => {
    const all = await stage(t);
    const { pod, peer, b } = all;
    await join(all, f, "server", "client", "plain", "edge", "peeked");
    const before = new Map<string, unknown>();
    const options = ["TCP_NODELAY", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_USER_TIMEOUT"];
    for (const name of ["server", "client"]) {
      await pod.do(`s['${name}'].setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)`);
      await pod.do(`s['${name}'].setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)`);
      await pod.do(`s['${name}'].setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, 77)`);
      await pod.do(`s['${name}'].setsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT, 54321)`);
      await pod.do(`s['${name}'].setsockopt(SOL_SOCKET, SO_LINGER, OPTIONS_LINGER.pack(1, 9))`);
    }
    const look = async (name: string) => ({
      names: await pod.do(`names('${name}')`),
      options: await pod.do(`[s['${name}'].getsockopt(IPPROTO_TCP, o) for o in (${options.join(",")})]`),
      keepAlive: await pod.do(`s['${name}'].getsockopt(SOL_SOCKET, SO_KEEPALIVE)`),
      reuse: await pod.do(`s['${name}'].getsockopt(SOL_SOCKET, SO_REUSEADDR)`),
      linger: await pod.do(`s['${name}'].getsockopt(SOL_SOCKET, SO_LINGER, 8)`),
      error: await pod.do(`error_of('${name}')`),
      blocking: await pod.do(`s['${name}'].getblocking()`),
      ready: await pod.do(`ready('${name}')`),
    });
    await pod.do("s['plain'].setblocking(False)");
    // Edge-triggered: what was told before the move is not told again, what comes after it is.
    await pod.do("s.update(ep=select.epoll()) or s['ep'].register(s['edge'], select.EPOLLIN | select.EPOLLET)");
    await peer.do("send('edge', 'x')");
    await pod.do("ready('edge', select.POLLIN, 10000)");
    t.same(await pod.do("s['ep'].poll(5)").then((e) => (e as unknown[]).length), 1, "told once");
    t.same(await pod.do("s['ep'].poll(0)"), [], "and not again");
    await peer.do("send('peeked', 'look')");
    await pod.do("ready('peeked', select.POLLIN, 10000)");
    t.equal(await pod.do("receive('peeked', 100, MSG_PEEK)"), "look");
    for (const name of ["server", "client", "plain"]) before.set(name, await look(name));

    await pod.move(b);
    for (const name of ["server", "client", "plain"]) t.same(await look(name), before.get(name), name);
    t.equal(await pod.do("receive('edge', 1)"), "x", "what was in the queue is there");
    await peer.do("send('edge', 'y')");
    t.same(await pod.do("s['ep'].poll(10)").then((e) => (e as unknown[]).length), 1, "the next edge");
    t.same(await pod.do("s['ep'].poll(0)"), [], "once");
    await pod.do("ready('peeked', select.POLLIN, 10000)");
    t.equal(await pod.do("receive('peeked', 2, MSG_PEEK)"), "lo");
    t.equal(await pod.do("receive('peeked', 100)"), "look");
    t.equal(await pod.do("soon('peeked')"), null, "once only");
    await pod.do("s['plain'].setblocking(True)");
    for (const name of ["server", "client", "plain"]) {
      await speak(t, pod, peer, name);
      await end(t, pod, peer, name);
    }
  });

  t.test(`${f.family}: half-closed, ended and reset, before and after`, async (t) => {
    const all = await stage(t);
    const { pod, peer, b } = all;
    const pairs = (what: string) => [`${what} 1`, `${what} 2`];
    const states = ["pod shut", "peer shut", "both shut", "peer closed", "peer reset", "reset unread"];
    const later = ["pod shuts", "peer shuts", "pod closes", "peer closes", "pod resets", "peer resets"];
    const meanwhile = ["peer shuts then", "peer closes then", "peer resets then", "peer writes then"];
    await join(all, f, ...[...states, ...later, ...meanwhile].flatMap(pairs));
    const each = async (what: string, act: (name: string) => Promise<unknown>) => {
      for (const name of pairs(what)) await act(name);
    };
    const hears = (name: string, events = "select.POLLIN | 0x2000") => pod.do(`ready('${name}', ${events}, 10000)`);
    await each("pod shut", (n) => pod.do(`send('${n}', 'last') and s['${n}'].shutdown(SHUT_WR)`));
    await each("peer shut", (n) => peer.do(`send('${n}', 'last') and s['${n}'].shutdown(SHUT_WR)`));
    await each("both shut", async (n) => {
      await pod.do(`send('${n}', 'to peer') and s['${n}'].shutdown(SHUT_WR)`);
      await peer.do(`send('${n}', 'to pod') and s['${n}'].shutdown(SHUT_WR)`);
      await hears(n, "0x2000");
    });
    await each("peer closed", (n) => peer.do(`send('${n}', 'bye') and drop('${n}')`));
    for (const what of ["peer shut", "peer closed"]) await each(what, (n) => hears(n, "0x2000"));
    await each("peer reset", async (n) => {
      await peer.do(`reset('${n}')`);
      await hears(n, "0");
    });
    await each("reset unread", async (n) => {
      await peer.do(`send('${n}', 'unread') and reset('${n}')`);
      await hears(n, "0");
    });

    const image = await pod.detach();
    await each("peer shuts then", (n) => peer.do(`send('${n}', 'late') and s['${n}'].shutdown(SHUT_WR)`));
    await each("peer closes then", (n) => peer.do(`send('${n}', 'late') and drop('${n}')`));
    await each("peer resets then", (n) => peer.do(`reset('${n}')`));
    await each("peer writes then", (n) => peer.do(`send('${n}', 'late')`));
    await pod.reattach(image, b);

    await each("pod shut", async (n) => {
      t.equal(await pod.fails(`send('${n}', 'x')`), "EPIPE", `${n}: the program cannot write`);
      t.equal(await peer.do(`rest('${n}')`), "last", `${n}: its peer had the end`);
      await peer.do(`send('${n}', 'answer') and drop('${n}')`);
      t.equal(await pod.do(`rest('${n}')`), "answer", `${n}: what comes after it`);
    });
    await each("peer shut", async (n) => {
      t.equal(await pod.do(`rest('${n}')`), "last", n);
      await pod.do(`send('${n}', 'answer') and drop('${n}')`);
      t.equal(await peer.do(`rest('${n}')`), "answer", n);
    });
    await each("both shut", async (n) => {
      t.equal(await peer.do(`rest('${n}')`), "to peer", n);
      t.equal(await pod.do(`rest('${n}')`), "to pod", n);
      t.equal(await pod.fails(`send('${n}', 'x')`), "EPIPE", n);
    });
    await each("peer closed", async (n) => t.equal(await pod.do(`rest('${n}')`), "bye", n));
    for (const what of ["peer reset", "peer resets then"])
      await each(what, async (n) => {
        await hears(n);
        t.equal(await pod.fails(`rest('${n}')`), "ECONNRESET", n);
      });
    await each("reset unread", async (n) => {
      t.equal(await pod.do(`whole('${n}', 6)`), "unread", `${n}: what was there before the reset`);
      await hears(n);
      t.equal(await pod.fails(`rest('${n}')`), "ECONNRESET", n);
    });
    await each("peer shuts then", async (n) => {
      t.equal(await pod.do(`rest('${n}')`), "late", n);
      await pod.do(`send('${n}', 'answer') and drop('${n}')`);
      t.equal(await peer.do(`rest('${n}')`), "answer", n);
    });
    await each("peer closes then", async (n) => {
      t.equal(await pod.do(`rest('${n}')`), "late", n);
      await pod.do(`drop('${n}')`);
    });
    await each("peer writes then", async (n) => {
      t.equal(await pod.do(`whole('${n}', 4)`), "late", n);
      await speak(t, pod, peer, n);
    });
    for (const [one, other] of [
      [pod, peer],
      [peer, pod],
    ] as const) {
      const who = one === pod ? "pod" : "peer";
      await each(`${who} shuts`, async (n) => {
        await one.do(`send('${n}', 'last') and s['${n}'].shutdown(SHUT_WR)`);
        t.equal(await other.do(`rest('${n}')`), "last", n);
        await other.do(`send('${n}', 'answer') and drop('${n}')`);
        t.equal(await one.do(`rest('${n}')`), "answer", n);
      });
      await each(`${who} closes`, async (n) => {
        await one.do(`send('${n}', 'last') and drop('${n}')`);
        t.equal(await other.do(`rest('${n}')`), "last", n);
        await other.do(`drop('${n}')`);
      });
      await each(`${who} resets`, async (n) => {
        await one.do(`reset('${n}')`);
        await other.do(`ready('${n}', select.POLLIN, 10000)`);
        t.equal(await other.fails(`rest('${n}')`), "ECONNRESET", n);
      });
    }
  });

  t.test(`${f.family}: the urgent byte`, async (t) => {
    const all = await stage(t);
    const { pod, peer, b } = all;
    const names = ["server", "client"];
    const inline = ["server in line", "client in line"];
    await join(all, f, ...names, ...inline);
    for (const n of inline) await pod.do(`s['${n}'].setsockopt(SOL_SOCKET, SO_OOBINLINE, 1)`);
    const urgent = async (by: Actor, to: Actor, n: string, byte: string) => {
      await by.do(`send('${n}', 'ab') and send('${n}', '${byte}', MSG_OOB) and send('${n}', 'cd')`);
      await to.do(`ready('${n}', select.POLLPRI, 10000)`);
    };
    const heard = async (to: Actor, n: string, byte: string, when: string) => {
      await to.do(`ready('${n}', select.POLLPRI, 10000)`);
      if (inline.includes(n) && to === pod) {
        t.equal(await to.do(`receive('${n}', 2)`), "ab", `${n} ${when}: before it`);
        t.equal(await to.do(`whole('${n}', 3)`), `${byte}cd`, `${n} ${when}: it, and after it`);
        return;
      }
      t.equal(await to.do(`receive('${n}', 1, MSG_OOB)`), byte, `${n} ${when}`);
      t.equal(await to.do(`receive('${n}', 100)`), "ab", `${n} ${when}: before it`);
      t.equal(await to.do(`whole('${n}', 2)`), "cd", `${n} ${when}: after it`);
    };
    for (const n of [...names, ...inline]) {
      await urgent(peer, pod, n, "1");
      await urgent(pod, peer, n, "2");
    }
    await pod.move(b);
    for (const n of [...names, ...inline]) {
      await heard(pod, n, "1", "from before");
      await heard(peer, n, "2", "from before");
      await urgent(peer, pod, n, "3");
      await heard(pod, n, "3", "after");
      await urgent(pod, peer, n, "4");
      await heard(peer, n, "4", "after");
    }
  });
}
