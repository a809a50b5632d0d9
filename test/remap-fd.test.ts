/**
 * Descriptors that become something else: a file, a pipe, a socket, a terminal; while the pod runs, and at a reattach.
 */
import { execFileSync, spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import t from "tap";
import { connect, launch, type Pod, planReattach, type Remap, reattach } from "virt-run";
import { leaveNothing } from "./support/apps.js";
import { json, virtRun, virtRunning } from "./support/cli.js";
import { sandbox } from "./support/env.js";
import { needs } from "./support/packages.js";
import { cycle, imageName, logged, until } from "./support/pods.js";

leaveNothing(t);

let directories = 0;

function place(): string {
  const path = join(sandbox, `fd-${directories++}`);
  mkdirSync(path);
  return path;
}

const read = (path: string) => readFileSync(path, "utf8");

/** Says "1", "2", … on its standard output, a thousand a second. */
const counter = `
import os, time
n = 0
while True:
    n += 1
    os.write(1, b"%d\\n" % n)
    time.sleep(0.001)
`;

const counting = (options: Parameters<typeof launch>[2] = {}) =>
  launch(needs("python3"), ["-c", counter], { stdio: "log", cwd: sandbox, ...options });

/** A program whose standard input is a pipe, and whose output goes to the log. */
async function piped(program: string, cwd: string): Promise<Pod> {
  const pod = await launch(needs("python3"), ["-c", program], { cwd });
  pod.disconnect();
  return connect(pod.id);
}

/** Every number from 1 on once, whichever of the texts it is in. */
function isComplete(texts: string[]): boolean {
  const lines = texts.join("").trim().split("\n");
  const numbers = lines.map(Number).sort((a, b) => a - b);
  return numbers.length > 0 && numbers.every((n, i) => n === i + 1);
}

const grows = (path: string) => {
  const before = read(path).length;
  return until(`${path} to grow`, () => read(path).length > before);
};

interface Place {
  /** What the descriptor becomes. */
  target: string | number;
  /** What has arrived there. */
  text(): string;
  close(): void;
}

/** Collects what is said on connections to an address, or to a path. */
async function listening(where: { path: string } | { port: 0; host: string }): Promise<Place> {
  let said = "";
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on("data", (bytes) => {
      said += bytes.toString("latin1");
    });
    socket.on("error", () => {});
  });
  await new Promise<void>((resolve) => server.listen(where, () => resolve()));
  const address = server.address();
  return {
    target: typeof address === "string" ? address : `tcp:127.0.0.1:${address?.port}`,
    text: () => said,
    close() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

const before = "0 was there\n";
const places: Record<string, () => Promise<Place>> = {
  async "a file that is there"() {
    const path = join(place(), "file");
    writeFileSync(path, before);
    return { target: path, text: () => read(path).replace(before, ""), close() {} };
  },
  async "a file that is made"() {
    const path = join(place(), "file");
    return { target: path, text: () => (existsSync(path) ? read(path) : ""), close() {} };
  },
  async "a FIFO"() {
    const path = join(place(), "fifo");
    execFileSync("mkfifo", [path]);
    const end = openSync(path, "r+");
    const reader = spawn("cat", [], { stdio: [end, "pipe", "ignore"] });
    closeSync(end);
    let said = "";
    reader.stdout?.on("data", (bytes: Buffer) => {
      said += bytes.toString();
    });
    return { target: path, text: () => said, close: () => void reader.kill() };
  },
  "a unix socket": () =>
    listening({ path: join(place(), "a-name-that-is-rather-long-and-still-fits-into-an-address") }),
  "a TCP server": () => listening({ port: 0, host: "127.0.0.1" }),
  async "a descriptor of ours"() {
    const path = join(place(), "file");
    const fd = openSync(path, "a");
    return { target: fd, text: () => read(path), close: () => closeSync(fd) };
  },
};

/** Both ways of saying it. */
const ways: { way: string; apply(pod: Pod, remap: Remap): Promise<Pod> }[] = [
  {
    way: "while it runs",
    async apply(pod, remap) {
      await pod.remap(remap);
      return pod;
    },
  },
  { way: "at a reattach", apply: (pod, remap) => cycle(pod, { remap, stdio: "log" }) },
];

for (const { way, apply } of ways) {
  for (const [what, make] of Object.entries(places)) {
    t.test(`${way}: ${what}`, async (t) => {
      const there = await make();
      let pod = await counting();
      await logged(pod, "\n100\n");
      pod = await apply(pod, { fd: { "2/1": there.target } });
      await until("lines", () => there.text().split("\n").length > 100);
      await pod.destroy();
      // What is under way arrives yet.
      await until("all of it", () => isComplete([pod.logs().toString(), there.text()])).catch(() => {});
      t.ok(isComplete([pod.logs().toString(), there.text()]), "nothing is lost or said twice");
      pod.remove();
      there.close();
    });
  }

  t.test(`${way}: every process's, another descriptor, and a detach after it`, async (t) => {
    const cwd = place();
    const script = `
import os, time
said = os.fork() and [(1, b"a\\n"), (2, b"c\\n")] or [(1, b"b\\n")]
while True:
    for fd, line in said: os.write(fd, line)
    time.sleep(0.01)
`;
    let pod = await launch(needs("python3"), ["-c", script], { stdio: "log", cwd });
    await logged(pod, "b\n");
    pod = await apply(pod, { fd: { "*/1": join(cwd, "out"), "2/2": "2/1" } });
    await until("a", () => /a\n/.test(read(join(cwd, "out"))));
    const seen = read(join(cwd, "out"));
    await until("a and b", () =>
      ["a\n", "b\n"].every((line) => read(join(cwd, "out")).slice(seen.length).includes(line)),
    );
    t.notMatch(read(join(cwd, "out")), /c/, "2/1 was what it was before");
    const log = pod.logs().length;
    pod = await cycle(pod, { stdio: "log" });
    await grows(join(cwd, "out"));
    t.match(pod.logs().toString().slice(log), /^c\n/);
    await pod.destroy();
    pod.remove();
  });

  t.test(`${way}: an epoll watches what is there now`, async () => {
    const cwd = place();
    execFileSync("mkfifo", [join(cwd, "fifo")]);
    const writer = openSync(join(cwd, "fifo"), "r+");
    const program = `
import os, select
e = select.epoll()
e.register(0, select.EPOLLIN)
print("watching", flush=True)
while True:
    for fd, events in e.poll():
        print(fd, events, os.read(fd, 100), flush=True)
`;
    let pod = await piped(program, cwd);
    await logged(pod, "watching");
    pod = await apply(pod, { fd: { "2/0": join(cwd, "fifo") } });
    writeSync(writer, "hello");
    await logged(pod, "0 1 b'hello'");
    closeSync(writer);
    await pod.destroy();
    pod.remove();
  });

  t.test(`${way}: the pod's terminal`, async () => {
    const cwd = place();
    let pod = await launch("/bin/sh", ["-c", "while :; do tty; tty <&1; sleep 0.01; done"], { stdio: "terminal", cwd });
    await logged(pod, "/dev/pts/0");
    pod = await apply(pod, { fd: { "2/1": join(cwd, "out") } });
    await until("no terminal", () => /pts.0\nnot a tty\n/.test(read(join(cwd, "out"))));
    pod = await apply(pod, { fd: { "2/1": "terminal" } });
    const length = pod.logs().length;
    await until("the terminal again", () => /pts.0\r\n.*pts.0\r\n/.test(pod.logs().toString().slice(length)));
    await pod.destroy();
    pod.remove();
  });

  t.test(`${way}: two that trade places`, async (t) => {
    const cwd = place();
    const script = "import os, time\nwhile True: os.write(5, b'5'); os.write(6, b'6'); time.sleep(0.01)";
    let pod = await launch("/bin/sh", ["-c", `exec 5> five 6> six; exec python3 -c "${script}"`], {
      stdio: "log",
      cwd,
    });
    const bytes = (name: string) => (existsSync(join(cwd, name)) ? read(join(cwd, name)) : "");
    await until("both", () => bytes("five") !== "" && bytes("six") !== "");
    pod = await apply(pod, { fd: { "2/5": "2/6", "2/6": "2/5" } });
    await until("both again", () => bytes("five").includes("6") && bytes("six").includes("5"));
    await pod.destroy();
    t.match(bytes("five"), /^5+6+$/);
    t.match(bytes("six"), /^6+5+$/);
    pod.remove();
  });
}

t.test("back and forth a hundred times, nothing is lost", async (t) => {
  const cwd = place();
  const files = ["a", "b", "c"].map((name) => join(cwd, name));
  const pod = await counting();
  await logged(pod, "\n10\n");
  for (let i = 0; i < 100; i++) await pod.remap({ fd: { "2/1": files[i % 3] as string } });
  const { processes = [] } = await pod.inspect();
  t.equal(processes[0]?.fds.length, 3, "no descriptor is left behind");
  await pod.destroy();
  t.ok(isComplete([pod.logs().toString(), ...files.map(read)]));
  pod.remove();
});

t.test("what cannot be is refused, and the pod is unharmed", async (t) => {
  const cwd = place();
  writeFileSync(join(cwd, "file"), "");
  const program = `
import os, select
e = select.epoll()
e.register(0, select.EPOLLIN)
print("watching", flush=True)
while True:
    print(os.read(0, 100), flush=True)
`;
  const pod = await launch(needs("python3"), ["-c", program], { cwd });
  let out = "";
  pod.stdout?.on("data", (bytes) => {
    out += bytes;
  });
  await until("it watches", () => out.includes("watching"));
  const gone = join(cwd, "gone");
  const wrong: [Remap, RegExp][] = [
    [{ fd: { "2": "/dev/null" } }, /'fd:2=.dev.null' is no rule: fd:PID.FD=TARGET/],
    [{ fd: { "2/1": "out" } }, /is no rule/],
    [{ fd: { "2/1": "tcp:localhost:80" } }, /is no rule/],
    [{ fd: { "2/1": "tcp:127.0.0.1:70000" } }, /is no rule/],
    [{ fd: { "2/1": -1 } }, /is no rule/],
    [{ fd: { "7/1": "/dev/null" } }, /there is no process 7; there are 2 \(python3/],
    [{ fd: { "2/77": "/dev/null" } }, /pid 2 has no descriptor 77; it has 0, 1, 2/],
    [{ fd: { "*/77": "/dev/null" } }, /no process has a descriptor 77/],
    [{ fd: { "2/1": "2/77" } }, /pid 2 has no descriptor 77/],
    [{ fd: { "2/1": "/dev/null", "*/1": "/dev/zero" } }, /another rule is about 2.1/],
    [{ fd: { "2/1": "terminal" } }, /the pod has no terminal/],
  ];
  const image = await pod.snapshot({ image: imageName() });
  for (const [remap, message] of wrong) {
    await t.rejects(pod.remap(remap), { code: "ERR_REMAP", message }, JSON.stringify(remap));
    await t.rejects(planReattach(image, { remap }), { code: "ERR_REMAP", message }, JSON.stringify(remap));
    await t.rejects(launch("true", [], { remap }), { code: "ERR_REMAP" });
  }
  // What only the kernel can tell, or this host.
  const later: [Remap, Record<string, unknown> & { code: string }, RegExp][] = [
    [{ fd: { "2/0": gone } }, { code: "ERR_SYSCALL", pid: 2, fd: 0, path: gone }, /gone is not there/],
    [{ fd: { "2/1": join(gone, "x") } }, { code: "ERR_SYSCALL", errnoName: "ENOENT", pid: 2, fd: 1 }, /is not there/],
    [{ fd: { "2/1": cwd } }, { code: "ERR_SYSCALL", errnoName: "EISDIR" }, /is a directory/],
    [
      { fd: { "2/0": join(cwd, "file") } },
      { code: "ERR_REMAP", pid: 2, fd: 0, message: /epoll/ },
      /an epoll watches it/,
    ],
    [{ fd: { "2/0": "/dev/null" } }, { code: "ERR_REMAP", pid: 2, fd: 0, message: /epoll/ }, /an epoll watches it/],
    [{ fd: { "2/1": 12345 } }, { code: "ERR_SYSCALL", errnoName: "EBADF" }, /no descriptor 12345/],
  ];
  for (const [remap, error, message] of later) {
    await t.rejects(pod.remap(remap), error, JSON.stringify(remap));
    await t.rejects(
      planReattach(image, { remap }),
      { code: "ERR_REMAP", blockers: [{ message }] },
      JSON.stringify(remap),
    );
  }
  await t.rejects(pod.remap({ fd: { "2/1": "tcp:127.0.0.1:1" } }), {
    code: "ERR_SYSCALL",
    errnoName: "ECONNREFUSED",
    pid: 2,
    fd: 1,
  });
  const silent = join(cwd, "silent");
  execFileSync(needs("python3"), ["-c", "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])", silent]);
  await t.rejects(pod.remap({ fd: { "2/1": silent } }), {
    code: "ERR_SYSCALL",
    errnoName: "ECONNREFUSED",
    path: silent,
  });
  await t.rejects(reattach(image, { remap: { fd: { "2/1": "tcp:127.0.0.1:1" } } }), {
    code: "ERR_SYSCALL",
    errnoName: "ECONNREFUSED",
  });
  const { processes = [] } = await pod.inspect();
  t.equal(processes[0]?.fds.length, 4, "nothing is left of what was tried");
  pod.stdin?.write("still here");
  await until("an answer", () => out.includes("b'still here'"));
  await pod.destroy();
  pod.remove();
  image.remove();
});

t.test("an epoll that two processes share", async (t) => {
  const cwd = place();
  execFileSync("mkfifo", [join(cwd, "fifo")]);
  const writer = openSync(join(cwd, "fifo"), "r+");
  const program = `
import os, select, time
e = select.epoll()
e.register(0, select.EPOLLIN)
other = os.dup(e.fileno())
child = os.fork() == 0
print("ready", flush=True)
while child: time.sleep(1)
while True:
    for fd, events in e.poll(): print(fd, events, os.read(fd, 100), flush=True)
`;
  const pod = await piped(program, cwd);
  await until("both", () => pod.logs().toString().split("ready").length === 3);
  await pod.remap({ fd: { "*/0": join(cwd, "fifo") } });
  writeSync(writer, "hello");
  await logged(pod, "0 1 b'hello'");
  closeSync(writer);
  t.equal((await pod.inspect()).processes?.length, 2);
  await pod.destroy();
  pod.remove();
});

t.test("a process with a filter of its own is let alone", async (t) => {
  const program = `
import ctypes, time
class Filter(ctypes.Structure): _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]
class Program(ctypes.Structure): _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.POINTER(Filter))]
# Whoever maps memory is killed.
filters = (Filter * 4)(Filter(0x20, 0, 0, 0), Filter(0x15, 0, 1, 9), Filter(0x06, 0, 0, 0x80000000), Filter(0x06, 0, 0, 0x7fff0000))
c = ctypes.CDLL(None)
print("ready", flush=True)
c.prctl(38, 1, 0, 0, 0)
c.prctl(22, 2, ctypes.byref(Program(4, filters)))
while True: c.usleep(10000)
`;
  const pod = await launch(needs("python3"), ["-c", program], { stdio: "log" });
  await logged(pod, "ready");
  const filters = async () =>
    /Seccomp_filters:\s+[2-9]/.test(read(`/proc/${(await pod.inspect()).processes?.[0]?.hostPid}/status`));
  await until("its filter", filters);
  await t.rejects(pod.remap({ fd: { "2/1": "/dev/null" } }), { code: "ERR_NOT_PERMITTED", pid: 2, fd: 1 });
  t.ok(pod.running);
  t.equal((await pod.inspect()).processes?.length, 1);
  await pod.destroy();
  pod.remove();
});

t.test("what leads out of the pod keeps it from a snapshot, until it is remapped again", async (t) => {
  const there = await listening({ port: 0, host: "127.0.0.1" });
  const pod = await counting();
  t.strictSame(await pod.check({ snapshot: true }), []);
  await pod.remap({ fd: { "2/1": there.target } });
  t.match(await pod.check({ snapshot: true }), [{ code: "ERR_CONNECTION", pid: 2, fd: 1 }]);
  await pod.remap({ fd: { "2/1": "/dev/null" } });
  t.strictSame(await pod.check({ snapshot: true }), []);
  await pod.destroy();
  pod.remove();
  there.close();
});

t.test("what a descriptor was need not be here any more", async (t) => {
  const cwd = place();
  const script = `exec 5>> ${cwd}/log 6< ${cwd}/in; n=0; while :; do n=$((n+1)); echo $n >&5; sleep 0.01; done`;
  writeFileSync(join(cwd, "in"), "text\n");
  const pod = await launch("/bin/sh", ["-c", script], { stdio: "log", cwd: sandbox });
  await until("lines", () => existsSync(join(cwd, "log")) && read(join(cwd, "log")).length > 10);
  const image = await pod.detach({ image: imageName() });
  const lines = read(join(cwd, "log"));
  rmSync(cwd, { recursive: true });
  await t.rejects(planReattach(image), { code: "ERR_MISSING_FILE" });
  const other = join(place(), "log");
  const words = ["reattach", image.path, "--remap", `fd:*/5=${other}`, "--remap", "fd:*/6=/dev/null"];
  t.match((await virtRun([...words, "--dry-run"])).out, `descriptor 2/5 becomes ${other}`);
  t.match(await json(...words, "--dry-run"), {
    plan: {
      descriptors: [{ pid: 2, fd: 5, target: other }],
    },
  });
  t.match(await virtRun(["check", image.path, ...words.slice(2)]), { code: 0 });
  const { code, out, err } = await virtRun([...words, "-d"]);
  t.match({ code, err }, { code: 0, err: "" });
  await until("lines", () => existsSync(other) && read(other).length > 10);
  t.equal(read(other).split("\n")[0], String(lines.trim().split("\n").length + 1));
  const again = await connect(out.trim());
  await again.destroy();
  again.remove();
  image.remove();
});

t.test("on the command line, to the launcher's own streams too", async (t) => {
  const cwd = place();
  const pod = await counting({ name: "told" });
  await logged(pod, "\n10\n");
  t.match(await virtRun(["remap", "told", `fd:2/1=${cwd}/one`]), { code: 0, out: "" });
  await grows(join(cwd, "one"));
  const two = openSync(join(cwd, "two"), "a");
  t.match(await json("remap", "told", "fd:2/2=/dev/null"), {
    pod: { name: "told" },
    remap: { fd: { "2/2": "/dev/null" } },
  });
  t.match(await virtRun(["remap", "told", "fd:2/1=stdout"], { stdio: ["ignore", two, "inherit"] }), { code: 0 });
  closeSync(two);
  await grows(join(cwd, "two"));
  t.match(await virtRun(["remap", "told", "fd:9/1=stdout"]), {
    code: 1,
    err: /there is no process 9; .*\(ERR_REMAP\)/s,
  });
  t.match(await virtRun(["remap", "told"]), { code: 2 });
  const image = await pod.detach({ image: imageName() });
  const texts = [pod.logs().toString(), read(join(cwd, "one")), read(join(cwd, "two"))];
  t.ok(isComplete(texts));
  const running = virtRunning(["reattach", image.path, "--name", "shown", "--remap", "fd:2/1=stdout"]);
  await until("it says something", () => running.said.out !== "");
  const shown = await connect("shown");
  await shown.kill("SIGTERM");
  const { out } = await running.ended;
  t.ok(isComplete([...texts, out]), "and goes on where it is shown");
  image.remove();
  for (const p of [pod, shown]) p.remove();
});
