/**
 * Files that travel with a pod. "Another host" is this one after directories were removed or changed: what the pod knew is
 * seen by it alone, what is on the host stays as it is, and nothing of it is left outside the store.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { exportFiles, openImage, planReattach } from "virt-run";
import { stringifyManifest } from "../src/image/manifest.js";
import { podDirectory } from "../src/pod/store.js";
import { isRoot, leaveNothing } from "./support/apps.js";
import { json, virtRun } from "./support/cli.js";
import { sandbox } from "./support/env.js";
import { carry, gone, listing, place, removeAll, seen } from "./support/files.js";
import { needs } from "./support/packages.js";
import { imageName, until } from "./support/pods.js";
import { again, shellPod, tell } from "./support/shell-pod.js";

leaveNothing(t);
removeAll(t);

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

t.test("one file, open for reading and for writing, beside one that is missing", async (t) => {
  const work = place();
  let pod = await shellPod(work);
  await tell(pod, "echo one > data && echo x > missing && exec 5< data 6>> data");
  const image = await carry(pod, "written", () => gone(join(work, "missing")));
  pod = await again(image);
  await tell(pod, "echo two >&6");
  t.equal(await tell(pod, "cat <&5; cat data"), "one\ntwo\none\ntwo");
  t.equal(readFileSync(join(work, "data"), "utf8"), "one\n");
  image.remove();
});

t.test("a directory missing below the root", async (t) => {
  const work = place();
  let pod = await shellPod(work, { cwd: "/" });
  const other = place();
  await tell(pod, `echo data > ${work}/file && echo also > ${other}/also && cd ${work}`);
  const image = await carry(pod, "written", () => gone(work, join(other, "also")));
  // As if it had been there: the shell is told nothing of paths but its working directory's.
  const text = stringifyManifest(image.manifest).replaceAll(`"${work}`, '"/vr-missing/deep');
  const manifest = JSON.parse(text) as { carriedFiles: { path: string; type: string }[] };
  const all = manifest.carriedFiles.filter((e) => e.path.startsWith("/vr-missing") || e.path.startsWith(`${other}/`));
  manifest.carriedFiles = [
    { ...(all[0] as object), path: "/vr-missing", type: "directory" } as (typeof all)[0],
    ...all,
  ];
  writeManifest(image.path, JSON.stringify(manifest));
  const moved = await openImage(image.path);
  t.strictSame((await planReattach(moved)).files.overlays, ["/", other]);
  pod = await again(moved);
  t.equal(await tell(pod, `cat ${other}/also`), "also", "another overlay beside it");
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

t.test("rules whose places are missing here, below the root, and overlays", async (t) => {
  const [one, work] = [place(), place()];
  const shown = `/vr-shown-${process.pid}`;
  let pod = await shellPod(work, { remap: { path: { [shown]: one } } });
  await tell(pod, `mkdir ${shown}/sub && echo a > ${shown}/sub/a && echo b > b && cd ${shown}/sub`);
  const image = await carry(pod, "written", () => gone(join(one, "sub"), work));
  t.strictSame((await planReattach(image)).files.overlays.sort(), [sandbox, shown].sort());
  pod = await again(image);
  t.equal(await tell(pod, `cat a ${work}/b && echo more > more && ls ${shown}`), "a\nb\nsub");
  t.strictSame(readdirSync(one), []);
  const next = await carry(pod, "none");
  pod = await again(next);
  t.equal(await tell(pod, `cat a more ${work}/b`), "a\nmore\nb");
  await pod.destroy();
  t.notOk(existsSync(work));
  await until("the mount point that a rule needed to be removed", () => !existsSync(shown));
  for (const i of [image, next]) i.remove();
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
  await tell(pod, "rm $(printf '\\377') && mkdir $(printf '%0100d' 0 | tr 0 '\\377')");
  (await pod.snapshot({ image: imageName() })).remove();
  await tell(pod, "rmdir $(printf '%0100d' 0 | tr 0 '\\377')");
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
  const lost = {
    time: "2026-01-01T00:00:00.000Z",
    pid: 1,
    program: "virt-init",
    call: "write",
    kind: "lost",
    lines: 3,
  };
  appendFileSync(join(podDirectory(pod.id), "journal"), `${JSON.stringify({ ...lost, result: "ENOSPC" })}\n`);
  await t.rejects(pod.detach({ withFiles: "written" }), {
    code: "ERR_BLOCKED",
    blockers: [{ code: "ERR_JOURNAL", message: /not all that it wrote is known/ }],
  });
  t.match((await virtRun(["effects", pod.id])).out, /1 +- +lost +3 lines of the journal \(its disk was full\)\n/);
  t.match((await virtRun(["effects", "--summary", pod.id])).out, /^lost:\n {2}3 lines/m);
  const partly = await pod.snapshot({ image: imageName(), withFiles: "written", drop: ["carried-file"] });
  t.match([partly.accepted, partly.manifest.written?.incomplete], [[/has lost lines/], true]);
  partly.remove();
  const none = await shellPod(work, { record: "none" });
  await t.rejects(exportFiles(none, place()), { code: "ERR_NOT_RECORDED" });
  t.match(await virtRun(["detach", none.id, "--with-files", "written"]), { code: 1, err: /ERR_NOT_RECORDED/ });
});
