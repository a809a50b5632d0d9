/**
 * Directories, ports and addresses of a pod that become others while it runs. (Descriptors: remap-fd.test.ts.)
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { launch } from "virt-run";
import { leaveNothing } from "./support/apps.js";
import { virtRun } from "./support/cli.js";
import { sandbox } from "./support/env.js";
import { cycle, logged } from "./support/pods.js";

leaveNothing(t);

t.test("directories, ports and addresses of a running pod", async (t) => {
  const cwd = join(sandbox, "running");
  mkdirSync(cwd);
  for (const name of ["old", "new"]) {
    mkdirSync(join(cwd, name));
    writeFileSync(join(cwd, name, "file"), `${name}\n`);
  }
  const script = "exec 5< old/file; while :; do cat old/file; sleep 0.01; done";
  let pod = await launch("/bin/sh", ["-c", script], { stdio: "log", cwd, cover: ["bind", "connect", "sendto"] });
  await logged(pod, "old");
  await pod.remap({ path: { [join(cwd, "old")]: join(cwd, "new") }, port: { 8080: 18080 } });
  await logged(pod, "new");
  t.match(await pod.inspect(), { remaps: [{ to: join(cwd, "old"), from: join(cwd, "new") }], ports: { 8080: 18080 } });
  const blockers = await pod.check();
  t.match(
    blockers,
    [{ code: "ERR_FILE_REPLACED", fd: 5, path: join(cwd, "old/file") }],
    "what was open stays where it was",
  );
  await pod.remap({ fd: { "*/5": "/dev/null" } });
  pod = await cycle(pod);
  t.match((await pod.inspect()).remaps, [{ to: join(cwd, "old") }], "it is remembered");
  await t.rejects(pod.remap({ path: { [join(cwd, "none")]: cwd } }), { code: "ERR_REMAP", errnoName: "ENOENT" });
  await t.rejects(pod.remap({ path: { [join(cwd, "old/file")]: cwd } }), {
    code: "ERR_REMAP",
    path: join(cwd, "old/file"),
  });
  await t.rejects(pod.remap({ addr: { "10.0.0.1": "::1" } }), { code: "ERR_REMAP" });
  await pod.destroy();
  pod.remove();
  const mine = await launch("sleep", ["60"], { cover: ["bind", "connect", "sendto"] });
  t.match(await virtRun(["remap", mine.id, "port:8080=18080"]), { code: 0 });
  await mine.setRules([{ on: "unlink", path: "/none", deny: "EACCES" }]);
  t.match(await mine.inspect(), { ports: { 8080: 18080 } }, "what another process changed is not undone");
  await mine.destroy();
  mine.remove();
  const bare = await launch("sleep", ["60"], { record: "none" });
  await t.rejects(bare.remap({ port: { 8080: 18080 } }), { code: "ERR_NOT_COVERED" });
  await bare.destroy();
  bare.remove();
  const isolated = await launch("sleep", ["60"], { isolate: { readOnly: ["/usr"] } });
  await t.rejects(isolated.remap({ path: { "/usr": cwd } }), { code: "ERR_ISOLATION" });
  await isolated.destroy();
  isolated.remove();
});
