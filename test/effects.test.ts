/**
 * The journal against strace(1): real programs are run twice, under strace and in a pod that records, and the journal has
 * every effect that strace shows, and no other. Then what the journal survives: no supervisor, a reattach, signals.
 */
import { execFile, execFileSync } from "node:child_process";
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import t from "tap";
import { type Effect, launch, summarize } from "virt-run";
import { podDirectory } from "../src/pod/store.js";
import { leaveNothing } from "./support/apps.js";
import { json, virtRun } from "./support/cli.js";
import { sandbox } from "./support/env.js";
import { needs } from "./support/packages.js";
import { cycle, until } from "./support/pods.js";

leaveNothing(t);

const traced =
  "open,openat,creat,openat2,unlink,unlinkat,rmdir,rename,renameat,renameat2,link,linkat,symlink,symlinkat,mkdir,mkdirat," +
  "mknod,mknodat,chmod,fchmod,fchmodat,chown,lchown,fchown,fchownat,truncate,ftruncate,bind,connect,listen,sendto,execve";

const dates = { GIT_AUTHOR_DATE: "2026-01-01T00:00:00Z", GIT_COMMITTER_DATE: "2026-01-01T00:00:00Z" };
const env = { PATH: "/usr/bin:/bin", HOME: sandbox, LC_ALL: "C.UTF-8", GIT_CONFIG_NOSYSTEM: "1", ...dates };

/** Names that differ from run to run. */
function plain(name: string): string {
  return (
    name
      .replace(/^(tmp_obj|tmp_pack|tmp_idx|refs|packs)_\w+$/, "$1_*")
      .replace(/^\.tmp-\d+-/, ".tmp-*-")
      .replace(/^cc\w{6}\./, "cc*.")
      .replace(/^t\w{6}$/, "t*")
      // npm's and pip's caches and temporary files
      .replace(/^[0-9a-f]{2}$/, "xx")
      .replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{40,}/, "hex*")
      .replace(/^(pip-[a-z-]+)-\w{8}$/, "$1-*")
      .replace(/^(INSTALLER|RECORD|REQUESTED|direct_url.json)\w{8}\.tmp$/, "$1*.tmp")
      .replace(/^(.*\.pyc)\.\d+$/, "$1.*")
      .replace(/^[a-z0-9_]{8}$/, "r8*")
  );
}

/** Effects as strace shows them: "kind name", each once. */
function straced(directory: string): Set<string> {
  const out = new Set<string>();
  for (const file of readdirSync(directory)) {
    for (const line of readFileSync(join(directory, file), "utf8").split("\n")) {
      const match = /^(\w+)\((.*)\)\s+= (-?\d+)(?:<(.*?)>)?(?: (E\w+))?/.exec(line);
      if (!match) continue;
      const [, call = "", args = "", result = "", opened, error] = match;
      if (result === "-1" && error !== "EINPROGRESS") continue;
      const strings = [...args.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map((m) => m[1] as string);
      const descriptor = /^\d+<(.*?)>/.exec(args)?.[1];
      const inet =
        /sin_port=htons\((\d+)\), sin_addr=inet_addr\("([^"]+)"\)/.exec(args) ??
        /sin6_port=htons\((\d+)\).*inet_pton\(AF_INET6, "([^"]+)"/.exec(args);
      const local = /sun_path="([^"]+)"/.exec(args)?.[1];
      const add = (kind: string, path: string | undefined) => {
        if (path !== undefined && !/^\/(proc|dev|sys)\//.test(path)) out.add(`${kind} ${plain(basename(path))}`);
      };
      if (/^(open|creat)/.test(call)) {
        if (call === "creat" || /O_WRONLY|O_RDWR|O_CREAT|O_TRUNC/.test(args)) add("open", opened);
      } else if (/^(unlink|rmdir)/.test(call)) add("remove", strings[0]);
      else if (call.startsWith("rename")) add("rename", strings[1]);
      else if (/^(link|symlink)/.test(call)) add("make", strings[1]);
      else if (/^(mkdir|mknod)/.test(call)) add("make", strings[0]);
      else if (call.includes("chmod")) add("mode", strings[0] ?? descriptor);
      else if (call.includes("chown")) add("owner", strings[0] ?? descriptor);
      else if (call.includes("truncate")) add("truncate", strings[0] ?? descriptor);
      else if (call === "execve") add("execute", strings[0]);
      else if (inet && ["bind", "connect", "sendto"].includes(call))
        out.add(`${call} ${inet[2]}${call === "bind" ? "" : `:${inet[1]}`}`);
      else if (local !== undefined && ["bind", "connect"].includes(call)) add(call, local);
    }
  }
  return out;
}

function journalled(effects: Iterable<Effect>): Set<string> {
  const out = new Set<string>();
  for (const e of effects) {
    if (e.kind === "listen") continue; // strace shows its descriptor only
    if ("address" in e) {
      const kind = e.kind === "send" ? "sendto" : e.kind;
      out.add(`${kind} ${e.address}${kind === "bind" ? "" : `:${e.port}`}`);
    } else if (e.kind === "kill" || e.kind === "socket" || e.kind === "lost") continue;
    else if (e.kind === "rename") out.add(`rename ${plain(basename(e.to))}`);
    else out.add(`${e.kind === "create" || e.kind === "write" ? "open" : e.kind} ${plain(basename(e.path))}`);
  }
  return out;
}

/** It comes with Node; ours may be a copy that lies alone. */
const npm =
  [dirname(process.execPath), "/usr/local/bin", "/usr/bin"].map((d) => join(d, "npm")).find(existsSync) ?? "npm";

const web = createServer((_, response) => response.end("a page\n"));
t.before(() => new Promise<void>((resolve) => web.listen(0, "127.0.0.1", resolve)));
t.teardown(() => web.close());

const programs: Record<string, { needs: string[]; script: () => string }> = {
  "git commit": {
    needs: ["git"],
    script: () =>
      "git init -q . && echo text > file && git add file && git -c user.name=n -c user.email=e commit -qm one && " +
      "git mv file other && git -c user.name=n -c user.email=e commit -qm two && git gc -q",
  },
  make: {
    needs: ["make", "gcc"],
    script: () =>
      "printf 'all: a.o b.o\\n\\tgcc -o prog a.o b.o\\n%%.o: %%.c\\n\\tgcc -c $<\\nclean:\\n\\trm -f *.o prog\\n' > Makefile && " +
      "echo 'int f(void) { return 0; }' > a.c && echo 'int f(void); int main(void) { return f(); }' > b.c && " +
      "make -s && ./prog && make -s clean",
  },
  sqlite3: {
    needs: ["sqlite3"],
    script: () => "sqlite3 db 'create table t(x); insert into t values (1); insert into t values (2); drop table t'",
  },
  tar: {
    needs: ["tar"],
    script: () =>
      "mkdir in && cp /etc/passwd in/one && cp /etc/group in/two && ln -s one in/link && tar cf in.tar in && mkdir out && " +
      "tar xf in.tar -C out && rm -r in && mv out/in back",
  },
  "npm install": {
    needs: [],
    script: () =>
      'unset NODE_OPTIONS; mkdir lib && echo \'{"name":"lib","version":"1.0.0","bin":"cli.js"}\' > lib/package.json && echo text > lib/cli.js && ' +
      'echo \'{"name":"app","version":"1.0.0"}\' > package.json && ' +
      `${npm} install --offline --no-audit --no-fund --no-update-notifier --logs-max=0 --cache ./cache --install-links ./lib`,
  },
  "pip install": {
    needs: ["pip3"],
    script: () =>
      'mkdir lib && printf \'from setuptools import setup\nsetup(name="lib", version="1", py_modules=["mod"])\n\' > lib/setup.py && ' +
      "echo 'x = 1' > lib/mod.py && pip3 install -q --no-index --no-build-isolation --no-cache-dir --target here ./lib && " +
      "PYTHONPATH=here python3 -c 'import mod'",
  },
  curl: {
    needs: ["curl"],
    script: () => `curl -s -o page http://127.0.0.1:${(web.address() as AddressInfo).port}/ && cat page > copy`,
  },
};

for (const [name, { needs: required, script }] of Object.entries(programs)) {
  t.test(name, async (t) => {
    for (const program of required) needs(program);
    const [under, inside] = ["strace", "pod"].map((where) => {
      const directory = join(sandbox, `${name.replaceAll(" ", "-")}-${where}`);
      mkdirSync(directory);
      return directory;
    }) as [string, string];
    const log = join(sandbox, `${name.replaceAll(" ", "-")}-log`);
    mkdirSync(log);
    const strace = [needs("strace"), "-ff", "-y", "-s", "4096", "-e", `trace=${traced}`, "-o", join(log, "t")];
    const [tracer = "", ...options] = [...strace, "/bin/sh", "-c", script()];
    // The server is of this process, which must not wait for its client.
    await promisify(execFile)(tracer, options, { cwd: under, env });
    const pod = await launch("/bin/sh", ["-c", script()], { cwd: inside, env, stdio: "log", record: "default" });
    const exit = await pod.ended();
    t.match(exit, { code: 0 }, pod.logs().toString());
    const expected = straced(log);
    const found = journalled(pod.effects());
    pod.remove();
    t.ok(expected.size > 3, `${expected.size} effects`);
    t.strictSame(
      [...expected].filter((e) => !found.has(e)),
      [],
      "nothing is missing",
    );
    t.strictSame(
      [...found].filter((e) => !expected.has(e)),
      [],
      "nothing is made up",
    );
  });
}

t.test("the journal goes on without a supervisor, and after a reattach", async (t) => {
  const directory = join(sandbox, "goes-on");
  mkdirSync(directory);
  const script = "n=0; while :; do n=$((n+1)); echo $n > file-$n; rm file-$n; sleep 0.05; done";
  const { out: id } = await virtRun([
    ...["run", "-d", "--record", "default", "--name", "recorded", "-w", directory],
    ...["sh", "-c", script],
  ]);
  t.match(id, /^[0-9a-f]{12}\n$/);
  const count = async () =>
    ((await json("effects", "--summary", "recorded"))["summary"] as { programs: [] }).programs.length;
  await until("effects", async () => (await virtRun(["effects", "recorded"])).out.split("\n").length > 20);
  t.ok((await count()) >= 1);
  const lines = (await virtRun(["effects", "--json", "recorded"])).out.trim().split("\n");
  const effects = lines.map((line) => JSON.parse(line) as Effect);
  t.match(effects[0], { pid: 2, kind: "execute", path: /\/sh$/, call: "execve" });
  t.match(summarize(effects), { removed: [], servers: [] });
  t.ok(effects.some((e) => e.kind === "create" && e.path === join(directory, "file-1")));

  const { connect } = await import("virt-run");
  const again = await cycle(await connect("recorded"));
  await until("effects after the reattach", () => again.effects().length > 5);
  const after = again.effects();
  t.match(after[0], { pid: Number, kind: /create|remove|execute|open|write/ });
  t.notOk(
    after.some((e) => !("path" in e) || !(e.path.startsWith(directory) || e.kind === "execute")),
    "nothing of the rebuild is in it",
  );
  await again.destroy();
  again.remove();
});

t.test("both pids are told, the pod's own and the host's", async (t) => {
  for (const record of ["default", "none"] as const) {
    const pod = await launch("/bin/sleep", ["1000"], { stdio: "log", record });
    const [first] = (await pod.inspect()).processes ?? [];
    t.match(first, { pid: 2, command: ["/bin/sleep", "1000"] });
    const hostPid = first?.hostPid as number;
    t.equal(readFileSync(`/proc/${hostPid}/comm`, "utf8"), "sleep\n");
    t.match(await json("top", pod.id), { processes: [{ pid: 2, hostPid }] });
    t.match((await virtRun(["top", pod.id])).out, new RegExp(`\\b2 +${hostPid}\\b`));
    const told = new Promise((resolve) => pod.once("exit", (exit, process) => resolve({ ...exit, ...process })));
    t.match(await virtRun(["kill", "-s", "TERM", `${pod.id}:2`]), { code: 0 });
    t.match(await told, { signal: "SIGTERM", pid: 2, hostPid });
    await pod.ended();
    if (record === "default") t.match(pod.effects()[0], { kind: "execute", pid: 2, hostPid });
    pod.remove();
  }
});

t.test("what the journal says is shown, not obeyed; a damaged line is named", async (t) => {
  const directory = join(sandbox, "escape");
  mkdirSync(directory);
  const script = "touch \"$(printf 'a\\033]0;title\\007b')\"";
  const pod = await launch("/bin/sh", ["-c", script], { cwd: directory, stdio: "log", record: "default" });
  await pod.ended();
  const shown = (await virtRun(["effects", pod.id])).out;
  t.ok(shown.includes("a\\x1b]0;title\\x07b\n"), shown);
  t.notOk(shown.includes("\x1b"));
  t.ok((await virtRun(["effects", "--summary", pod.id])).out.includes("\\x1b]0;title"));
  t.ok([...pod.effects()].some((e) => "path" in e && basename(e.path) === "a\x1b]0;title\x07b"));
  const journal = join(podDirectory(pod.id), "journal");
  appendFileSync(journal, "null\n");
  const lines = readFileSync(journal, "utf8").split("\n").length - 1;
  t.throws(() => pod.effects(), { code: "ERR_JOURNAL", message: new RegExp(`line ${lines} `) });
  t.match(await virtRun(["effects", pod.id]), { code: 1, err: /ERR_JOURNAL/ });
  pod.remove();
});

t.test("with nothing to record nothing is interposed", async (t) => {
  const pod = await launch("/bin/sh", ["-c", "grep Seccomp_filters /proc/1/status"], {
    stdio: "log",
    record: "none",
  });
  await pod.ended();
  // A host may filter everything, us included.
  const own = /Seccomp_filters:\t\d+/.exec(readFileSync("/proc/self/status", "utf8"))?.[0];
  t.match(pod.logs().toString(), own ?? "nothing");
  t.strictSame([...pod.effects()], []);
  pod.remove();
});

t.test("interrupted and killed callers, many at once", async (t) => {
  const source = join(sandbox, "storm.c");
  writeFileSync(
    source,
    `#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
static void tick(int s) { (void)s; }
static void *work(void *arg) {
  char name[32];
  for (int i = 0; i < 300; i++) {
    snprintf(name, sizeof name, "t%ld-%d-%d", (long)arg, (int)getpid(), i);
    int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0600);
    if (fd < 0 || close(fd) != 0 || unlink(name) != 0) perror(name), exit(1);
  }
  return NULL;
}
int main(void) {
  struct sigaction a = {.sa_handler = tick, .sa_flags = SA_RESTART};
  struct itimerval often = {{0, 300}, {0, 300}};
  sigaction(SIGALRM, &a, NULL);
  setitimer(ITIMER_REAL, &often, NULL);
  for (int i = 0; i < 20; i++) {
    pid_t p = fork();
    if (p == 0) for (int n = 0;; n++) { int fd = open("victim", O_CREAT | O_WRONLY, 0600); close(fd); }
    usleep(2000);
    while (i == 0 && access("victim", F_OK) != 0) usleep(100); /* one of them at least has come to it */
    kill(p, SIGKILL);
    while (waitpid(p, NULL, 0) != p) {}
  }
  pthread_t t[4];
  for (long i = 0; i < 4; i++) pthread_create(&t[i], NULL, work, (void *)i);
  for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
  puts("survived");
  return 0;
}
`,
  );
  const storm = join(sandbox, "storm");
  execFileSync(needs("gcc"), ["-O1", "-o", storm, source, "-pthread"]);
  const directory = join(sandbox, "storm-here");
  mkdirSync(directory);
  const pod = await launch(storm, [], { cwd: directory, stdio: "log", record: "default" });
  t.match(await pod.ended(), { code: 0 }, pod.logs().toString());
  const { created, removed } = summarize(pod.effects());
  t.strictSame(
    created.map((path) => basename(path)),
    ["victim"],
    "made and removed are even",
  );
  t.strictSame(removed, []);
  t.equal(pod.effects().filter((e) => e.kind === "create").length, 1201, "each was seen");
  pod.remove();
});
