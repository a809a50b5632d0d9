/**
 * Life in isolated pods: real programs, directories and a network of their own, names, devices; through detach and reattach.
 */
import { existsSync, lstatSync, realpathSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import t from "tap";
import { openImage, type Pod, planReattach, reattach } from "virt-run";
import { leaveNothing } from "./support/apps.js";
import { background, json, virtRun, virtRunOnTerminal } from "./support/cli.js";
import { sandbox } from "./support/env.js";
import { buildAttempts, place } from "./support/isolation.js";
import { needs } from "./support/packages.js";
import { cycle, imageName, logged, sleep, start, until } from "./support/pods.js";

leaveNothing(t);
t.before(buildAttempts);

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

t.test("connections in a network of its own go on, or are reset there", async (t) => {
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
  const kept = await cycle(pod);
  await sleep(200); // ten times what it waits between two bytes
  t.ok(kept.running, kept.logs().toString());
  const image = await kept.detach({ image: imageName(), tcp: "close" });
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
  t.match(await pod.inspect(), { hostname: "another", machineId: id, isolate: null });
  writeFileSync(join(sandbox, "tell-again"), "");
  await logged(pod, "END2");
  t.equal(pod.logs().toString().split(expected).length, 3, "after a reattach too");
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
