/**
 * Isolation against programs that try to get round it (test/isolation/*.c), with real programs in it, and through detach and
 * reattach: what was promised at launch holds for everything that ever runs in the pod.
 */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import t, { type Test } from "tap";
import { type Isolation, launch, openImage, type Pod, planReattach, reattach, VirtError } from "virt-run";
import { leaveNothing } from "./support/apps.js";
import { background, json, program, shell, virtRun, virtRunOnTerminal } from "./support/cli.js";
import { sandbox } from "./support/env.js";
import { needs } from "./support/packages.js";
import { cycle, imageName, logged, start, until } from "./support/pods.js";

leaveNothing(t);

const built = join(sandbox, "built");
const sources = new URL("isolation/", import.meta.url).pathname;
const secret = "nobody may read this";

t.before(() => {
  mkdirSync(built);
  for (const name of ["files", "network", "without"]) {
    const words = [
      "-O1",
      "-Wall",
      "-Wextra",
      "-Werror",
      "-o",
      join(built, name),
      join(sources, `${name}.c`),
      "-pthread",
    ];
    execFileSync("gcc", words, { stdio: ["ignore", "inherit", "inherit"] });
  }
});

interface Place {
  seen: string;
  work: string;
  file: string;
  socketDirectory: string;
  /** Rules, with everything else read only or as it is. */
  rules: Isolation;
  sealed: Isolation;
}

let places = 0;

/** What the program `files` is about, in a directory of its own. */
function place(): Place {
  const at = join(realpathSync(sandbox), `place${places++}`);
  const [seen, work] = [join(at, "seen"), join(at, "work")];
  mkdirSync(join(seen, "directory"), { recursive: true });
  mkdirSync(join(work, "sub/secrets"), { recursive: true });
  mkdirSync(join(work, "keep/deep"), { recursive: true });
  const file = join(seen, "file");
  writeFileSync(file, "as it was\n");
  writeFileSync(join(work, "keep/deep/file"), "as it was\n");
  writeFileSync(join(work, "sub/secret"), secret);
  writeFileSync(join(work, "sub/secrets/inner"), secret);
  copyFileSync(join(built, "files"), join(seen, "files"));
  chmodSync(join(seen, "files"), 0o755);
  const rules: Isolation = {
    readOnly: [seen, join(work, "keep/deep")],
    hide: [join(work, "sub/secret"), join(work, "sub/secrets")],
  };
  return {
    seen,
    work,
    file,
    socketDirectory: join(realpathSync(sandbox), "run", "virt-run"),
    rules,
    sealed: { ...rules, readOnly: ["/", ...(rules.readOnly ?? [])], writable: [work] },
  };
}

/** Options of the command line for rules. */
function words(rules: Isolation): string[] {
  return [
    ...(rules.readOnly ?? []).flatMap((path) => ["--ro", path]),
    ...(rules.writable ?? []).flatMap((path) => ["--rw", path]),
    ...(rules.hide ?? []).flatMap((path) => ["--hide", path]),
    ...(rules.network === "none" ? ["--no-net"] : []),
  ];
}

function quoted(list: string[]): string {
  return list.map((word) => `'${word}'`).join(" ");
}

const virtRunLine = `env -u NODE_OPTIONS '${process.execPath}' '${program}'`;

/** What came of the attempts, and that nothing was changed, seen from outside. */
function judge(t: Test, { seen, work, file }: Place, said: string, what: string, least = 120): void {
  const lines = said.split("\n");
  t.same(
    lines.filter((line) => line.startsWith("BROKEN")),
    [],
    `${what}: nothing got through`,
  );
  t.ok(lines.filter((line) => line.startsWith("held")).length >= least, `${what}: all was tried`);
  t.match(said, /^DONE$/m, `${what}: to the end`);
  t.notMatch(said, secret, what);
  t.equal(readFileSync(file, "utf8"), "as it was\n", what);
  t.equal(readFileSync(join(work, "keep/deep/file"), "utf8"), "as it was\n", what);
  t.equal(readFileSync(join(work, "sub/secret"), "utf8"), secret, what);
  t.same(readdirSync(seen).sort(), ["directory", "file", "files"], what);
}

/** Runs `files` in a pod that runs already, with a file of its own mounts as standard input. */
async function tryByExec(pod: Pod, at: Place): Promise<string> {
  const command = [join(at.seen, "files"), at.seen, at.work, at.socketDirectory];
  const { out, err } = await shell(`${virtRunLine} exec ${pod.id} ${quoted(command)} < '${at.file}' 2>&1`);
  return out + err;
}

t.test("files: every way round is closed", async (t) => {
  for (const [name, choose] of [
    ["some paths have rules", (p: Place) => p.rules],
    ["all is read only but one directory", (p: Place) => p.sealed],
  ] as const) {
    const at = place();
    const line = `${quoted(words(choose(at)))} -- ${quoted([join(at.seen, "files"), at.seen, at.work, at.socketDirectory])}`;
    const said = await shell(`cd '${at.seen}' && ${virtRunLine} run --record default ${line} < '${at.file}' 2>&1`);
    judge(t, at, said.out, `${name}, run`);

    const pod = await start("sleep", ["1000"], { cwd: at.seen, isolate: choose(at) });
    judge(t, at, await tryByExec(pod, at), `${name}, exec`);
    const again = await cycle(pod);
    judge(t, at, await tryByExec(again, at), `${name}, exec after a reattach`);
    t.same(again.record.isolate, pod.record.isolate, "the rules go along");
  }
});

t.test("files: a program that was there before the reattach is no freer after it", async (t) => {
  const at = place();
  const go = join(at.work, "go");
  const words = quoted([join(at.seen, "files"), at.seen, at.work, at.socketDirectory]);
  // Standard input is a handle that is opened again.
  const script = `exec < ${at.file}; echo READY; while [ ! -e ${go} ]; do sleep 0.05; done; rm ${go}; exec ${words}`;
  const pod = await start("sh", ["-c", script], { cwd: at.seen, isolate: at.sealed });
  await logged(pod, "READY");
  const again = await cycle(await cycle(pod));
  writeFileSync(go, "");
  await logged(again, "DONE");
  judge(t, at, again.logs().toString(), "itself");
  await again.ended();
});

t.test("standard streams do not lead out", async (t) => {
  const at = place();
  const [there, elsewhere] = [join(at.work, "there"), "/tmp/somewhere-else"];
  writeFileSync(there, "first\nsecond\n");
  const run = (redirection: string, script: string, rules = at.sealed) =>
    shell(`cd '${at.work}'; (${virtRunLine} run ${quoted(words(rules))} -- sh -c '${script}') ${redirection}`);
  t.match(await run(`< there 2>&1`, "cat; ls /proc/self/fd/0/"), { out: /^first\nsecond\n/ });
  t.match(await run(`< . 2>&1`, `ls /proc/self/fd/0/; touch /proc/self/fd/0/../seen/x`), { out: /keep[^]*Read-only/ });
  t.match(await run(`< ${at.seen} 2>&1`, "touch /proc/self/fd/0/x"), { out: /Read-only/ });
  t.match(await run(`< / 2>&1`, "touch /proc/self/fd/0/etc/x; echo $?"), { out: /Read-only[^]*1\n/ });
  t.match(await run(`> ../seen/directory/log 2>&1`, "echo said"), { code: 0 });
  t.equal(readFileSync(join(at.seen, "directory/log"), "utf8"), "said\n", "what is to be written is written");
  writeFileSync(elsewhere, "x");
  t.teardown(() => rmSync(elsewhere));
  t.match(await run(`< ${elsewhere} 2>&1`, "true"), {
    code: 125,
    out: /ERR_ISOLATION\)\n {2}let it come through a pipe/,
  });
  t.match(await run(`2>&1 < /dev/null | cat`, "echo through"), { out: "through\n" });
  const inOrder = await shell(`cd '${at.work}'; (read a; ${virtRunLine} run --ro '${at.seen}' -- cat) < there`);
  t.match(inOrder.out, "second\n", "from where it was");
});

t.test("files: the same program gets through where there are no rules", async (t) => {
  const at = place();
  const line = quoted([join(at.seen, "files"), at.seen, at.work, at.socketDirectory]);
  const { out } = await shell(`${virtRunLine} run ${line} < '${at.file}' 2>&1`);
  const broken = out.split("\n").filter((l) => l.startsWith("BROKEN"));
  t.ok(broken.length >= 20, `${broken.length} of its attempts`);
});

t.test("network: nothing outside can be reached", async (t) => {
  const tcp = createServer((socket) => socket.end()).listen(0, "127.0.0.1");
  const name = `virt-run-test-${process.pid}`;
  const abstract = createServer((socket) => socket.end()).listen(`\0${name}`);
  t.teardown(() => {
    tcp.close();
    abstract.close();
  });
  await until("the servers to listen", () => tcp.listening && abstract.listening);
  const { port } = tcp.address() as { port: number };
  const command = [join(built, "network"), String(port), name];
  const check = (said: { out: string; code: number | null }, what: string) => {
    t.match(said, { code: 0, out: /^DONE$/m }, what);
    t.notMatch(said.out, /BROKEN/, what);
  };
  check(await virtRun(["run", "--no-net", "--", ...command]), "run");
  check(await virtRun(["run", "--no-net", "--record", "default", "--", ...command]), "run, recorded");
  const pod = await start("sleep", ["1000"], { isolate: { network: "none" } });
  check(await virtRun(["exec", pod.id, ...command]), "exec");
  const again = await cycle(pod);
  check(await virtRun(["exec", again.id, ...command]), "exec after a reattach");
  const free = await virtRun(["run", "--", ...command]);
  t.match(free.out, /BROKEN a port of the host/, "without the rule it reaches the host");
  t.match(free.out, /BROKEN an abstract unix socket/);
});

t.test("real programs work in it, are detached and go on", async (t) => {
  const at = place();
  const git = needs("git");
  const script = `
    export HOME=/tmp; cd ${at.work} && ${git} init -q . && ${git} config user.email a@b && ${git} config user.name n
    i=0; while [ ! -e stop ]; do i=$((i+1)); echo $i > count; ${git} add count && ${git} commit -qm "commit $i" || exit 1
      echo "committed $i"; touch /etc/no 2>/dev/null && echo ESCAPED; sleep 0.05; done; ${git} fsck --strict && echo SOUND`;
  let pod = await start("sh", ["-c", script], { cwd: at.work, isolate: { readOnly: ["/"], writable: [at.work] } });
  const count = () =>
    pod
      .logs()
      .toString()
      .split("\n")
      .filter((l) => l.startsWith("committed ")).length;
  for (let n = 0; n < 2; n++) {
    const before = count();
    await until("commits", () => count() >= before + 3);
    pod = await cycle(pod);
  }
  writeFileSync(join(at.work, "stop"), "");
  await logged(pod, "SOUND");
  t.notMatch(pod.logs().toString(), /ESCAPED/);
  const exit = await pod.ended();
  t.equal(exit.code, 0);

  const python = needs("python3");
  const server = await start(python, ["-u", "-m", "http.server", "8000", "--bind", "127.0.0.1"], {
    cwd: at.work,
    isolate: { readOnly: ["/"], writable: [at.work], network: "none" },
  });
  const ask = async (p: Pod) => virtRun(["exec", p.id, needs("curl"), "-sS", "http://127.0.0.1:8000/count"]);
  await until("the server", async () => (await ask(server)).code === 0);
  t.match(await ask(server), { code: 0, out: /^\d+\n$/ });
  const busy = createServer().listen(8000, "127.0.0.1"); // the host's own is another
  t.teardown(() => busy.close());
  const again = await cycle(server);
  t.match(await ask(again), { code: 0, out: /^\d+\n$/ }, "it serves after a reattach");
  const outside = await virtRun(["exec", again.id, needs("curl"), "-sS", "-m", "5", "http://192.0.2.1/"]);
  t.not(outside.code, 0, "and is alone still");
  t.match(await virtRun(["exec", again.id, "touch", "/etc/no"]), { code: 1, err: /Read-only file system/ });
});

t.test("connections in a network of its own are reset there", async (t) => {
  const script = join(sandbox, "pair.py");
  writeFileSync(
    script,
    `import socket, time
l = socket.create_server(("127.0.0.1", 9000)); c = socket.create_connection(("127.0.0.1", 9000)); s, _ = l.accept()
u, v = socket.socketpair(); u.send(b"waiting"); print("READY", flush=True)
while True:
    time.sleep(0.02)
    try: c.send(b"x"); s.recv(1)
    except ConnectionResetError: break
print(v.recv(7).decode(), "PASS", flush=True)
`,
  );
  const pod = await start(needs("python3"), [script], { isolate: { network: "none" } });
  await logged(pod, "READY");
  await t.rejects(pod.detach({ image: imageName() }), { code: "ERR_BLOCKED" });
  const image = await pod.detach({ image: imageName(), tcp: "close" });
  const again = await reattach(image, { stdio: "log" });
  image.remove();
  await logged(again, "waiting PASS");
  await again.ended();
});

t.test("a directory of its own is empty, writable, and carried", async (t) => {
  const at = place();
  const script = `
    mkdir -p /tmp/d && echo kept > /tmp/d/file && chmod 640 /tmp/d/file && ln /tmp/d/file /tmp/d/other && ln -s d/file /tmp/link
    mkfifo /tmp/fifo; echo shm > /dev/shm/x; exec 5>>/tmp/d/open; echo first >&5; echo READY
    while [ ! -e go ]; do sleep 0.05; done
    echo second >&5; cat /tmp/link /dev/shm/x /tmp/d/open; stat -c '%a %h' /tmp/d/file; [ -p /tmp/fifo ] && echo FIFO; echo PASS`;
  let pod = await start("sh", ["-c", script], { cwd: at.work, isolate: { readOnly: ["/"], writable: [at.work] } });
  const log = await logged(pod, "READY");
  t.notOk(
    existsSync("/tmp/d/file") && statSync("/tmp/d/file").uid === process.geteuid?.(),
    "the host's has nothing of it",
  );
  t.notMatch(log, /No such file|Read-only/);
  const path = imageName();
  const image = await pod.detach({ image: path });
  t.same((await planReattach(path)).command.slice(0, 2), ["sh", "-c"]);
  await openImage(path);
  pod = await reattach(path, { stdio: "log" });
  writeFileSync(join(at.work, "go"), "");
  await logged(pod, "PASS");
  t.match(pod.logs().toString(), /kept\nshm\nfirst\nsecond\n640 2\nFIFO\nPASS/);
  await pod.ended();
  image.remove();
  const other = await start("ls", ["-A", "/tmp"], { cwd: at.work, isolate: { readOnly: ["/"], writable: [at.work] } });
  await other.ended();
  t.notMatch(other.logs().toString(), /^(d|link|fifo)$/m, "another pod has another");
});

t.test("who it says it is", async (t) => {
  const dbus = "/var/lib/dbus/machine-id";
  const dbusIsFile = existsSync(dbus) && lstatSync(dbus).isFile();
  const tell = `hostname; cat /etc/hostname /etc/machine-id ${dbusIsFile ? dbus : ""}; echo x 2>/dev/null > /etc/hostname; echo END`;
  const script = `${tell}; while [ ! -e ${sandbox}/tell-again ]; do sleep 0.05; done; ${tell}2`;
  const id = "0123456789abcdef0123456789abcdef";
  let pod = await start("sh", ["-c", script], { hostname: "another", machineId: id });
  const expected = ["another", "another", id, ...(dbusIsFile ? [id] : [])].join("\n");
  t.match(await logged(pod, "END"), expected);
  pod = await cycle(pod);
  writeFileSync(join(sandbox, "tell-again"), "");
  await logged(pod, "END2");
  t.equal(pod.logs().toString().split(expected).length, 3, "after a reattach too");
  t.match(await pod.inspect(), { hostname: "another", machineId: id, isolate: null });
  const random = await background("--machine-id", "random", "sleep", "1000");
  t.match(await json("inspect", random), { machineId: /^[0-9a-f]{32}$/ });
  t.match(await virtRun(["run", "--machine-id", "x", "true"]), { code: 125, err: /ERR_USAGE/ });
});

t.test("devices under other names", async (t) => {
  // Reads and writes what it has open and what it opens anew, once before it goes and once after.
  const look = `
    echo "open: $(head -c 3 <&5 | od -An -tx1)"; (echo x >&6) 2>/dev/null && echo "open: took it" || echo "open: is full"
    echo "anew: $(head -c 3 /dev/zero | od -An -tx1)"; (echo x >/dev/full) 2>/dev/null && echo "anew: took it" || echo "anew: is full"`;
  const script = (go: string) => `
    exec 5</dev/zero 6>/dev/full; ${look}; echo READY
    while [ ! -e ${go} ]; do sleep 0.05; done; ${look}; echo PASS`;
  const zeros = "00 00 00";
  const is = (zero: string, full: string) =>
    ["open", "anew"].map((when) => `${when}: ?${zero}\n${when}: ${full}\n`).join("");
  let n = 0;
  const at = place();
  for (const isolate of [undefined, { readOnly: ["/"], writable: [at.work] }]) {
    const options = { cwd: at.work, ...(isolate ? { isolate } : {}) };
    const go = join(at.work, `go${n++}`);
    let pod = await start("sh", ["-c", script(go)], options);
    t.match(await logged(pod, "READY"), new RegExp(is(` ${zeros}`, "is full")), "as the host has them");
    pod = await cycle(pod, { remap: { path: { "/dev/zero": "/dev/null", "/dev/full": "/dev/null" } } });
    writeFileSync(go, "");
    t.match(await logged(pod, "PASS"), new RegExp(`READY\n${is("", "took it")}`), "remapped at reattach");
    await pod.ended();

    const back = join(at.work, `go${n++}`);
    pod = await start("sh", ["-c", script(back)], { ...options, remap: { path: { "/dev/zero": "/dev/null" } } });
    t.match(await logged(pod, "READY"), new RegExp(is("", "is full")), "remapped at launch");
    pod = await cycle(pod);
    writeFileSync(back, "");
    t.match(await logged(pod, "PASS"), new RegExp(`READY\n${is("", "is full")}`), "and after a reattach");
    await pod.ended();

    // A terminal of the host's, kept by script(1), whose output shows what was written there.
    const terminal = virtRunOnTerminal(["version"], "stty -echo; tty; cat; exit; ");
    const [, tty] = await until("a terminal", () => /^(\/dev\/pts\/\d+)\r?$/m.exec(terminal.said.out));
    const last = join(at.work, `go${n++}`);
    const write = `exec 6>/dev/full; echo one >&6; echo READY; while [ ! -e ${last} ]; do sleep 0.05; done
      echo two >&6; echo three >/dev/full; echo PASS`;
    pod = await start("sh", ["-c", write], { ...options, remap: { path: { "/dev/full": tty as string } } });
    await logged(pod, "READY");
    pod = await cycle(pod);
    writeFileSync(last, "");
    await logged(pod, "PASS");
    await until("what was written to the terminal", () => /one\r?\ntwo\r?\nthree/.test(terminal.said.out));
    terminal.child.stdin?.write("\x04");
    await terminal.ended;
  }
});

t.test("rules hold for what is mounted below, and the deepest counts", async (t) => {
  const at = place();
  const data = join(at.work, "data");
  mkdirSync(join(data, "mine"), { recursive: true });
  const inside = join(at.seen, "directory");
  const script = `
    touch ${inside}/x && echo BROKEN; touch ${inside}/mine/x || echo LOST; ls ${at.work}/sub && echo BROKEN
    touch ${data}/mine/y || echo LOST; touch /tmp/z || echo LOST; rm /tmp/z; echo PASS`;
  const pod = await start("sh", ["-c", script], {
    cwd: "/",
    remap: { path: { [inside]: data } },
    isolate: { readOnly: [at.seen], writable: [join(inside, "mine"), join(data, "mine")], hide: [at.work] },
  });
  await logged(pod, "PASS");
  t.notMatch(pod.logs().toString(), /BROKEN|LOST/);
  t.same(readdirSync(join(data, "mine")).sort(), ["x", "y"]);
  await pod.ended();
});

t.test("a working directory in /tmp is seen, and an own directory may be closed to all", async (t) => {
  const at = place();
  const script =
    "mkdir -m 0 /tmp/closed && mkdir -p /tmp/open/in && chmod 0 /tmp/open; cat file; touch new; exec sleep 1000";
  const pod = await start("sh", ["-c", script], { cwd: at.seen, isolate: { readOnly: ["/"] } });
  t.match(await logged(pod, "Read-only"), /as it was/);
  await pod.destroy();
  pod.remove();
  t.notOk(existsSync(join(sandbox, "state", "virt-run", "pods", pod.id)));

  const above = realpathSync(sandbox);
  const list = `ls ${at.socketDirectory} ${join(above, "state", "virt-run", "pods")}; ls ${at.seen}; echo PASS`;
  const looking = await start("sh", ["-c", list], { cwd: above, isolate: { readOnly: ["/"], hide: [at.work] } });
  const log = await logged(looking, "PASS");
  t.match(log, /^file$/m);
  t.notMatch(log, /\.sock|^[0-9a-f]{12}$/m, "what commands pods is hidden there too");
  await looking.ended();
  const devices = ["/dev/shm", "/dev/random"].filter(existsSync);
  const none = await start("sh", ["-c", "cat /dev/random; ls /dev/shm; : > /dev/null && echo PASS"], {
    isolate: { readOnly: ["/"], writable: [above], hide: devices },
  });
  t.match(await logged(none, "PASS"), /denied|cannot|^PASS/);
  await none.ended();
  const hidden = start("true", [], { cwd: at.work, isolate: { readOnly: ["/"], hide: [at.work] } });
  await t.rejects(hidden, { code: "ERR_LAUNCH", message: /working directory/ });
});

t.test("rules that cannot be are refused before anything is made", async (t) => {
  const at = place();
  symlinkSync(at.seen, join(at.work, "link"));
  const pods = join(sandbox, "state", "virt-run", "pods");
  const cases: [Isolation, string, RegExp][] = [
    [{ readOnly: ["relative"] }, "ERR_USAGE", /not absolute/],
    [{ hide: ["./x"] }, "ERR_USAGE", /not absolute/],
    [{ writable: [join(at.work, "nothing")] }, "ERR_ISOLATION", /does not exist/],
    [{ readOnly: [at.work], writable: [at.work] }, "ERR_ISOLATION", /both/],
    [{ readOnly: [at.seen], hide: [join(at.work, "link")] }, "ERR_ISOLATION", /both/],
    [{ hide: ["/"] }, "ERR_ISOLATION", /cannot be hidden/],
    [{ hide: ["/proc"] }, "ERR_ISOLATION", /the pod's own/],
    [{ writable: ["/proc/sys"] }, "ERR_ISOLATION", /the pod's own/],
    [{ network: "some" as "none" }, "ERR_USAGE", /no network/],
  ];
  const before = existsSync(pods) ? readdirSync(pods).sort() : [];
  for (const [isolate, code, message] of cases) {
    const e = await launch("true", [], { isolate }).then(
      () => undefined,
      (error: VirtError) => error,
    );
    t.match(e, { code, message }, message.source);
    t.ok(e instanceof VirtError && e.hint !== "", "with a cure");
  }
  t.same(existsSync(pods) ? readdirSync(pods).sort() : [], before, "nothing was made");
  t.match(await virtRun(["run", "--ro", "x", "true"]), { code: 125, err: /ERR_USAGE/ });
});

t.test("a kernel that cannot do it is refused by name", async (t) => {
  const at = place();
  for (const [number, call] of [
    [442, "mount_setattr"],
    [437, "openat2"],
  ] as const) {
    const without = (rules: Isolation) =>
      shell(`${join(built, "without")} ${number} ${virtRunLine} run ${quoted(words(rules))} -- echo it runs`);
    for (const rules of [at.sealed, { readOnly: [at.seen] }]) {
      const said = await without(rules);
      t.match(said, { code: 125, out: "", err: /ENOSYS \(ERR_KERNEL_FEATURE\)\n {2}`virt-run doctor`/ }, call);
    }
    t.match(await without({}), { code: 0, out: "it runs\n" }, "without rules it is not needed");
  }
  const doctor = await shell(`${join(built, "without")} 442 ${virtRunLine} doctor`);
  t.match(doctor.out, /isolation .*cannot be had \(ENOSYS\)/);
});

t.test("what inspect and doctor say of it", async (t) => {
  const at = place();
  const id = await background(...words({ ...at.sealed, network: "none" }), "-w", at.work, "sleep", "1000");
  const isolate = { readOnly: at.sealed.readOnly, writable: [at.work], hide: at.rules.hide, network: "none" };
  t.match(await json("inspect", id), { isolate });
  t.match((await virtRun(["inspect", id])).out, /^isolate .*"network":"none"/m);
  const path = imageName();
  t.match(await virtRun(["detach", id, "-o", path]), { code: 0 });
  t.match((await virtRun(["inspect", path])).out, /^read-only {4}\/\n(.*\n)*network {6}none$/m);
  t.match(((await json("inspect", path)) as { pod: unknown }).pod, { isolate });
  const { findings } = (await json("doctor")) as { findings: { name: string; ok: boolean }[] };
  t.match(
    findings.find(({ name }) => name === "isolation"),
    { ok: true },
  );
});
