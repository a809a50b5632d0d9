/**
 * What is kept of a detached pod on its own host: who may have it, what may be chosen instead, and what happens when something
 * goes wrong in between.
 */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { createServer, connect as dial, type Server, type Socket } from "node:net";
import { join } from "node:path";
import t, { type Test } from "tap";
import { type Image, list, type Pod, planReattach, reattach, type VirtError } from "virt-run";
import { freePort, leaveNothing } from "./support/apps.js";
import { virtRun as cli } from "./support/cli.js";
import { needs } from "./support/packages.js";
import { imageName, logged, start, until } from "./support/pods.js";

leaveNothing(t);

/** Sends back what it gets, to each of its clients; says which of them are gone, and how. */
const server = `
import selectors, socket, sys
s = selectors.DefaultSelector()
l = socket.create_server(("127.0.0.1", int(sys.argv[1])))
s.register(l, selectors.EVENT_READ)
print("READY", flush=True)
while True:
    for key, _ in s.select():
        if key.fileobj is l:
            c, _ = l.accept(); s.register(c, selectors.EVENT_READ); continue
        try: data = key.fileobj.recv(65536)
        except OSError as e: data = b""; print("GONE", e.strerror, flush=True)
        if data: key.fileobj.sendall(data)
        else: print("END", flush=True); s.unregister(key.fileobj); key.fileobj.close()
`;

/** Asks a server again and again, over one connection, and says what it hears. */
const asker = `
import socket, sys, time
c = None
while True:
    try:
        if c is None: c = socket.create_connection(("127.0.0.1", int(sys.argv[1]))); print("DIALLED", flush=True)
        c.sendall(b"x"); c.recv(1)
        print("ANSWER", c.getsockname()[1], flush=True)
    except OSError as e: print("ERROR", e.strerror, flush=True); c = None
    time.sleep(0.02)
`;

async function served(name?: string): Promise<{ pod: Pod; port: number }> {
  const port = await freePort();
  const pod = await start(needs("python3"), ["-c", server, String(port)], name === undefined ? {} : { name });
  await logged(pod, "READY");
  return { pod, port };
}

/** A client of a served pod. */
class Client {
  readonly socket: Socket;
  #got = "";
  error: NodeJS.ErrnoException | undefined;

  constructor(port: number) {
    this.socket = dial(port, "127.0.0.1");
    this.socket.setEncoding("latin1").on("data", (text: string) => {
      this.#got += text;
    });
    this.socket.on("error", (e) => {
      this.error = e;
    });
  }

  ended(): Promise<true> {
    return until("the connection to end", () => this.socket.destroyed);
  }

  async ask(text: string): Promise<void> {
    const before = this.#got.length;
    this.socket.write(text);
    await until({ toString: () => `an answer to ${text}: ${this.error}` }, () => {
      if (this.error) throw this.error;
      return this.#got.length >= before + text.length;
    });
    if (this.#got.slice(before) !== text) throw new Error(`${this.#got.slice(before)} for ${text}`);
  }
}

const holding = async (id: string) => (await list({ all: true })).find((p) => p.id === id)?.holding;

async function away(options = {}): Promise<{ id: string; pod: Pod; port: number; client: Client; image: Image }> {
  const { pod, port } = await served();
  const client = new Client(port);
  await client.ask("before");
  return { id: pod.id, pod, port, client, image: await pod.detach({ image: imageName(), ...options }) };
}

t.test("who asks is told what is held, and it is not thrown away by the way", async (t) => {
  const { id, pod, client, image } = await away();
  t.match(await holding(id), { connections: 1, listeners: 1, datagrams: 0 });
  t.match(await pod.inspect(), { state: "detached", holding: { connections: 1, listeners: 1 } });
  t.match((await cli(["inspect", id])).out, /^holding +holding 1 connection, 1 listener$/m);
  t.match((await cli(["ps"])).out, /detached, holding 1 connection, 1 listener/);
  t.match(await cli(["rm", id]), { code: 1, err: /keeps connections for its image .*ERR_HOLDING/ });
  await cli(["prune"]);
  t.throws(() => pod.remove(), { code: "ERR_HOLDING" }, "nor by who detached it");
  t.match(await holding(id), { connections: 1 }, "prune leaves it alone");
  const plan = await planReattach(image);
  const from = client.socket.localPort;
  t.match(
    plan.held.filter((h) => h.socket === `127.0.0.1:${from}`),
    [{ kind: "inet-socket", from: "here", pid: 2, fd: Number }],
  );
  t.equal(plan.held.length, 2, "its listening socket too");
  t.match(await cli(["reattach", image.path, "--dry-run"]), {
    code: 0,
    out: new RegExp(
      `  held     inet-socket 127\\.0\\.0\\.1:${from} \\(pid 2, fd \\d+\\): taken from its holder here\n`,
    ),
  });
  const again = await reattach(image, { stdio: "log" });
  await client.ask("after");
  await until("the holder to end", async () => (await holding(id)) === undefined);
  t.match(await cli(["rm", id]), { code: 0 });
  await again.destroy();
  await client.ended();
});

t.test("rm -f lets go of it", async (t) => {
  const { id, client } = await away();
  t.match(await cli(["rm", "-f", id]), { code: 0 });
  await client.ended();
  t.notOk((await list({ all: true })).some((p) => p.id === id));
});

/** Kills a pod's holder, and no other: who listens there has the socket's inode. */
function killHolder(t: Test, id: string): void {
  const listening = readFileSync("/proc/net/unix", "utf8").split("\n");
  const inode = listening.find((line) => line.endsWith(`/${id}.hold`))?.split(/\s+/)[6];
  const has = (pid: string) => {
    try {
      return readdirSync(`/proc/${pid}/fd`).some((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`);
    } catch {
      return false; // another user's, or it has ended
    }
  };
  const pids = readdirSync("/proc").filter((pid) => /^\d+$/.test(pid) && has(pid));
  t.equal(pids.length, 1, `the holder of ${id} is found`);
  for (const pid of pids) process.kill(Number(pid), "SIGKILL");
}

t.test("when the holder is killed the connection is lost, and that is said", async (t) => {
  const { id, client, image } = await away();
  killHolder(t, id);
  await client.ended();
  await t.rejects(reattach(image, { stdio: "log" }), {
    code: "ERR_CONNECTION",
    hint: /--tcp close/,
    message: /nobody holds the connection to 127\.0\.0\.1:\d+/,
  });
  const again = await reattach(image, { stdio: "log", tcp: "close" });
  await logged(again, "END");
  t.match(again.logs().toString(), /GONE Connection reset by peer/);
  await again.destroy();
  t.match(await cli(["rm", id]), { code: 0 });
});

t.test("a holder at another address is looked for at the image's port, if none is said", async (t) => {
  const { id, client, image } = await away({ holdAt: "127.0.0.1" });
  const from = client.socket.localPort;
  killHolder(t, id);
  await client.ended();
  const port = image.manifest.holder?.reach?.port;
  t.ok(port);
  for (const [holder, where] of [
    ["127.0.0.2", `127.0.0.2:${port}`],
    ["127.0.0.2:1", "127.0.0.2:1"],
  ] as const)
    await t.rejects(planReattach(image, { holder }), {
      code: "ERR_CONNECTION",
      message: new RegExp(`is not reached at ${where} .*: 127\\.0\\.0\\.1:${from} \\(pid 2, fd \\d+\\)`),
      kind: "inet-socket",
      pid: 2,
      fd: Number,
    });
  await t.rejects(planReattach(image, { holder: "there" }), { code: "ERR_USAGE" });
  const check = (...words: string[]) => cli(["check", image.path, ...words]);
  t.match(await check(), { code: 1, out: `not reached at 127.0.0.1:${port} ` });
  t.match(await check("--holder", "127.0.0.2:1"), { code: 1, out: /not reached at 127\.0\.0\.2:1 / });
  t.match(await check("--tcp", "close"), { code: 0 });
  t.match(await check("--tcp", "close=127.0.0.1"), { code: 2, err: /ERR_USAGE/ });
  await cli(["rm", "-f", id]);
});

t.test("no port is made up for a holder that the image says nothing of", async (t) => {
  const { id, client, image } = await away();
  await t.rejects(planReattach(image, { holder: "there" }), { code: "ERR_USAGE" }, "though it is here");
  killHolder(t, id);
  await client.ended();
  await t.rejects(planReattach(image, { holder: "127.0.0.2" }), { code: "ERR_USAGE", hint: /--holder ADDRESS:PORT/ });
  await cli(["rm", "-f", id]);
});

t.test("a reattach that fails leaves it with the holder; two at once do not share it", async (t) => {
  const { id, client, image } = await away();
  process.env["VIRT_RUN_FAULT"] = "rebuild-state";
  await t.rejects(reattach(image, { stdio: "log" }), { code: "ERR_FAULT" });
  delete process.env["VIRT_RUN_FAULT"];
  t.match(await holding(id), { connections: 1, listeners: 1 });
  const tries = await Promise.allSettled([
    reattach(image, { stdio: "log", name: "one" }),
    reattach(image, { stdio: "log", name: "two" }),
  ]);
  const got = tries.flatMap((r) => (r.status === "fulfilled" ? [r.value] : []));
  const refused = tries.flatMap((r) => (r.status === "rejected" ? [(r.reason as VirtError).code] : []));
  t.equal(got.length, 1, `one has it, the other was refused: ${refused}`);
  t.ok(
    ["ERR_POD_BUSY", "ERR_POD_GONE", "ERR_CONNECTION", "ERR_PORT_IN_USE", "ERR_BLOCKED"].includes(refused[0] ?? ""),
    `refused with ${refused[0]}`,
  );
  await client.ask("after all");
  await got[0]?.destroy();
});

t.test("a supervisor that ends between hold and release leaves the pod as it was", async (t) => {
  const { pod, port } = await served();
  const client = new Client(port);
  await client.ask("before");
  process.env["VIRT_RUN_FAULT"] = "release";
  await t.rejects(pod.detach({ image: imageName() }), { code: "ERR_FAULT" });
  delete process.env["VIRT_RUN_FAULT"];
  await client.ask("after");
  t.ok(pod.running);
  t.notOk(
    existsSync(join(process.env["XDG_RUNTIME_DIR"] ?? "", "virt-run", `${pod.id}.hold`)) && (await holding(pod.id)),
  );
  const again = await reattach(await pod.detach({ image: imageName() }), { stdio: "log" });
  await client.ask("a second time");
  await again.destroy();
});

t.test("close, and by peer", async (t) => {
  const { pod, port } = await served();
  const [kept, closed] = [new Client(port), new Client(port)];
  await kept.ask("a");
  await closed.ask("b");
  const from = closed.socket.localPort as number;
  const image = await pod.detach({
    image: imageName(),
    tcpRules: [{ policy: "close", address: "127.0.0.1", port: from }],
  });
  t.match(image.accepted, [
    `closed the TCP connection to 127.0.0.1:${from} of pid 2, fd ${/fd (\d+)/.exec(image.accepted[0] ?? "")?.[1]}`,
  ]);
  await closed.ended();
  const again = await reattach(image, { stdio: "log" });
  await kept.ask("still here");
  await logged(again, "GONE Connection reset by peer");
  const end = await again.detach({ image: imageName(), tcp: "close" });
  t.equal(end.manifest.holder, undefined, "nothing is held");
  await kept.ended();
});

t.test("reconnect: the peer is dialled again", async (t) => {
  const echo: Server = createServer((c) => void c.on("error", () => {}).pipe(c)).listen(0, "127.0.0.1");
  await once(echo, "listening");
  const { port } = echo.address() as { port: number };
  let pod = await start(needs("python3"), ["-c", asker, String(port)]);
  const local = async (p: Pod, after = 0) =>
    until("an answer", () => /ANSWER (\d+)\n(?!.*ANSWER)/s.exec(p.logs().subarray(after).toString())?.[1]);
  const first = await local(pod);
  pod = await reattach(await pod.detach({ image: imageName(), tcp: "reconnect" }), { stdio: "log" });
  const from = pod.logs().length;
  t.not(await local(pod, from), first, "another connection");
  t.notMatch(pod.logs().toString(), /ERROR|DIALLED.*DIALLED/s, "of which the program knows nothing");
  const image = await pod.detach({ image: imageName(), tcp: "reconnect" });
  echo.close();
  pod = await reattach(image, { stdio: "log" });
  t.match(pod.notes.join(), /could not be made again: its program finds it reset/);
  await logged(pod, "ERROR");
  await pod.destroy();
});

t.test("more than init may hold: nothing is stopped for good", async (t) => {
  const { pod, port } = await served();
  const clients = Array.from({ length: 300 }, () => new Client(port));
  for (const c of clients) await c.ask("x");
  const { initPid } = await pod.inspect();
  execFileSync("prlimit", ["--pid", String(initPid), "--nofile=200:200"]);
  await t.rejects(pod.detach({ image: imageName() }), { code: "ERR_TOO_MANY_FILES" });
  t.ok(pod.running);
  for (const c of clients) await c.ask("y");
  for (const c of clients) c.socket.destroy();
  await pod.destroy();
});

t.test("a snapshot holds nothing, and offers nothing that is about holding", async (t) => {
  for (const words of [
    ["--hold-at", "127.0.0.1"],
    ["--cut-limit", "5"],
  ])
    t.match(await cli(["snapshot", "nobody", ...words]), { code: 2, err: /unknown option/ }, words.join(" "));
  t.notMatch((await cli(["help", "snapshot"])).out, /hold-at|cut-limit/);
  t.match((await cli(["help", "detach"])).out, /hold-at.*cut-limit/s);
});

t.test("what is no policy is refused", async (t) => {
  for (const words of [
    ["--tcp", "sometimes"],
    ["--tcp", "close=nowhere"],
    ["--tcp", "close=10.0.0.9:70000"],
    ["--hold-at", "here"],
  ])
    t.match(await cli(["detach", "nobody", ...words]), { code: 2, err: /ERR_USAGE/ }, words.join(" "));
  const { pod } = await served();
  for (const holdAt of ["here", "10.0.0.1:99999", "[::1"])
    await t.rejects(pod.detach({ image: imageName(), holdAt }), { code: "ERR_USAGE" }, holdAt);
  await t.rejects(pod.detach({ image: imageName(), holdAt: "203.0.113.9" }), {
    code: "ERR_SYSCALL",
    message: /Cannot assign|EADDRNOTAVAIL/,
  });
  t.ok(pod.running);
  await pod.destroy();
});
