/**
 * What cannot be carried is named, all of it at once, by `check` and by a detach that is refused; the pod does not notice
 * and nothing is left behind. Whatever is neither carried (programs.test.ts) nor refused here is a defect.
 */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import t from "tap";
import type { Blocker, Pod, VirtError } from "virt-run";
import { sandbox } from "./support/env.js";
import { endAll, imageName, logged, ownFds, sleep, start } from "./support/pods.js";

const things = join(sandbox, "things");

/** By name, as things.c has them: the code and what the message says. */
const expected: Record<string, [code: string, message: RegExp]> = {
  inotify: ["ERR_UNSUPPORTED", /inotify/],
  fanotify: ["ERR_UNSUPPORTED", /fanotify/],
  netlink: ["ERR_UNSUPPORTED", /netlink/],
  packet: ["ERR_UNSUPPORTED", /packet socket/],
  raw: ["ERR_UNSUPPORTED", /raw socket/],
  vsock: ["ERR_UNSUPPORTED", /VM socket/],
  alg: ["ERR_UNSUPPORTED", /socket of address family 38/],
  mptcp: ["ERR_UNSUPPORTED", /MPTCP/],
  pidfd: ["ERR_UNSUPPORTED", /pidfd/],
  userfaultfd: ["ERR_UNSUPPORTED", /userfaultfd/],
  perf: ["ERR_UNSUPPORTED", /perf event/],
  landlock: ["ERR_UNSUPPORTED", /Landlock/],
  fuse: ["ERR_UNSUPPORTED", /device 10:229/],
  "namespace-file": ["ERR_UNSUPPORTED", /a namespace/],
  mqueue: ["ERR_UNSUPPORTED", /POSIX message queue/],
  "huge-memfd": ["ERR_UNSUPPORTED", /memfd of huge pages/],
  secret: ["ERR_UNSUPPORTED", /secret memory/],
  lease: ["ERR_UNSUPPORTED", /lease/],
  replaced: ["ERR_FILE_REPLACED", /name was removed/],
  "removed-directory": ["ERR_FILE_REPLACED", /does not lead there/],
  "tcp-outside": ["ERR_CONNECTION", /a TCP connection to 127\.0\.0\.1:/],
  "unix-outside": ["ERR_CONNECTION", /a unix socket connected to a process outside/],
  "tcp-backlog": ["ERR_BACKLOG", /1 connections? waits? in the backlog/],
  "unix-backlog": ["ERR_BACKLOG", /1 connections? waits? in the backlog/],
  "udp-queue": ["ERR_UDP_QUEUE", /datagrams/],
  "in-flight": ["ERR_FD_IN_FLIGHT", /descriptor/],
  "packet-pipe": ["ERR_PACKET_PIPE", /packet/],
  filtered: ["ERR_UNSUPPORTED", /socket filter/],
  "own-seccomp": ["ERR_UNSUPPORTED", /seccomp/],
  "own-namespace": ["ERR_NAMESPACE", /namespace of its own/],
  "namespace-for-children": ["ERR_NAMESPACE", /namespace for its children/],
  sealed: ["ERR_UNSUPPORTED", /seccomp/],
  "removed-cwd": ["ERR_FILE_REPLACED", /cwd directory that was removed/],
  "unlike-threads": ["ERR_UNSUPPORTED", /threads with different credentials/],
  semaphores: ["ERR_UNSUPPORTED", /semaphore/],
  messages: ["ERR_UNSUPPORTED", /message queue/],
  segment: ["ERR_UNSUPPORTED", /segment that no process has attached/],
};

/** What a detach lets the pod's init keep, and only a snapshot cannot have. */
const held = ["tcp-outside", "unix-outside", "tcp-backlog", "unix-backlog", "udp-queue"];

const outside = { tcp: createServer(), unix: createServer() };

t.before(async () => {
  const source = new URL("blockers/things.c", import.meta.url).pathname;
  execFileSync("gcc", [
    "-O1",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-D_GNU_SOURCE",
    "-o",
    things,
    source,
    "-pthread",
    "-lrt",
  ]);
  outside.tcp.listen(0, "127.0.0.1").unref();
  outside.unix.listen(join(sandbox, "outside.sock")).unref();
  await Promise.all([once(outside.tcp, "listening"), once(outside.unix, "listening")]);
});
t.teardown(() => {
  outside.tcp.close();
  outside.unix.close();
});
t.afterEach(endAll);

interface Thing {
  name: string;
  pid: number;
  fd: number;
}

/** A pod that has these things, those of them which it could get, and how to let it end. */
async function podWith(names: string[]): Promise<{ pod: Pod; got: Thing[]; finish: () => Promise<void> }> {
  const directory = join(sandbox, `things-${Math.random().toString(36).slice(2)}`);
  mkdirSync(directory);
  const go = join(directory, "go");
  const address = outside.tcp.address();
  const pod = await start(things, names, {
    cwd: directory,
    env: {
      PATH: process.env["PATH"],
      BEHAVIOUR_GO: go,
      BEHAVIOUR_DIR: directory,
      OUTSIDE_PORT: String(typeof address === "object" ? address?.port : ""),
      OUTSIDE_PATH: join(sandbox, "outside.sock"),
    },
  });
  const log = await logged(pod, "READY");
  const got = [...log.matchAll(/^(\S+) (\d+) (-?\d+)$/gm)].map(([, name, pid, fd]) => ({
    name: name as string,
    pid: Number(pid),
    fd: Number(fd),
  }));
  return {
    pod,
    got,
    finish: async () => {
      writeFileSync(go, "");
      const exit = await pod.ended();
      const said = pod.logs().toString();
      if (exit.code !== 0 || !said.includes("PASS"))
        throw new Error(`${exit.signal ?? exit.code}: ${said.slice(-600)}`);
      pod.remove();
    },
  };
}

function names({ name, pid, fd }: Thing, b: Blocker): boolean {
  const [code, message] = expected[name] as [string, RegExp];
  return (
    b.code === code &&
    message.test(b.message) &&
    (pid === 0 || b.pid === pid) &&
    (fd < 0 || b.fd === fd) &&
    (b.hint ?? "") !== "" &&
    (b.kind ?? "") !== ""
  );
}

async function refusal(pod: Pod, image: string): Promise<VirtError> {
  return pod.snapshot({ image }).then(
    () => Promise.reject(new Error("there is one")),
    (e: VirtError) => e,
  );
}

t.test("each by itself", async (t) => {
  for (const name of Object.keys(expected)) {
    const { pod, got, finish } = await podWith([name]);
    const thing = got[0];
    if (thing === undefined) {
      t.pass(`${name}: not to be had here`);
    } else {
      const found = await pod.check({ snapshot: true });
      t.ok(
        found.some((b) => names(thing, b)),
        name,
        { thing, found },
      );
      if (held.includes(name)) t.strictSame(await pod.check(), [], `${name} is kept by a detach`);
      // A connection from a backlog has two ends, and both are refused.
      if (!name.endsWith("backlog")) t.equal(found.length, 1, `${name}: nothing else`, { found });
    }
    await finish();
  }
});

t.test("all at once, and the pod goes on", async (t) => {
  const all = Object.keys(expected);
  const { pod, got, finish } = await podWith(all);
  const before = ownFds();
  t.ok(got.length > 20, `${got.length} of ${all.length} things`);
  const found = await pod.check({ snapshot: true });
  for (const thing of got)
    t.ok(
      found.some((b) => names(thing, b)),
      thing.name,
      { thing, found },
    );
  const image = imageName();
  const images = readdirSync(sandbox);
  const error = await refusal(pod, image);
  t.equal(error.code, "ERR_BLOCKED");
  t.strictSame(error.blockers, found, "a snapshot says the same as check");
  t.notOk(existsSync(image), "no image");
  t.strictSame(readdirSync(sandbox), images, "nor anything of it");
  t.strictSame(ownFds(), before, "no descriptor is left open");
  t.ok(pod.running);
  await finish();
});

t.test("a process under a debugger", async (t) => {
  const pod = await start("sh", [
    "-c",
    "python3 -c 'import ctypes, os, time; c = ctypes.CDLL(None); p = os.fork(); p or (c.ptrace(0, 0, 0, 0), os.kill(os.getpid(), 19)); os.waitpid(p, 0); print(\"READY\", flush=True); time.sleep(60)'",
  ]);
  await logged(pod, "READY");
  const found = await pod.check();
  t.match(found, [{ code: "ERR_TRACED", message: /debugger/ }]);
  const image = imageName();
  t.equal((await refusal(pod, image)).code, "ERR_TRACED");
  t.notOk(existsSync(image));
  await sleep(20);
  t.ok(pod.running);
});

t.test("a 32-bit program", async (t) => {
  const program = join(sandbox, "narrow");
  const built = spawn("gcc", ["-m32", "-nostdlib", "-static", "-o", program, "-xc", "-"], {
    stdio: ["pipe", "ignore", "ignore"],
  });
  built.stdin.end('void _start(void) { for (;;) __asm__ volatile("int $0x80" : : "a"(29)); }');
  const [code] = (await once(built, "close")) as [number];
  if (code !== 0) return t.pass("this compiler makes none");
  const pod = await start(program, [], { record: "none" });
  await sleep(50);
  if (!pod.running) return t.pass("this kernel runs none");
  await t.rejects(start(program), { code: "ERR_32BIT", hint: /--record none/ }, "its calls cannot be recorded");
  t.match(await pod.check(), [{ code: "ERR_32BIT" }]);
  t.equal((await refusal(pod, imageName())).code, "ERR_32BIT");
  t.ok(pod.running);
});
