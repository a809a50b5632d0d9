/**
 * Isolation against programs that try to get round it (test/isolation/*.c), before and after a reattach; rules that cannot be,
 * and kernels that cannot.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import t from "tap";
import { type Isolation, launch, VirtError } from "virt-run";
import { leaveNothing } from "./support/apps.js";
import { background, json, shell, virtRun } from "./support/cli.js";
import { sandbox } from "./support/env.js";
import {
  buildAttempts,
  built,
  judge,
  type Place,
  place,
  quoted,
  tryByExec,
  virtRunLine,
  words,
} from "./support/isolation.js";
import { cycle, imageName, logged, start, until } from "./support/pods.js";

leaveNothing(t);
t.before(buildAttempts);

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
  t.match(await run(`< . 2>&1`, `ls /proc/self/fd/0/; touch /proc/self/fd/0/../seen/x`), { out: /keep.*Read-only/s });
  t.match(await run(`< ${at.seen} 2>&1`, "touch /proc/self/fd/0/x"), { out: /Read-only/ });
  t.match(await run(`< / 2>&1`, "touch /proc/self/fd/0/etc/x; echo $?"), { out: /Read-only.*1\n/s });
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
