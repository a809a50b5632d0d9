/**
 * Real programs whose files travel with them: databases, repositories, libraries. "Another host" is this one after
 * directories were removed or changed.
 */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import t from "tap";
import { exportFiles, type Pod, planReattach } from "virt-run";
import { leaveNothing } from "./support/apps.js";
import { sandbox } from "./support/env.js";
import { carry, gone, place, removeAll, seen } from "./support/files.js";
import { needs } from "./support/packages.js";
import { logged, start } from "./support/pods.js";
import { again, shellPod, tell } from "./support/shell-pod.js";

leaveNothing(t);
removeAll(t);

t.test("sqlite3 with its WAL open goes on where its directory is gone", async (t) => {
  const work = place();
  const db = join(work, "data", "x.db");
  mkdirSync(join(work, "data"));
  let mark = 0;
  const sql = async (pod: Pod, text: string) => {
    mark++;
    pod.stdin?.write(`${text} SELECT 'mark' || ${mark};\n`);
    await logged(pod, `mark${mark}\n`);
  };
  let pod = await start(needs("sqlite3"), [db], { stdio: "pipe", record: "default" });
  await sql(pod, "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (n);");
  await sql(pod, "INSERT INTO t SELECT value FROM generate_series(1, 1000); BEGIN; INSERT INTO t VALUES (1001);");
  let image = await carry(pod, "written", () => gone(work));
  t.strictSame(
    image.manifest.carriedFiles?.flatMap((e) => (e.type === "file" ? [e.path.slice(db.length)] : [])),
    ["", "-shm", "-wal"],
  );
  for (let n = 1002; n < 1006; n++) {
    pod = await again(image);
    image.remove();
    await sql(pod, `INSERT INTO t VALUES (${n});`);
    t.notOk(existsSync(work));
    image = await carry(pod);
  }
  pod = await again(image);
  await sql(pod, "COMMIT; PRAGMA integrity_check;");
  t.notMatch(pod.logs().toString(), /Error|error|malformed/);
  const out = place();
  t.strictSame((await exportFiles(pod, out)).conflicts, []);
  const ask = (query: string) =>
    execFileSync(needs("sqlite3"), [join(out, db), query])
      .toString()
      .trim();
  t.equal(ask("SELECT count(*), sum(n) FROM t"), `1005|${(1005 * 1006) / 2}`);
  t.equal(ask("PRAGMA integrity_check"), "ok");
  image.remove();
});

t.test("git, worked on by a shell, goes on with its repository", async (t) => {
  const work = place();
  const git = `${needs("git")} -c user.name=n -c user.email=e`;
  let pod = await shellPod(work, { env: { PATH: "/usr/bin:/bin", HOME: sandbox, GIT_CONFIG_NOSYSTEM: "1" } });
  await tell(pod, `${git} init -q . && echo one > file && ${git} add file && ${git} commit -qm one`);
  await tell(pod, `${git} mv file moved && echo staged > staged && ${git} add staged`);
  const image = await carry(pod, "written", () => gone(work));
  pod = await again(image);
  t.equal(await tell(pod, `${git} status --short`), "R  file -> moved\nA  staged");
  await tell(
    pod,
    `${git} commit -qm two && ${git} gc -q && ${git} checkout -qb side && ${git} rm -q staged && ${git} commit -qm three`,
  );
  await tell(pod, `${git} fsck --strict`);
  const next = await carry(pod);
  pod = await again(next);
  t.equal(
    await tell(pod, `${git} fsck --strict && ${git} log --format=%s && ls && ${git} status --short`),
    "three\ntwo\none\nmoved",
  );
  const out = place();
  await exportFiles(pod, out);
  t.equal(
    execFileSync("git", ["-C", join(out, work), "log", "--format=%s", "side"], { env: {} }).toString(),
    "three\ntwo\none\n",
  );
  t.notOk(existsSync(work));
  for (const i of [image, next]) i.remove();
});

t.test("python3 imports from a directory that only its pod has", async (t) => {
  const work = place();
  let pod = await shellPod(work);
  await tell(
    pod,
    "mkdir mods && echo 'value = 1' > mods/early.py && printf 'import late2\\nvalue = late2.value\\n' > mods/late.py",
  );
  await tell(pod, "echo 'value = 42' > mods/late2.py");
  pod.stdin?.write(
    `exec ${needs("python3")} -u -i -c 'import sys; sys.path[0] = "mods"; import early; print("up")' 2>&1\n`,
  );
  await logged(pod, "up\n");
  const image = await carry(pod, "written", () => gone(work));
  pod = await again(image);
  pod.stdin?.write("import late; print('value', late.value + early.value)\n");
  await logged(pod, "value 43\n");
  pod.stdin?.write("import os; print('cached', sorted(os.listdir('mods/__pycache__'))[-1])\n");
  await logged(pod, "cached late2");
  t.notOk(existsSync(work));
  image.remove();
});

/** A program with its libraries and dynamic loader in a directory of its own. */
function ownProgram(directory: string): { program: string; library: string; build: (hello: string) => void } {
  const [program, library, loader] = ["greeter", "libgreet.so", "ld.so"].map((n) => join(directory, n)) as [
    string,
    string,
    string,
  ];
  const build = (hello: string) => {
    const source = `const char *greeting(void) { return "${hello}"; } const char *farewell(void) { return "bye"; }`;
    execFileSync(needs("gcc"), ["-shared", "-fPIC", "-o", library, "-xc", "-"], { input: source });
  };
  build("hello");
  const linked = execFileSync("ldd", ["/bin/true"]).toString();
  const libc = /libc\.so\.6 => (\S+)/.exec(linked)?.[1] as string;
  const ld = /^\s*(\/\S*ld-linux\S+)/m.exec(linked)?.[1] as string;
  execFileSync("cp", ["-L", libc, directory]);
  execFileSync("cp", ["-L", ld, loader]);
  execFileSync(needs("gcc"), [
    ...["-o", program, new URL("./files/greeter.c", import.meta.url).pathname, library],
    ...[`-Wl,-rpath,${directory}`, `-Wl,--dynamic-linker=${loader}`, "-Wl,-z,lazy"],
  ]);
  return { program, library, build };
}

t.test("a program, its library and its loader that are missing, or others, on this host", async (t) => {
  const work = place();
  const { program, library, build } = ownProgram(work);
  const bytes = readFileSync(library);
  let n = 0;
  const ask = async (pod: Pod) => {
    pod.stdin?.write(`${++n}\n`);
    await logged(pod, `hello bye ${n}\n`);
  };
  let pod = await start(program, [], { stdio: "pipe", cwd: "/", record: "none" });
  await logged(pod, "ready");
  await t.rejects(pod.detach({ withFiles: "written" }), { code: "ERR_NOT_RECORDED", hint: /--record default/ });
  t.ok(pod.running);
  let image = await carry(pod, "none", () => renameSync(library, `${library}.away`));
  await t.rejects(planReattach(image), { code: "ERR_MISSING_FILE", hint: /--with-files all/ });
  renameSync(`${library}.away`, library);
  pod = await again(image);
  image.remove();

  image = await carry(pod, "all");
  t.match(image.accepted, [/nobody recorded/]);
  const at = (path: string) => image.manifest.carriedFiles?.find((e) => e.path === path);
  t.match(
    [at(program), at(library)],
    [
      { type: "file", why: "used" },
      { type: "file", why: "used" },
    ],
  );

  // Unchanged: the host's own.
  let plan = await planReattach(image);
  t.strictSame([plan.files.overlays, plan.files.carried, plan.files.replaced], [[], [], []]);
  t.ok(plan.files.host.includes(library));

  // Another library: only that one is covered.
  build("another");
  chmodSync(library, 0o500);
  const other = readFileSync(library);
  plan = await planReattach(image);
  t.strictSame([plan.files.replaced, plan.files.overlays, plan.files.conflicts], [[library], [], []]);
  pod = await again(image);
  await ask(pod);
  t.strictSame(pod.notes, []);
  t.strictSame(readFileSync(await seen(pod, library)), bytes, "the pod sees its own");
  t.strictSame(readFileSync(library), other, "the host's is untouched");
  t.equal(statSync(library).mode & 0o777, 0o500);

  // Out of a pod that has ended as well.
  const side = await again(image, { name: "side" });
  await side.destroy();
  const out = place();
  t.ok((await exportFiles(side, out)).written.includes(library));
  t.strictSame(readFileSync(join(out, library)), bytes);
  image.remove();

  // Carried once more although nobody asked: only the pod has it.
  image = await carry(pod, "none");
  t.match(image.carried, { files: 1, bytes: bytes.length });
  pod = await again(image);
  await ask(pod);
  image.remove();
  image = await carry(pod, "all");

  // The program and the loader are missing, their directory is not.
  const files = readdirSync(work).filter((name) => name !== "libgreet.so");
  for (const name of files) renameSync(join(work, name), join(sandbox, name));
  writeFileSync(join(work, "bystander"), "seen too");
  plan = await planReattach(image);
  t.strictSame([plan.files.replaced, plan.files.overlays], [[library], [work]]);
  pod = await again(image);
  await ask(pod);
  t.strictSame(readdirSync(work).sort(), ["bystander", "libgreet.so"]);
  t.strictSame(readdirSync(await seen(pod, work)).includes("bystander"), true);
  t.strictSame(readFileSync(await seen(pod, library)), bytes);
  image.remove();

  // Everything is.
  image = await carry(pod, "all", () => gone(work));
  pod = await again(image);
  await ask(pod);
  t.equal(await again(image, { name: "twin" }).then((twin) => ask(twin)), undefined, "as often as one likes");
  t.notOk(existsSync(work));
  image.remove();
});

t.test("everything a program can hold in an overlay", async (t) => {
  const work = place();
  let pod = await start(needs("python3"), [new URL("./files/holder.py", import.meta.url).pathname], {
    cwd: work,
    stdio: "pipe",
    record: "default",
  });
  await logged(pod, "ready");
  for (let n = 0; n < 4; n++) {
    pod.stdin?.write("\n");
    await logged(pod, `answer ${n} True`);
    const image = await carry(pod, n === 0 ? "written" : "none", () => gone(work));
    pod = await again(image);
    image.remove();
  }
  t.notOk(existsSync(work));
});

t.test("a directory in the middle of being read loses nothing", async (t) => {
  const work = place();
  const names = Array.from({ length: 5000 }, (_, i) => `entry-with-a-long-name-${i}`);
  let pod = await shellPod(work);
  pod.stdin?.write(`exec ${needs("python3")} -u -i -c 'import os; print("up")' 2>&1\n`);
  await logged(pod, "up\n");
  pod.stdin?.write(`for i in range(5000): open("entry-with-a-long-name-%d" % i, "w").close()\n\n`);
  pod.stdin?.write(`it = os.scandir("."); seen = {next(it).name for _ in range(10)}; print("some", len(seen))\n`);
  await logged(pod, "some 10\n");
  const image = await carry(pod, "written", () => gone(join(work, names[0] as string)));
  pod = await again(image);
  t.match(pod.notes, [`${work}: a directory that was being read is read from its beginning again`]);
  pod.stdin?.write(`seen |= {e.name for e in it}; print("all", len(seen))\n`);
  await logged(pod, "all 5000\n");
  image.remove();
});
