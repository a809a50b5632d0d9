/**
 * Files that travel with a pod. "Another host" is this one after directories were removed or changed: what the pod knew is
 * seen by it alone, what is on the host stays as it is, and nothing of it is left outside the store.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  closeSync,
  createReadStream,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import t from "tap";
import {
  exportFiles,
  type Image,
  openImage,
  type Pod,
  planReattach,
  reattach,
  unpackImage,
  verifyImage,
} from "virt-run";
import { stringifyManifest } from "../src/image/manifest.js";
import { podDirectory } from "../src/pod/store.js";
import { isRoot, leaveNothing } from "./support/apps.js";
import { json, virtRun } from "./support/cli.js";
import { sandbox } from "./support/env.js";
import { needs } from "./support/packages.js";
import { imageName, logged, start, until } from "./support/pods.js";
import { again, shellPod, tell } from "./support/shell-pod.js";

leaveNothing(t);
t.teardown(() => gone(sandbox)); // some files here are such that only this removes them

let directories = 0;

/** A directory of its own for each test. */
function place(): string {
  const path = join(sandbox, `place-${directories++}`);
  mkdirSync(path);
  return path;
}

/** Detaches with its files; afterwards the host is another one, made by `move`. */
async function carry(pod: Pod, withFiles: "none" | "written" | "all" = "written", move = () => {}): Promise<Image> {
  const image = await pod.detach({ image: imageName(), withFiles });
  move();
  return image;
}

/** Removes what may have made itself hard to remove. */
function gone(...paths: string[]): void {
  for (const path of paths.filter(existsSync))
    execFileSync("/bin/sh", ["-c", 'chmod -R u+rwX "$0" && rm -rf "$0"', path]);
}

function beginning(path: string): string {
  const fd = openSync(path, "r");
  const buffer = Buffer.alloc(200);
  const n = readSync(fd, buffer);
  closeSync(fd);
  return buffer.toString("latin1", 0, n);
}

/** A path as the pod sees it. */
async function seen(pod: Pod, path: string): Promise<string> {
  return join(`/proc/${(await pod.inspect()).initPid}/root`, path);
}

/** Everything below a directory, as text that tells all that matters. */
function listing(directory: string): string[] {
  return (readdirSync(directory, { recursive: true, encoding: "utf8" }) as string[]).sort().map((name) => {
    const path = join(directory, name);
    const st = lstatSync(path, { bigint: true });
    const what = st.isSymbolicLink() ? `-> ${readlinkSync(path)}` : st.isFile() ? beginning(path) : "";
    return [name, st.mode.toString(8), st.isDirectory() ? "" : st.size, st.isFile() ? st.mtimeNs : "", what].join(" ");
  });
}

t.test("all kinds of things, from a directory that is gone", async (t) => {
  const work = join(place(), "work");
  mkdirSync(work, { mode: 0o750 });
  let pod = await shellPod(work);
  await tell(pod, "mkdir -p deep/er/est && echo one > deep/er/est/file && chmod 0410 deep/er/est/file");
  await tell(pod, "touch -d '2001-02-03 04:05:06.123456789 UTC' deep/er/est/file && chmod 0510 deep/er/est");
  await tell(pod, "ln deep/er/est/file hard && ln -s deep/er/est/file soft && ln -s /nowhere broken");
  await tell(pod, "truncate -s 100M sparse && printf end >> sparse");
  await tell(
    pod,
    `printf x > 'a name
of two lines' && printf ü > 'größe ☃'`,
  );
  await tell(pod, "mkfifo pipe && : > empty");
  await tell(pod, "echo no > deleted && rm deleted && mkdir dir && echo no > dir/x && rm -r dir");
  await tell(pod, "mkdir before && echo in > before/in && mv before after && echo more > after/more");
  await tell(pod, `${needs("python3")} -c 'import os; os.setxattr("empty", "user.note", b"v\\0w")'`);
  const before = listing(work);
  const image = await carry(pod, "written", () => gone(work));
  const types = new Map(image.manifest.carriedFiles?.map((e) => [e.path, e.type]));
  t.equal(types.get(join(work, "pipe")), "fifo");
  t.notOk(types.has(join(work, "deleted")) || types.has(join(work, "dir")), "what was deleted again is not carried");
  t.ok(statSync(image.path).isDirectory() && image.carried.bytes > 100 << 20 && image.carried.files === 7, "counted");
  const disk = Number(execFileSync("du", ["-sk", image.path]).toString().split("\t")[0]);
  t.ok(disk < 20_000, `sparse in the image: ${disk} KiB`);

  const plan = await planReattach(image);
  t.strictSame(plan.files.overlays, [join(work, "..")]);
  t.strictSame([plan.files.conflicts, plan.files.replaced, plan.files.host], [[], [], []]);

  pod = await again(image);
  t.notOk(existsSync(work), "the host has no such directory");
  const inside = await seen(pod, work);
  t.strictSame(listing(inside), before, "all is as it was");
  t.equal(statSync(join(inside, "hard")).ino, statSync(join(inside, "deep/er/est/file")).ino, "a hard link is one");
  t.ok(statSync(join(inside, "sparse")).blocks < 1000, "sparse in the pod");
  t.equal(statSync(inside).mode & 0o7777, 0o750);
  t.equal(
    await tell(pod, `${needs("python3")} -c 'import os; print(os.getxattr("empty", "user.note"))'`),
    "b'v\\x00w'",
  );
  t.equal(await tell(pod, "pwd && cat soft"), `${work}\none`);

  // A second life, whose journal knows nothing of the first.
  await tell(pod, "chmod 600 hard && echo two >> hard && rm broken && echo new > new");
  const second = listing(inside);
  const next = await carry(pod, "none");
  image.remove();
  pod = await again(next);
  t.notOk(existsSync(work));
  t.strictSame(listing(await seen(pod, work)), second);
  t.equal(await tell(pod, "cat deep/er/est/file new"), "one\ntwo\nnew");

  const out = place();
  const exported = await exportFiles(pod, out);
  t.strictSame(exported.conflicts, []);
  t.strictSame(listing(join(out, work)), second, "and out again");
  const id = pod.id;
  await pod.destroy();
  const later = place();
  t.strictSame((await exportFiles(pod, later)).conflicts, [], "of a pod that has ended as well");
  t.strictSame(listing(join(later, work)), second);
  pod.remove();
  t.notOk(existsSync(podDirectory(id)), "and nothing of it is left in the store");
  next.remove();
});

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
  let pod = await start(program, [], { stdio: "pipe", cwd: "/" });
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

t.test("what is unchanged is used, what is another is a conflict and stays", async (t) => {
  const work = place();
  for (const name of ["same", "other"]) mkdirSync(join(work, name));
  let pod = await shellPod(work);
  await tell(pod, "echo pod > same/data && echo pod > other/data && exec 5>> same/data && exec 6>> other/data");
  let image = await carry(pod);
  let plan = await planReattach(image);
  t.strictSame(plan.files.host, [join(work, "other/data"), join(work, "same/data")]);
  t.strictSame([plan.files.overlays, plan.files.carried, plan.files.conflicts], [[], [], []]);
  pod = await again(image);
  t.strictSame(pod.notes, []);
  await tell(pod, "echo more >&5");
  t.equal(readFileSync(join(work, "same/data"), "utf8"), "pod\nmore\n", "written to the host's own");
  image.remove();

  // The new journal does not know these, the pod does.
  image = await carry(pod);
  writeFileSync(join(work, "other/data"), "the host's\n");
  writeFileSync(join(work, "other/bystander"), "the host's\n");
  mkdirSync(join(work, "other/dir"));
  writeFileSync(join(work, "other/dir/old"), "the host's\n");
  plan = await planReattach(image);
  t.match(plan.files, {
    host: [join(work, "same/data")],
    conflicts: [join(work, "other/data")],
    overlays: [join(work, "other")],
  });
  const dry = await virtRun(["reattach", image.path, "--dry-run"]);
  t.match(dry.out, `${join(work, "other/data")}: in conflict`);
  t.match(await json("reattach", image.path, "--dry-run"), {
    plan: { files: { conflicts: [join(work, "other/data")] } },
  });
  t.match(await json("check", image.path), { ok: true });
  const here = listing(work);
  pod = await again(image);
  t.match(pod.notes, [new RegExp(`${join(work, "other/data")} is another here`)]);
  await tell(pod, "echo more >&6 && rm other/bystander && mkdir -p made/deep");
  t.equal(await tell(pod, "cat other/data && ls other"), "pod\nmore\ndata\ndir");
  t.strictSame(
    listing(work).filter((line) => !line.startsWith("made")),
    here,
    "the host's files are as they were",
  );
  image.remove();

  // What the pod removed where only it sees that stays removed.
  image = await carry(pod);
  t.match(
    image.manifest.carriedFiles?.find((e) => e.type === "absent"),
    { path: join(work, "other/bystander") },
  );
  pod = await again(image);
  t.equal(await tell(pod, "ls other"), "data\ndir");
  t.ok(existsSync(join(work, "other/bystander")));
  await tell(pod, "rm -r other/dir && mkdir other/dir && echo fresh > other/dir/fresh");
  image.remove();
  image = await carry(pod);
  pod = await again(image);
  t.equal(await tell(pod, "ls other/dir"), "fresh", "a directory made anew shows nothing of the old one");
  t.strictSame(readdirSync(join(work, "other/dir")), ["old"]);
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

t.test("hard links of which the host has one", async (t) => {
  const work = place();
  for (const name of ["a", "b"]) mkdirSync(join(work, name));
  let pod = await shellPod(work);
  await tell(pod, "echo one > a/first && ln a/first a/second && ln a/first b/third && ln -s a/first link");
  const image = await carry(pod, "written", () => gone(join(work, "a/second"), join(work, "link")));
  pod = await again(image);
  await tell(pod, "echo two >> a/second");
  t.equal(await tell(pod, "cat a/first b/third link && stat -c %h a/first"), "one\ntwo\none\ntwo\none\ntwo\n3");
  t.equal(readFileSync(join(work, "a/first"), "utf8"), "one\n");
  image.remove();
});

t.test("a directory missing below the root", async (t) => {
  const work = place();
  let pod = await shellPod(work, { cwd: "/" });
  await tell(pod, `echo data > ${work}/file && cd ${work}`);
  const image = await carry(pod, "written", () => gone(work));
  // As if it had been there: the shell is told nothing of paths but its working directory's.
  const text = stringifyManifest(image.manifest).replaceAll(`"${work}`, '"/vr-missing/deep');
  const manifest = JSON.parse(text) as { carriedFiles: { path: string; type: string }[] };
  const all = manifest.carriedFiles.filter((e) => e.path.startsWith("/vr-missing"));
  manifest.carriedFiles = [
    { ...(all[0] as object), path: "/vr-missing", type: "directory" } as (typeof all)[0],
    ...all,
  ];
  writeManifest(image.path, JSON.stringify(manifest));
  const moved = await openImage(image.path);
  t.strictSame((await planReattach(moved)).files.overlays, ["/"]);
  pod = await again(moved);
  t.equal(await tell(pod, "cat file && /bin/pwd"), "data\n/vr-missing/deep");
  await tell(pod, `echo x > /vr-missing/more && echo seen > ${work}-host`);
  t.equal(readFileSync(`${work}-host`, "utf8"), "seen\n", "what is elsewhere is the host's");
  t.strictSame(
    await tell(pod, "ls -d /usr /proc/self/fd /dev/pts/ptmx /tmp"),
    "/dev/pts/ptmx\n/proc/self/fd\n/tmp\n/usr",
  );
  const next = await carry(pod, "none");
  pod = await again(next);
  t.equal(await tell(pod, "cat file ../more"), "data\nx");
  t.notOk(existsSync("/vr-missing"));
  for (const i of [image, next]) i.remove();
});

function writeManifest(directory: string, text: string): void {
  writeFileSync(join(directory, "manifest.json"), text);
  writeFileSync(join(directory, "manifest.sha256"), `${createHash("sha256").update(text).digest("hex")}\n`);
}

t.test("rules hold for files as well", async (t) => {
  const [one, other] = [place(), place()];
  const shown = join(place(), "shown");
  mkdirSync(shown);
  let pod = await shellPod(shown, { remap: { path: { [shown]: one } } });
  await tell(pod, "mkdir sub && echo data > sub/file");
  t.strictSame(readdirSync(join(one, "sub")), ["file"]);
  const image = await carry(pod, "written", () => gone(join(one, "sub")));
  t.ok(
    image.manifest.carriedFiles?.some((e) => e.path === join(shown, "sub/file")),
    "known as the pod knows it",
  );
  writeFileSync(join(other, "bystander"), "");
  pod = await again(image, { remap: { path: { [shown]: other } } });
  t.equal(await tell(pod, "cat sub/file && ls"), "data\nbystander\nsub");
  t.strictSame([readdirSync(one), readdirSync(other), readdirSync(shown)], [[], ["bystander"], []]);
  await pod.destroy();
  const ended = await shellPod(shown, { remap: { path: { [shown]: one } } });
  await tell(ended, "echo late > late");
  await ended.destroy();
  const out = place();
  t.strictSame(
    (await exportFiles(ended, out)).written,
    [join(shown, "late")],
    "an ended pod's are found where the rule says",
  );
  image.remove();
});

t.test("as one stream, verified, and out of the image", async (t) => {
  const work = place();
  let pod = await shellPod(work);
  await tell(pod, "echo data > data && cp data copy && truncate -s 20M sparse && echo x >> sparse");
  const stream = join(place(), "stream");
  const said = await virtRun(["detach", pod.id, "-o", "-", "--with-files", "written"], {
    stdio: ["pipe", openSync(stream, "w"), "pipe"],
  });
  t.match(said.err, /3 files of 20\.0 MiB carried/);
  gone(work);
  const image = await unpackImage(createReadStream(stream), imageName());
  await verifyImage(image.path);
  t.equal(readdirSync(join(image.path, "files")).length, 2, "each content once");
  pod = await again(image);
  t.equal(await tell(pod, "cat data copy && stat -c %s sparse"), "data\ndata\n20971522");
  t.ok(statSync(await seen(pod, join(work, "sparse"))).blocks < 1000, "sparse again");

  const out = place();
  mkdirSync(join(out, work), { recursive: true });
  writeFileSync(join(out, work, "data"), "another\n");
  symlinkSync("/etc/passwd", join(out, work, "copy"));
  const { code, out: printed } = await virtRun(["export", image.path, out, "--json"]);
  t.equal(code, 1);
  t.match(JSON.parse(printed), {
    export: { written: [join(work, "sparse")], conflicts: [join(work, "copy"), join(work, "data")], unchanged: [] },
  });
  t.equal(readFileSync(join(out, work, "data"), "utf8"), "another\n");
  t.match(await virtRun(["export", image.path, out]), {
    code: 1,
    out: /0 files written .*, 1 were there/,
    err: /copy: another is there/,
  });
  gone(out);
  mkdirSync(out);
  symlinkSync(place(), join(out, work.split("/")[1] as string));
  const astray = await exportFiles(image, out);
  t.equal(astray.written.length, 0, "no link in the directory leads out of it");
  t.ok(astray.conflicts.includes(join(work, "data")));

  writeFileSync(join(image.path, "files", readdirSync(join(image.path, "files"))[0] as string), "dat!\n");
  await t.rejects(reattach(image), { code: "ERR_IMAGE_DAMAGED" });
  await t.rejects(exportFiles(image, place()), { code: "ERR_IMAGE_DAMAGED" });
  image.remove();
});

t.test("refused by name, and the pod runs on", async (t) => {
  const work = place();
  const pod = await shellPod(work);
  await tell(pod, "head -c 100000 /dev/zero > large && echo x > closed && chmod 200 closed");
  await t.rejects(pod.detach({ withFiles: "written", filesLimitBytes: 99_999 }), {
    code: "ERR_FILES_LIMIT",
    message: /10000\d bytes would be carried, 99999 bytes are allowed/,
  });
  if (!isRoot) {
    await t.rejects(pod.detach({ withFiles: "written" }), {
      code: "ERR_BLOCKED",
      blockers: [{ code: "ERR_FILE_UNREACHABLE", path: join(work, "closed"), kind: "carried-file" }],
    });
    t.match(await pod.check({ withFiles: "written" }), [{ path: join(work, "closed") }]);
    t.match(await virtRun(["check", pod.id, "--with-files", "written"]), { code: 1, out: /ERR_FILE_UNREACHABLE/ });
    const image = await pod.snapshot({ image: imageName(), withFiles: "written", drop: ["carried-file"] });
    t.match(image.accepted, [`not carried: ${join(work, "closed")} (it cannot be read)`]);
    image.remove();
  }
  await tell(pod, "chmod 600 closed");
  const bytes = Buffer.concat([Buffer.from(`${work}/`), Buffer.from([0xff])]);
  await tell(pod, "echo x > $(printf '\\377')");
  t.ok(existsSync(bytes));
  await t.rejects(pod.detach({ withFiles: "written" }), {
    code: "ERR_BLOCKED",
    blockers: [{ code: "ERR_UNSUPPORTED", message: /not UTF-8/ }],
  });
  await tell(pod, "rm $(printf '\\377')");
  const progress: string[] = [];
  const image = await pod.snapshot({
    image: imageName(),
    withFiles: "written",
    onProgress: (p) => progress.push(p.phase),
  });
  t.match(image.carried, { files: 2, bytes: 100_002 });
  t.ok(progress.includes("files"));
  t.equal(await tell(pod, "cat closed"), "x", "it runs on");
  image.remove();
  const none = await shellPod(work, { record: "none" });
  await t.rejects(exportFiles(none, place()), { code: "ERR_NOT_RECORDED" });
  t.match(await virtRun(["detach", none.id, "--with-files", "written"]), { code: 1, err: /ERR_NOT_RECORDED/ });
});

t.test("an end and a prune leave nothing", async (t) => {
  const work = place();
  let pod = await shellPod(work);
  await tell(pod, "mkdir closed && echo x > closed/file && chmod 0 closed/file && chmod 0500 closed");
  if (!isRoot) await tell(pod, "chmod 600 closed/file");
  const image = await carry(pod, "written", () => gone(work));
  pod = await again(image, { removeAtEnd: true });
  const first = podDirectory(pod.id);
  await tell(pod, "mkdir none && chmod 0 none");
  await pod.destroy();
  await until("the pod to be forgotten", () => !existsSync(first));
  pod = await again(image);
  await pod.destroy();
  pod.disconnect();
  t.match(await virtRun(["prune"]), { code: 0 });
  t.notOk(existsSync(podDirectory(pod.id)));
  image.remove();
  t.strictSame(
    readdirSync(join(sandbox, "state", "virt-run", "pods")).filter((name) => !name.startsWith(".")),
    [],
  );
});
