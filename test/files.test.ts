/**
 * Files that travel with a pod. "Another host" is this one after directories were removed or changed: what the pod knew is
 * seen by it alone, what is on the host stays as it is, and nothing of it is left outside the store.
 */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
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
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import t from "tap";
import { exportFiles, type Image, openImage, type Pod, planReattach } from "virt-run";
import { stringifyManifest } from "../src/image/manifest.js";
import { podDirectory } from "../src/pod/store.js";
import { isRoot, leaveNothing } from "./support/apps.js";
import { json, virtRun } from "./support/cli.js";
import { sandbox } from "./support/env.js";
import { needs } from "./support/packages.js";
import { imageName, logged, start, until } from "./support/pods.js";
import { again, shellPod, tell } from "./support/shell-pod.js";

leaveNothing(t);

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
  for (const path of paths) execFileSync("/bin/sh", ["-c", 'chmod -R u+rwX "$0" && rm -rf "$0"', path]);
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
  await tell(pod, "echo two >> soft 2>/dev/null; chmod 600 hard && echo two >> hard && rm broken && echo new > new");
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
