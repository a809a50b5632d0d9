/**
 * What the interposer costs, with recording on: single calls against the kernel's own price, and whole programs against
 * themselves outside a pod, with strace(1) and proot(1) beside them where they are installed.
 */
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { launch } from "virt-run";
import { median, report, reportShare } from "./measure.js";

const traced =
  "open,openat,creat,openat2,unlink,unlinkat,rmdir,rename,renameat,renameat2,link,linkat,symlink,symlinkat,mkdir,mkdirat," +
  "mknod,mknodat,chmod,fchmod,fchmodat,chown,lchown,fchown,fchownat,truncate,ftruncate,bind,connect,listen,sendto,execve";

/** A line of shell in a pod that records; gives what it says. */
async function inPod(script: string, cwd: string, record: "default" | "none" = "default"): Promise<string> {
  const pod = await launch("/bin/sh", ["-c", script], { stdio: "log", cwd, record });
  const { code } = await pod.ended();
  const out = pod.logs().toString();
  pod.remove();
  if (code !== 0) throw new Error(`${script}: ${out}`);
  return out;
}

function outside(script: string, cwd: string, ...under: string[]): string {
  const [command = "", ...args] = [...under, "/bin/sh", "-c", script];
  return execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
}

const has = (program: string) => {
  try {
    execFileSync("sh", ["-c", `command -v ${program}`], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
};

/** Single calls. */
export async function calls(root: string, work: string): Promise<void> {
  const program = join(work, "calls");
  compileCalls(root, program);
  const cwd = mkdtempSync(join(work, "calls-"));
  const series: Record<string, number[]> = {
    native: [],
    unselected: [],
    filtered: [],
    open: [],
    recorded: [],
    notified: [],
  };
  for (let i = 0; i < 7; i++) {
    series["native"]?.push(Number(outside(`${program} unselected`, cwd)));
    series["unselected"]?.push(Number(await inPod(`${program} unselected`, cwd)));
    series["filtered"]?.push(Number(outside(`${program} filtered`, cwd)));
    series["open"]?.push(Number(outside(`${program} selected`, cwd)));
    series["recorded"]?.push(Number(await inPod(`${program} selected`, cwd)));
    series["notified"]?.push(Number(outside(`${program} notified`, cwd)));
  }
  const of = (name: string) => median(series[name] ?? []);
  const unselected = (what: string, against: string) => {
    const ratio = of("unselected") / of(against);
    report({
      what,
      ours: `${of("unselected").toFixed(2)} µs`,
      against: `of ${of(against).toFixed(2)} µs`,
      ratio,
      goal: "≤ 1.15",
      met: ratio <= 1.15,
    });
  };
  unselected("a call that is not selected, in a pod : outside", "native");
  unselected("the same, against one under the shortest filter there is", "filtered");
  const added = of("recorded") - of("open");
  const least = of("notified") - of("open");
  report({
    what: "what recording adds to an open(2) : a bare notification",
    ours: `${added.toFixed(2)} µs`,
    against: `of ${least.toFixed(2)} µs`,
    ratio: added / least,
    goal: "≤ 3 µs",
    met: added <= 3,
  });
}

function compileCalls(root: string, to: string): void {
  execFileSync("gcc", ["-O2", "-Wall", "-pthread", "-o", to, join(root, "bench/calls.c")], { stdio: "inherit" });
}

interface Load {
  name: string;
  goal: number;
  /** Run before each measurement, not measured. */
  before?: string;
  script: string;
}

/** A line of shell that says how many milliseconds it took. */
const timedScript = ({ before = "true", script }: Load) =>
  `${before}; s=$(date +%s%N); { ${script}; } >/dev/null 2>&1; e=$(date +%s%N); echo $(((e - s) / 1000))`;

/** Whole programs, each by itself. */
export async function programs(root: string): Promise<void> {
  const cwd = mkdtempSync(join(tmpdir(), "virt-run-bench-"));
  try {
    compileCalls(root, join(cwd, "calls"));
    mkdirSync(join(cwd, "tree"));
    for (let d = 0; d < 200; d++) {
      mkdirSync(join(cwd, "tree", `d${d}`));
      for (let f = 0; f < 100; f++) writeFileSync(join(cwd, "tree", `d${d}`, `f${f}`), `${d} ${f}\n`);
    }
    outside(
      "tar cf tree.tar tree && git init -q tree && cd tree && git add . && git -c user.name=n -c user.email=e commit -qm one",
      cwd,
    );
    mkdirSync(join(cwd, "c"));
    const units = Array.from({ length: 24 }, (_, i) => `u${i}`);
    for (const unit of units)
      writeFileSync(
        join(cwd, "c", `${unit}.c`),
        `#include <stdio.h>\n#include <stdlib.h>\nint ${unit}(int n) { printf("%d", n); return n * 2; }\n`,
      );
    writeFileSync(join(cwd, "c/main.c"), "int main(void) { return 0; }\n");
    writeFileSync(
      join(cwd, "c/Makefile"),
      `prog: main.o ${units.map((u) => `${u}.o`).join(" ")}\n\tgcc -o $@ $^\n%.o: %.c\n\tgcc -O1 -c -o $@ $<\nclean:\n\trm -f *.o prog\n`,
    );
    const loads: Load[] = [
      {
        name: "sqlite3, 300 inserts each by itself",
        goal: 0.95,
        before: "rm -f db; sqlite3 db 'create table t(x)'",
        script: "seq 300 | sed 's/.*/insert into t values (&);/' | sqlite3 db",
      },
      { name: "make -j2 of 25 C files", goal: 0.9, before: "make -sC c clean", script: "make -sj2 -C c" },
      {
        name: "tar x of 20,000 small files",
        goal: 0.8,
        before: "rm -rf out; mkdir out",
        script: "tar xf tree.tar -C out",
      },
      {
        name: "git status in a tree of 20,000 files",
        goal: 0.97,
        script: "for i in 1 2 3 4 5; do git -C tree status --short; done",
      },
    ];
    for (const load of loads) await program(load, cwd);
  } finally {
    rmSync(cwd, { recursive: true, force: true });
  }
}

async function program(load: Load, cwd: string): Promise<void> {
  const script = timedScript(load);
  const inside: number[] = [];
  const native: number[] = [];
  for (let i = 0; i < 7; i++) {
    if (i % 2 === 0) native.push(Number(outside(script, cwd)));
    inside.push(Number(await inPod(script, cwd)));
    if (i % 2 === 1) native.push(Number(outside(script, cwd)));
  }
  const speed = (us: number[]) => us.map((n) => 1e6 / n);
  reportShare(`${load.name}, recorded : outside`, speed(inside), speed(native), load.goal, "/1000 s");
  const peers: [string, string[]][] = [
    ["a bare listener", [join(cwd, "calls"), "under"]],
    ["strace", ["strace", "-f", "-o", "/dev/null", "-e", `trace=${traced}`]],
    ["strace", ["strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", `trace=${traced}`]],
    ["proot", ["proot"]],
  ];
  for (const [name, under] of peers) {
    if (name !== "a bare listener" && !has(name)) continue;
    const peer = [0, 1, 2].map(() => Number(outside(script, cwd, ...under)));
    const share = median(native) / median(peer);
    const called = under.includes("--seccomp-bpf") ? "strace --seccomp-bpf" : name;
    report({ what: `  the same under ${called}`, ours: "", against: "", ratio: share, goal: "", met: true });
  }
}

/** Servers, with the same client against one outside and one in a pod. */
export async function servers(work: string, redisArguments: (port: number) => string[]): Promise<void> {
  const port = 30_000 + (process.pid % 10_000);
  const ready = async (command: string) => {
    for (;;) {
      try {
        outside(command, work);
        return;
      } catch {
        await sleep(5);
      }
    }
  };
  const compare = async (
    name: string,
    goal: number,
    words: (port: number) => string[],
    check: (port: number) => string,
    load: (port: number) => number,
  ) => {
    const [command = "", ...args] = words(port);
    const plain = spawn(command, args, { stdio: "ignore", cwd: work });
    const [inCommand = "", ...inArgs] = words(port + 1);
    const pod = await launch(inCommand, inArgs, { stdio: "log", cwd: work, record: "default" });
    await ready(check(port));
    await ready(check(port + 1));
    const inside: number[] = [];
    const out: number[] = [];
    for (let i = 0; i < 7; i++) {
      if (i % 2 === 0) out.push(load(port));
      inside.push(load(port + 1));
      if (i % 2 === 1) out.push(load(port));
    }
    plain.kill();
    await pod.destroy();
    pod.remove();
    reportShare(`${name}, recorded : outside`, inside, out, goal, "/s");
  };
  await compare(
    "redis-benchmark SET",
    0.97,
    (p) => ["redis-server", ...redisArguments(p)],
    (p) => `redis-cli -p ${p} ping | grep PONG`,
    (p) => Number(/"SET","([\d.]+)"/.exec(outside(`redis-benchmark -p ${p} -t set -n 100000 -c 20 --csv`, work))?.[1]),
  );
  if (!has("wrk") || !has("nginx")) return;
  writeFileSync(join(work, "index.html"), "a page\n");
  const configuration = (p: number) => {
    const path = join(work, `nginx-${p}.conf`);
    writeFileSync(
      path,
      `daemon off; error_log ${work}/error.log; pid ${work}/nginx-${p}.pid; events { worker_connections 256; }
       http { access_log ${work}/access-${p}.log; client_body_temp_path ${work}/t1; proxy_temp_path ${work}/t2;
         fastcgi_temp_path ${work}/t3; uwsgi_temp_path ${work}/t4; scgi_temp_path ${work}/t5;
         server { listen 127.0.0.1:${p}; root ${work}; } }`,
    );
    return path;
  };
  await compare(
    "nginx and wrk",
    0.95,
    (p) => ["nginx", "-p", work, "-c", configuration(p)],
    (p) => `curl -sf http://127.0.0.1:${p}/`,
    (p) => Number(/Requests\/sec:\s+([\d.]+)/.exec(outside(`wrk -t1 -c16 -d2 http://127.0.0.1:${p}/`, work))?.[1]),
  );
}
