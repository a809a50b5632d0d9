/**
 * Hooks: functions of this process that decide about a pod's system calls, while everything else in the pod goes on; and
 * what becomes of calls when a hook fails, is slow, or is gone.
 */
import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { basename, join } from "node:path";
import t from "tap";
import { type Call, type Hooks, type LaunchOptions, launch, type Pod } from "virt-run";
import { leaveNothing } from "./support/apps.js";
import { sandbox } from "./support/env.js";
import { needs } from "./support/packages.js";
import { cycle, logged, sleep, until } from "./support/pods.js";

leaveNothing(t);

const env = { PATH: "/usr/bin:/bin", HOME: sandbox, LC_ALL: "C.UTF-8" };
let directories = 0;

function directory(): string {
  const path = join(sandbox, `hooks-${directories++}`);
  mkdirSync(path);
  return path;
}

/** Starts a line of shell with hooks; errors of hooks are collected. */
async function start(script: string, hooks: Hooks, options: LaunchOptions = {}) {
  const pod = await launch("/bin/sh", ["-c", script], { env, stdio: "log", hooks, ...options });
  const errors: string[] = [];
  pod.on("hookError", (error: Error, call: Call) => errors.push(`${call.name}: ${error.message}`));
  return { pod, errors };
}

async function ended(pod: Pod): Promise<string> {
  await pod.ended();
  const out = pod.logs().toString();
  pod.remove();
  return out;
}

t.test("a hook says what becomes of a call, and knows what it is about", async (t) => {
  needs("python3");
  const cwd = directory();
  writeFileSync(join(cwd, "file"), "text\n");
  writeFileSync(join(cwd, "instead"), "instead\n");
  const calls: Call[] = [];
  const only = (name: string, answer: (call: Call) => ReturnType<Call["pass"]>) => (call: Call) => {
    if (!call.path?.startsWith(cwd)) return call.pass();
    calls.push(call);
    return call.path === join(cwd, name) ? answer(call) : call.pass();
  };
  const deny = await start("cat file", { open: only("file", (call) => call.deny("EACCES")) }, { cwd });
  t.match(await ended(deny.pod), /Permission denied/);
  t.match(calls[0], {
    name: "open",
    call: "openat",
    program: /\/cat$/,
    path: join(cwd, "file"),
    access: "read",
    pid: Number,
    hostPid: Number,
  });
  t.ok((calls[0]?.hostPid ?? 0) > (calls[0]?.pid ?? 0), "both pids");

  const elsewhere = await start("cat file", { open: only("file", (c) => c.redirect(join(cwd, "instead"))) }, { cwd });
  t.equal(await ended(elsewhere.pod), "instead\n");

  const fd = openSync(join(cwd, "instead"), "r");
  const injected = await start(
    "cat file no-such-file",
    { open: (call) => (/file$/.test(call.path ?? "") ? call.inject(fd) : call.pass()) },
    { cwd },
  );
  t.equal(await ended(injected.pod), "instead\n", "one description, read to its end by the first");
  closeSync(fd);

  const answered = await start(
    `python3 -c 'import os; print(os.kill(99999, 9), os.chmod("none", 0))'`,
    {
      kill: (call) => (call.target === 99999 && call.signal === 9 ? call.answer(0) : call.deny("EPERM")),
      chmod: (call) => call.answer(0),
    },
    { cwd },
  );
  t.equal(await ended(answered.pod), "None None\n");
  for (const { errors } of [deny, elsewhere, injected, answered]) t.same(errors, []);
});

t.test("connections are sent elsewhere, one by one", async (t) => {
  needs("curl");
  const web = createServer((request, response) => response.end(`${request.headers.host}\n`));
  await new Promise<void>((resolve) => web.listen(0, "127.0.0.1", resolve));
  const { port } = web.address() as AddressInfo;
  const asked: string[] = [];
  const { pod } = await start("curl -s http://192.0.2.1/ http://192.0.2.2/ ; true", {
    connect: async (call) => {
      if (call.address === undefined) return call.pass(); // nscd(8)
      asked.push(`${call.address} ${call.port}`);
      await sleep(5);
      return call.address === "192.0.2.1" ? call.redirect({ host: "127.0.0.1", port }) : call.deny("ECONNREFUSED");
    },
  });
  t.equal(await ended(pod), "192.0.2.1\n");
  t.same(asked, ["192.0.2.1 80", "192.0.2.2 80"]);
  web.close();
});

t.test("other processes go on while a hook thinks", async (t) => {
  const cwd = directory();
  let decide = (_: boolean) => {};
  const decided = new Promise<boolean>((resolve) => {
    decide = resolve;
  });
  const { pod } = await start(
    "(mkdir slow && echo made) & n=0; while [ $n -lt 50 ]; do mkdir fast-$n; n=$((n+1)); done; echo FAST; wait",
    { mkdir: async (call) => (call.path?.endsWith("slow") && !(await decided) ? call.deny("EPERM") : call.pass()) },
    { cwd },
  );
  await logged(pod, "FAST");
  t.notMatch(pod.logs().toString(), /made/);
  decide(true);
  t.match(await ended(pod), /FAST\nmade/);
});

t.test("the default is done where a hook throws, gives nothing, is too slow, or is gone", async (t) => {
  const cwd = directory();
  const options: LaunchOptions = { cwd, hookDefault: { deny: "ENOSPC" }, hookTimeoutMs: 200 };
  const throws = await start(
    "mkdir d; true",
    {
      mkdir: () => {
        throw new Error("no idea");
      },
    },
    options,
  );
  t.match(await ended(throws.pod), /No space/);
  t.same(throws.errors, ["mkdir: no idea"]);

  const nothing = await start("mkdir d; true", { mkdir: (() => undefined) as never }, options);
  t.match(await ended(nothing.pod), /No space/);
  t.match(nothing.errors, [/gave no answer/]);

  const closed = await start("mkdir d; true", { mkdir: (call) => call.inject(999) }, options);
  t.match(await ended(closed.pod), /No space/, "a descriptor that is none");
  t.equal(closed.errors.length, 1);

  const slow = await start("mkdir d; true", { mkdir: () => new Promise(() => {}) }, options);
  t.match(await ended(slow.pod), /No space/);

  let asked = () => {};
  const itIsAsked = new Promise<void>((resolve) => {
    asked = resolve;
  });
  const gone = await start(
    "until [ -e go ]; do sleep 0.01; done; mkdir d || echo refused; rmdir d; mkdir e || echo refused",
    {
      mkdir: () => {
        asked();
        return new Promise(() => {});
      },
    },
    { ...options, hookTimeoutMs: 600_000, stdio: "log" },
  );
  const { connect } = await import("virt-run");
  const watcher = await connect(gone.pod.id);
  writeFileSync(join(cwd, "go"), "");
  await itIsAsked;
  gone.pod.disconnect();
  t.match(await ended(watcher), /refused(.|\n)*refused/, "those that waited, and those that came later");
});

t.test("callers that are interrupted or killed while a hook thinks", async (t) => {
  const cwd = directory();
  writeFileSync(
    join(cwd, "c.c"),
    `#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
static void tick(int s) { (void)s; }
int main(void) {
  struct sigaction again = {.sa_handler = tick, .sa_flags = SA_RESTART}, once = {.sa_handler = tick};
  struct itimerval often = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
  sigaction(SIGALRM, &again, NULL);
  setitimer(ITIMER_REAL, &often, NULL);
  printf("restarted: %d\\n", mkdir("a", 0700));
  sigaction(SIGALRM, &once, NULL);
  printf("interrupted: %d\\n", mkdir("b", 0700) == -1 && errno == EINTR);
  setitimer(ITIMER_REAL, &never, NULL);
  pid_t child = fork();
  if (child == 0) { mkdir("c", 0700); _exit(1); }
  while (access("asked", F_OK) != 0) usleep(1000);
  kill(child, SIGKILL);
  int status;
  waitpid(child, &status, 0);
  printf("killed: %d\\n", WTERMSIG(status) == SIGKILL);
  printf("after: %d\\n", mkdir("d", 0700));
  return 0;
}
`,
  );
  execFileSync(needs("gcc"), ["-o", join(cwd, "c"), join(cwd, "c.c")]);
  // The first question about "a" is answered when it was asked again, "b" and "c" when the next was asked about.
  const asks: string[] = [];
  let nextIsAsked = () => {};
  const hook = async (call: Call) => {
    const name = basename(call.path ?? "");
    nextIsAsked();
    const next = new Promise<void>((resolve) => {
      nextIsAsked = resolve;
    });
    const first = !asks.includes(name);
    asks.push(name);
    if (name === "c") writeFileSync(join(cwd, "asked"), "");
    if (first && name !== "d") await next;
    return call.pass();
  };
  const { pod, errors } = await start("./c", { mkdir: hook }, { cwd });
  t.equal(await ended(pod), "restarted: 0\ninterrupted: 1\nkilled: 1\nafter: 0\n");
  t.match(asks.join(""), /^a{2,}bcd$/);
  t.same(errors, []);
});

t.test("many calls at once, with descriptors in between", async (t) => {
  const cwd = directory();
  writeFileSync(join(cwd, "given"), "given\n");
  const fd = openSync(join(cwd, "given"), "r");
  let asked = 0;
  const { pod, errors } = await start(
    `for i in 1 2 3 4 5 6 7 8; do (n=0; while [ $n -lt 25 ]; do mkdir d-$i-$n; : < take-$i-$n && echo took; n=$((n+1)); done) & done; wait`,
    {
      mkdir: (call) => {
        asked++;
        return asked % 3 === 0 ? call.deny("EEXIST") : call.pass();
      },
      open: (call) => (call.path?.includes("take-") ? call.inject(fd) : call.pass()),
    },
    { cwd },
  );
  const out = await ended(pod);
  t.equal(out.match(/took/g)?.length, 200);
  t.equal(asked, 200);
  t.equal(out.match(/File exists/g)?.length, 66);
  t.same(errors, []);
  closeSync(fd);
});

t.test("a pod is detached while a hook thinks, and asks again where it is reattached", async (t) => {
  const cwd = directory();
  const { pod } = await start(
    "mkdir d && echo made; sleep 0.1",
    { mkdir: () => new Promise(() => {}) },
    { cwd, hookTimeoutMs: 600_000 },
  );
  await until("the call to be asked about", async () => {
    const [, child] = (await pod.inspect()).processes ?? [];
    return child !== undefined && readFileSync(`/proc/${child.hostPid}/syscall`, "utf8").startsWith("83 ");
  });
  const again = await cycle(pod, { hooks: { mkdir: (call) => call.pass() } });
  t.match(await ended(again), /made/);
});
