/**
 * The command line as a user sees it: words in; output, messages and exit codes out.
 */
import { once } from "node:events";
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { connect, list } from "virt-run";
import { freePort, leaveNothing } from "./support/apps.js";
import { background, json, program, shell, virtRun, virtRunning } from "./support/cli.js";
import { sandbox } from "./support/env.js";
import { needs } from "./support/packages.js";
import { sleep, start, until } from "./support/pods.js";

leaveNothing(t);

const counter = 'i=0; while :; do echo "n $i"; i=$((i+1)); sleep 0.02; done';

function counted(text: string): number {
  return Number(text.trim().split("\n").at(-1)?.split(" ")[1] ?? -1);
}

t.test("exit codes when launching", async (t) => {
  const cases: [string[], number, RegExp][] = [
    [["true"], 0, /^$/],
    [["sh", "-c", "exit 7"], 7, /^$/],
    [["--", "sh", "-c", "exit 255"], 255, /^$/],
    [["sh", "-c", "kill -TERM $$"], 143, /^$/],
    [["run", "sh", "-c", "kill -KILL $$"], 137, /^$/],
    [["no-such-program"], 127, /^virt-run: no-such-program: not found \(ERR_NOT_FOUND\)\n/],
    [["run", "--rm", "./no-such-program"], 127, /ERR_NOT_FOUND/],
    [[sandbox], 126, /ERR_NOT_EXECUTABLE/],
    [["run", "--no-such-option", "true"], 125, /--no-such-option/],
    [["run"], 125, /command/],
    [["run", "--name", "-/-", "true"], 125, /ERR_USAGE/],
    [
      ["run", "-w", "/no/such/directory", "true"],
      125,
      /working directory: ENOENT \(ERR_LAUNCH\)\n {2}the directory must exist/,
    ],
    [["exec", "no-such-pod", "true"], 125, /ERR_POD_NOT_FOUND/],
    [["reattach", "no-such-image"], 125, /\(ERR_[A-Z_]+\)\n {2}\S/],
  ];
  for (const [words, code, message] of cases) {
    const said = await virtRun(words);
    t.match(said, { code, err: message, out: /^$/ }, words.join(" "));
  }
});

t.test("exit codes and cures of verbs that manage", async (t) => {
  const cases: [string[], number, RegExp][] = [
    [["inspect", "no-such-pod"], 1, /ERR_/],
    [["stop", "no-such-pod"], 1, /virt-run: there is no pod 'no-such-pod' \(ERR_POD_NOT_FOUND\)\n {2}`virt-run ps -a`/],
    [["stop"], 2, /which pod\?.*\(ERR_USAGE\)/],
    [["ps", "--no-such-option"], 2, /--no-such-option/],
    [["ps", "excess"], 2, /argument/],
    [["detach", "no-such-pod", "--tcp", "sometimes"], 2, /none of hold, close, reconnect/],
    [["kill", "no-such-pod"], 1, /ERR_POD_NOT_FOUND/],
    [["verify", "no-such-image"], 1, /\(ERR_[A-Z_]+\)\n {2}\S/],
    [["help", "no-such-verb"], 2, /no verb/],
    [["completion", "no-such-shell"], 2, /bash, zsh or fish/],
  ];
  for (const [words, code, message] of cases) t.match(await virtRun(words), { code, err: message }, words.join(" "));
  const { error } = (await json("inspect", "no-such-pod")) as { error: { code: string; message: string } };
  t.match(error, { code: /^ERR_/, message: /no-such-pod/ }, "with --json an error is an object");
  const usage = await virtRun(["ps", "--json", "--no-such-option"]);
  t.match(usage, { code: 2, err: "" }, "a usage error too");
  t.match(JSON.parse(usage.out), { schemaVersion: 1, error: { code: "ERR_USAGE", message: /--no-such-option/ } });
});

t.test("help, version, completion, doctor, lists of nothing", async (t) => {
  const help = await virtRun(["help"]);
  const verbs = [...help.out.matchAll(/^ {2}([a-z]+) {2,}\S/gm)].map(([, verb]) => verb as string);
  t.ok(verbs.length >= 20, `${verbs.length} verbs: ${verbs.join(" ")}`);
  for (const verb of verbs) {
    const said = await virtRun([verb, "--help"]);
    t.match(said, { code: 0, err: "", out: new RegExp(`^Usage: virt-run ${verb}`) }, `${verb} --help`);
    if (verb === "detach") t.equal((await virtRun(["help", verb])).out, said.out, `help ${verb}`);
  }
  t.equal((await virtRun([])).out, help.out, "no words at all");
  t.equal((await virtRun(["--help"])).out, help.out);
  const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
    version: string;
  };
  t.match(await virtRun(["--version"]), { code: 0, out: `virt-run ${version}\n` });
  t.match(await json("version"), { version });
  for (const shell of ["bash", "zsh", "fish"])
    t.match(await virtRun(["completion", shell]), { code: 0, out: /reattach/ }, `completion ${shell}`);
  const script = `${(await virtRun(["completion", "bash"])).out}
    COMP_WORDS=(virt-run reatt); COMP_CWORD=1; _virt_run; echo "\${COMPREPLY[@]}"
    COMP_WORDS=(virt-run detach --out); COMP_CWORD=2; _virt_run; echo "\${COMPREPLY[@]}"`;
  t.match(await virtRun(["bash", "-c", script]), { code: 0, out: /^reattach\n--output\n$/ }, "in a shell it completes");
  t.match(await virtRun(["doctor"]), { code: 0, out: /virt-run works here/ });
  t.match(await json("doctor"), { ok: true, findings: Array });
  t.strictSame((await json("ps"))["pods"], []);
  t.strictSame((await json("images"))["images"], []);
  t.match(await json("prune"), { partialImages: [] });
});

t.test("run: options", async (t) => {
  writeFileSync(join(sandbox, "variables"), "# a comment\nFROM_FILE=file\nBOTH=file\n");
  const env = { ...process.env, PASSED: "passed" };
  const words = ["-e", "GIVEN=a b", "-e", "PASSED", "-e", "BOTH=option", "--env-file", join(sandbox, "variables")];
  const print = "echo $GIVEN/$PASSED/$FROM_FILE/$BOTH/$PWD/$(hostname)";
  const said = await virtRun(["run", ...words, "-w", "/usr", "--hostname", "elsewhere", "sh", "-c", print], { env });
  t.match(said, { code: 0, out: "a b/passed/file/option//usr/elsewhere\n", err: "" });
  t.match(await virtRun(["--name", "short", "sh", "-c", "exit 3"]), { code: 3 }, "without the word run");
  t.match(await virtRun(["--", "ps", "--version"]), { code: 0, out: /procps/ }, "-- ps is the program");

  writeFileSync(join(sandbox, "other"), "from elsewhere\n");
  const remap = `path:/etc/hostname=${join(sandbox, "other")}`;
  t.match(await virtRun(["run", "--remap", remap, "cat", "/etc/hostname"]), { code: 0, out: "from elsewhere\n" });

  mkdirSync(join(sandbox, "somewhere"));
  writeFileSync(join(sandbox, "somewhere", "f"), "at the root\n");
  const absent = `path:/virt-run-absent/data=${join(sandbox, "somewhere")}`;
  const shown = await virtRun(["run", "--remap", absent, "sh", "-c", `cat /virt-run-absent/data/f; ls -d ${sandbox}`]);
  t.match(shown, { code: 0, out: `at the root\n${sandbox}\n` }, "a path under / that the host has not");
  t.match(await virtRun(["run", "--remap", "path:/mnt=/virt-run-absent", "true"]), { code: 125, err: /ERR_REMAP/ });

  const before = (await json("ps", "-a"))["pods"] as unknown[];
  t.match(await virtRun(["run", "--rm", "true"]), { code: 0 });
  t.equal(((await json("ps", "-a"))["pods"] as unknown[]).length, before.length, "--rm leaves no record");
  t.match(await virtRun(["run", "-d", "--rm", "--name", "brief", "sleep", "100"]), { code: 0 });
  t.match(await virtRun(["exec", "brief", "true"]), { code: 0 });
  t.match(await json("ps", "--filter", "name=brief"), { pods: [{ state: "running" }] }, "not forgotten while it runs");
  t.match(await virtRun(["stop", "brief"]), { code: 0 });
  t.equal(((await json("ps", "-a"))["pods"] as unknown[]).length, before.length, "forgotten after");

  const status = virtRunning(["run", "--status-fd", "3", "sh", "-c", "exit 4"], {
    input: "",
    stdio: ["pipe", "pipe", "pipe", "pipe"],
  });
  let events = "";
  status.child.stdio[3]?.on("data", (bytes: Buffer) => {
    events += bytes;
  });
  t.match(await status.ended, { code: 4 });
  t.match(
    events
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as unknown),
    [
      { event: "started", id: String },
      { event: "exited", code: 4, signal: null },
    ],
  );
});

t.test("streams: piped, inherited, large, and a closed one", async (t) => {
  const text = "0123456789abcdef".repeat(1 << 16);
  const cat = await virtRun(["cat"], { input: text });
  t.match({ ...cat, out: cat.out.length }, { code: 0, signal: null, err: "", out: text.length }, "1 MiB and back");
  t.ok(cat.out === text, "the same bytes");
  t.match(await virtRun(["sh", "-c", "echo out; echo err >&2; exit 2"]), { code: 2, out: "out\n", err: "err\n" });
  const piped = virtRunning(["sh", "-c", "while read a; do echo got $a; done"]);
  piped.child.stdin?.write("one\n");
  await until("the first answer", () => piped.said.out === "got one\n");
  piped.child.stdin?.end("two\n");
  t.match(await piped.ended, { code: 0, out: "got one\ngot two\n" });
  t.match(await virtRun(["run", "--rm", "sh", "-c", "readlink /proc/$$/fd/0"], { stdio: ["ignore", "pipe", "pipe"] }), {
    out: "/dev/null\n",
  });
  const id = await background("cat");
  t.match(await virtRun(["wait", id]), { code: 0, out: "0\n" }, "in the background there is no input");
  const open = await background("-i", "cat");
  t.match(await json("inspect", open), { state: "running" }, "with -i it stays open");
  await virtRun(["rm", "-f", open]);
});

t.test("signals are passed on", async (t) => {
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGQUIT"] as const) {
    const name = signal.slice(3);
    const script = `trap 'echo had ${name}; exit 9' ${name}; echo ready; while :; do sleep 0.02; done`;
    const run = virtRunning(["bash", "-c", script]);
    await until("it to be ready", () => run.said.out.includes("ready"));
    run.child.kill(signal);
    t.match(await run.ended, { code: 9, out: `ready\nhad ${name}\n` }, signal);
  }
  const run = virtRunning(["sleep", "1000"]);
  await until("it to run", async () => (await list()).length === 1);
  run.child.kill("SIGTERM");
  t.match(await run.ended, { code: 143, signal: null }, "and end a program that does not handle them");
});

t.test("a pod's life: ps, inspect, top, logs, exec, kill, stop, wait, rm", async (t) => {
  const id = await background(
    "--name",
    "life",
    "--label",
    "colour=blue",
    "bash",
    "-c",
    `trap 'exit 5' TERM; ${counter}`,
  );
  t.match(id, /^[0-9a-f]{12}$/);
  t.match((await json("ps"))["pods"], [{ id, name: "life", state: "running", processes: Number, ageMs: Number }]);
  t.match((await virtRun(["ps"])).out, /^ID +NAME +STATE +COMMAND +PROCESSES +AGE\n.* life +running +bash -c/);
  t.equal((await virtRun(["ps", "-q", "--filter", "colour=blue"])).out, `${id}\n`);
  t.equal((await virtRun(["ps", "-q", "--filter", "colour=red"])).out, "");
  t.match(await json("inspect", "life"), { id, state: "running", labels: { colour: "blue" }, processes: Array });
  t.match(await json("inspect", id.slice(0, 6)), { id }, "by a prefix of its id");
  t.match(await json("inspect", "-l"), { id }, "by --latest");
  t.match((await virtRun(["inspect", "li"])).out, /pid 2:\n {2}fd 0 /, "by a prefix of its name");
  t.match((await json("top", "life"))["processes"], [{ pid: 2, ppid: 1, command: ["bash"] }]);
  t.match((await virtRun(["top", "life"])).out, /^PID +HOST PID/);
  t.match(await virtRun(["run", "-d", "--name", "life", "true"]), { code: 125, err: /ERR_NAME_TAKEN/ });

  await until("it to count", async () => counted((await virtRun(["logs", "life"])).out) > 3);
  const follow = virtRunning(["logs", "-f", "life"]);
  const seen = counted((await virtRun(["logs", "life"])).out);
  await until("logs -f to go on", () => counted(follow.said.out) > seen + 5);

  t.match(await virtRun(["exec", "life", "sh", "-c", "cat; exit 6"], { input: "typed" }), { code: 6, out: "typed" });
  t.match(await virtRun(["exec", "-e", "A=b", "-w", "/usr", "life", "sh", "-c", "echo $A $PWD"]), { out: "b /usr\n" });
  t.match(await virtRun(["exec", "life", "no-such-program"]), { code: 127, err: /ERR_NOT_FOUND/ });
  t.match(await virtRun(["exec", "life", "sh", "-c", "kill -9 $$"]), { code: 137 });
  t.match(await virtRun(["rm", "life"]), { code: 1, err: /ERR_POD_RUNNING.*\n.*-f/ });
  t.match(await virtRun(["kill", "-s", "WINCH", "life"]), { code: 0 });
  t.match(await virtRun(["check", "life"]), { code: 0, out: /nothing stands in the way/ });

  const waiting = virtRunning(["wait", "life"]);
  t.match(await virtRun(["stop", "-t", "5", "life"]), { code: 0, out: "life\n" });
  t.match(await waiting.ended, { code: 0, out: "5\n" });
  t.match(await follow.ended, { code: 0 }, "logs -f ends with the pod");
  t.match(await virtRun(["wait", "life"]), { code: 0, out: "5\n" }, "also when it is over");
  t.match((await json("ps", "-a", "--filter", "name=life"))["pods"], [{ state: "exited" }]);
  t.match(await virtRun(["kill", "life"]), { code: 1, err: /ERR_POD_GONE/ });
  t.match(await virtRun(["rm", "life"]), { code: 0, out: "life\n" });
  t.match(await virtRun(["inspect", "life"]), { code: 1 });

  await background("--name", "deaf", "bash", "-c", `trap '' TERM; ${counter}`);
  t.match(await virtRun(["stop", "-t", "0.2", "deaf"]), { code: 0 }, "stop kills what does not listen");
  t.equal((await virtRun(["wait", "deaf"])).out, "137\n");
  await background("--name", "told", "sleep", "1000");
  t.match(await json("kill", "-s", "WINCH", "told"), { schemaVersion: 1, pods: [{ name: "told", signal: "WINCH" }] });
  t.match(await json("stop", "told"), { pods: [{ name: "told", exit: { code: null, signal: "SIGTERM" } }] });
  t.match(await json("wait", "told"), { pods: [{ name: "told", exit: { signal: "SIGTERM" } }] });
  t.match(await json("rm", "told", "deaf"), { pods: [{ name: "told" }, { name: "deaf" }] });
});

t.test("images: detach, snapshot, verify, check, dry run, reattach", async (t) => {
  // Not bash: it goes on after an interrupt that finds its child just ended.
  const id = await background("--name", "mover", "sh", "-c", counter);
  await until("it to count", async () => counted((await virtRun(["logs", "mover"])).out) > 3);
  const snapshot = (await json("snapshot", "mover", "-o", "copy"))["image"] as Record<string, unknown>;
  t.match(snapshot, { name: "copy", kind: "snapshot", stoppedMs: Number, sizeBytes: Number, accepted: [] });
  t.match((await json("ps"))["pods"], [{ id, state: "running" }], "after a snapshot it runs on");

  const path = join(sandbox, "mover.image");
  const detached = await virtRun(["detach", "mover", "-o", path]);
  t.match(detached, { code: 0, out: `${path}\n`, err: /stopped for \d+ ms, then let go/ });
  t.match(await virtRun(["detach", "mover"]), { code: 1, err: /ERR_POD_GONE/ });
  t.match((await json("ps", "-a", "--filter", "name=mover"))["pods"], [{ id, state: "detached" }]);
  t.match(await virtRun(["wait", "mover"]), { out: "125\n" });
  t.match((await json("images"))["images"], [{ name: "copy", pod: "mover" }]);
  t.equal((await virtRun(["images", "-q"])).out, "copy\n");
  for (const image of ["copy", path]) {
    t.match(await json("verify", image), { ok: true });
    t.match(await json("check", image), { ok: true, blockers: [] });
    t.match(await json("inspect", image), { processes: Array, handles: Array });
    t.match((await json("reattach", image, "--dry-run"))["plan"], { name: "mover", processes: [{ pid: 2 }] });
  }
  t.match((await virtRun(["reattach", path, "--dry-run"])).out, /would become pod mover/);
  t.strictSame(await list(), [], "a dry run makes nothing");

  const before = counted((await virtRun(["logs", "mover"])).out);
  const again = await virtRun(["reattach", path, "-d"]);
  t.match(again, { code: 0, out: /^[0-9a-f]{12}\n$/ });
  await until("it to go on", async () => counted((await virtRun(["logs", "mover"])).out) > before + 5);
  t.match(await virtRun(["reattach", "copy", "-d"]), { code: 125, err: /ERR_NAME_TAKEN.*\n.*--name/ });
  t.match(await virtRun(["restore", "copy", "-d", "--name", "second"]), { code: 0 });
  t.match((await json("ps"))["pods"], [{ name: "mover" }, { name: "second" }]);
  t.match(await virtRun(["rm", "-f", "mover", "second"]), { code: 0 });

  // An interrupt stops the reattach, or the program once it runs; neither leaves anything, whenever it comes.
  for (let n = 0; n < 8; n++) {
    const interrupted = virtRunning(["reattach", "copy"]);
    await sleep(60 + 40 * n);
    interrupted.child.kill("SIGINT");
    const end = await interrupted.ended;
    t.ok(end.code === 130 || end.signal === "SIGINT" || end.err.includes("ERR_ABORTED"), JSON.stringify(end));
    t.strictSame((await json("ps"))["pods"], [], `after an interrupt at ${60 + 40 * n} ms`);
  }
  t.match(await json("prune"), { pods: Array });

  const part = readdirSync(path).find((name) => name.startsWith("pages") && !name.endsWith(".sum")) as string;
  const bytes = readFileSync(join(path, part));
  bytes[100] = (bytes[100] as number) ^ 1;
  chmodSync(join(path, part), 0o600);
  writeFileSync(join(path, part), bytes);
  t.match(await virtRun(["verify", path]), { code: 1, err: /\(ERR_IMAGE_[A-Z]+\)/ }, "a damaged image is found");
  t.match(await virtRun(["reattach", path, "-d"]), { code: 125, err: /\(ERR_IMAGE_[A-Z]+\)/ });
  t.strictSame(await list(), []);
});

t.test("reattach in the foreground: streams, exit code, --remap, changed files", async (t) => {
  const [here, there] = ["here", "there"].map((name) => join(sandbox, `${name}.txt`)) as [string, string];
  writeFileSync(here, "begun\n");
  const script = `exec 3>>${here}; echo started; read line; echo "got $line"; echo more >&3; exit 8`;
  const run = virtRunning(["run", "--name", "writer", "bash", "-c", script]);
  await until("it to start", () => run.said.out === "started\n");
  t.match(await virtRun(["detach", "writer", "-o", "writer", "-q"]), { code: 0, err: "" });
  t.match(await run.ended, { code: 125, err: /was detached; `virt-run reattach` brings it back/ });

  writeFileSync(there, "begun\nchanged meanwhile\n");
  const refused = await virtRun(["reattach", "writer", "-d", "--remap", `path:${here}=${there}`]);
  t.match(refused, { code: 125, err: /ERR_CHANGED_FILE/ });
  const words = ["reattach", "writer", "--remap", `path:${here}=${there}`, "--allow-changed", "*"];
  const again = virtRunning(words);
  again.child.stdin?.write("typed\n");
  t.match(await again.ended, { code: 8, err: "", out: /got typed\n$/ });
  t.equal(readFileSync(there, "utf8"), "begun\nchanged meanwhile\nmore\n");
  t.equal(readFileSync(here, "utf8"), "begun\n", "the old one is not touched");
});

t.test("detach -o - | reattach -", async (t) => {
  for (const compress of [[], ["--compress", "zstd"]]) {
    await background("--name", "piped", "bash", "-c", counter);
    await until("it to count", async () => counted((await virtRun(["logs", "piped"])).out) > 3);
    const node = `/usr/bin/env -u NODE_OPTIONS '${process.execPath}' '${program}'`;
    const line = `${node} detach piped -o - ${compress.join(" ")} | ${node} reattach - -d --name arrived`;
    const piped = await shell(line);
    t.match(piped, { code: 0, out: /^[0-9a-f]{12}\n$/ });
    const before = counted((await virtRun(["logs", "arrived"])).out);
    await until("it to go on", async () => counted((await virtRun(["logs", "arrived"])).out) > before + 5);
    t.match(await virtRun(["rm", "-f", "arrived"]), { code: 0 });
    t.match(await virtRun(["images", "-q"]), { out: /^(copy\n|writer\n)*$/ }, "no image is left");
  }
});

t.test("a pod that cannot be detached runs on, and says why", async (t) => {
  const port = await freePort();
  const talk = `import socket, time
a = socket.create_server(("127.0.0.1", ${port})); b = socket.create_connection(("127.0.0.1", ${port})); c = a.accept()[0]
import ctypes; fd = ctypes.CDLL(None).inotify_init(); print("ready", flush=True); time.sleep(1000)`;
  await background("--name", "stuck", needs("python3"), "-c", talk);
  await until("it to be ready", async () => (await virtRun(["logs", "stuck"])).out === "ready\n");
  t.match(await virtRun(["check", "stuck"]), { code: 1, out: /pid 2, fd \d+ .*inotify.*\[ERR_[A-Z_]+\]/ });
  t.match(await json("check", "stuck"), { ok: false, blockers: [{ code: /^ERR_/, pid: 2, fd: Number }] });
  t.match(await virtRun(["detach", "stuck"]), { code: 1, err: /ERR_BLOCKED.*pid 2, fd \d+/s });
  t.match((await json("detach", "stuck"))["error"], { code: "ERR_BLOCKED", blockers: [{ code: /^ERR_/ }] });
  t.match((await json("ps"))["pods"], [{ name: "stuck", state: "running" }]);
});

t.test("no Node process stays, and init is small", async (t) => {
  const id = await background("sleep", "1000");
  const { initPid } = (await json("inspect", id)) as { initPid: number };
  t.ok(statSync(`/proc/${initPid}`).isDirectory());
  const rss = Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${initPid}/status`, "utf8"))?.[1]);
  t.ok(rss > 0 && rss <= 3 * 1024, `init has ${rss} KiB`);
  const nodes = readdirSync("/proc").filter((pid) => {
    try {
      return (
        readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(program) &&
        readFileSync(`/proc/${pid}/environ`, "utf8").includes(sandbox) &&
        !/^[ZX]/.test(state(pid))
      );
    } catch {
      return false; // not a process, or gone
    }
  });
  t.strictSame(nodes, []);
});

function state(pid: string): string {
  return /^State:\s*(\S)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "?";
}

t.test("the supervisor is killed: the pod does not notice", async (t) => {
  const log = join(sandbox, "unwatched");
  const run = virtRunning(["run", "--name", "unwatched", "bash", "-c", `{ ${counter}; } >${log}`]);
  const count = () => counted(readFileSync(log, { encoding: "utf8", flag: "a+" }));
  await until("it to count", () => count() > 3);
  run.child.kill("SIGKILL");
  await once(run.child, "exit"); // its streams stay open: the pod has them
  t.equal(run.child.signalCode, "SIGKILL");
  const before = count();
  await until("it to go on", () => count() > before + 5);
  t.match((await json("ps"))["pods"], [{ name: "unwatched", state: "running" }]);
  t.match(await virtRun(["detach", "unwatched", "-o", "unwatched"]), { code: 0 });
  t.match(await virtRun(["reattach", "unwatched", "-d"]), { code: 0 });
  const after = count();
  await until("it to go on", () => count() > after + 5);
  t.match(await virtRun(["stop", "unwatched"]), { code: 0 });
});

t.test("the SDK's pods and ours are the same", async (t) => {
  const sdk = await start("sleep", ["1000"], { name: "by-sdk" });
  t.match((await json("ps"))["pods"], [{ id: sdk.id, name: "by-sdk" }]);
  t.match(await virtRun(["kill", "-s", "INT", "by-sdk"]), { code: 0 });
  t.match(await sdk.ended(), { signal: "SIGINT" });
  const id = await background("--name", "by-cli", "bash", "-c", "exit 11");
  const pod = await connect("by-cli");
  t.equal(pod.id, id);
  t.match(await pod.ended(), { code: 11 });
});
