import {
  createReadStream,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import t from "tap";
import { exportFiles, reattach, unpackImage, verifyImage } from "virt-run";
import { podDirectory } from "../src/pod/store.js";
import { isRoot, leaveNothing } from "./support/apps.js";
import { program, shell, virtRun } from "./support/cli.js";
import { sandbox } from "./support/env.js";
import { carry, gone, place, removeAll, seen } from "./support/files.js";
import { needs } from "./support/packages.js";
import { imageName, until } from "./support/pods.js";
import { again, shellPod, tell } from "./support/shell-pod.js";

leaveNothing(t);
removeAll(t);

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

t.test("a store that can hold no overlay is told of before anything is made", async (t) => {
  const work = place();
  const pod = await shellPod(work);
  await tell(pod, "echo x > file");
  const image = await carry(pod, "written", () => gone(join(work, "file")));
  const other = place();
  for (const name of ["lower", "upper", "work", "store"]) mkdirSync(join(other, name));
  const mount = `mount -t overlay -o userxattr,lowerdir=lower,upperdir=upper,workdir=work overlay store`;
  const line = `cd ${other} && ${mount} && XDG_STATE_HOME=${other}/store exec ${process.execPath} ${program} reattach ${image.path}`;
  const said = await shell(`${needs("unshare")} --map-root-user --mount --propagation private sh -c '${line}'`);
  t.match(said, { code: 125, err: /the store lies on an overlay.*ERR_KERNEL_FEATURE/ });
  image.remove();
});
