/**
 * Connections whose other end is a pod too, and those that two programs of one pod have with each other through an address of
 * the host; reattaches that fail, after which everything is still kept.
 */
import { join } from "node:path";
import t from "tap";
import { reattach } from "virt-run";
import { freePort, leaveNothing, run, sources } from "../support/apps.js";
import { needs } from "../support/packages.js";
import { account, atEach, countIn, cycles, goesOn, loggedBy, type Traveller } from "../support/places.js";
import { imageName, start, until } from "../support/pods.js";

leaveNothing(t);

const node = process.execPath;
const script = (name: string) => join(sources, "connections", name);

/** Waits until a pod that counts has counted `more`. */
async function counts(pod: Traveller, more = 20): Promise<void> {
  const from = countIn(await pod.logs());
  await until("it to go on", async () => {
    const log = await pod.logs();
    if (log.includes("WRONG")) throw new Error(log.slice(-500));
    return countIn(log) > from + more;
  });
}

for (const kind of ["TCP", "unix"]) {
  atEach(["here"], `two pods that are connected: ${kind}`, async (t, at) => {
    const words = kind === "TCP" ? [at.pods, String(await freePort())] : [join(at.directory, "between.sock")];
    const server = await at.launch(node, [script("count.mjs"), "serve", ...words]);
    await loggedBy(server, "listening");
    const client = await at.launch(node, [script("count.mjs"), "call", ...words]);
    await counts(client);
    const pods = [server, client];
    // One after the other, both at once, in either order.
    for (const pod of pods) {
      await pod.detach();
      await pod.reattach();
      await counts(client);
    }
    for (const back of [pods, [...pods].reverse()]) {
      for (const pod of pods) await pod.detach();
      for (const pod of back) await pod.reattach();
      await counts(client);
      await counts(server);
    }
    t.pass("they go on");
    for (const pod of pods) await pod.destroy();
  });
}

atEach(["here", "on"], "both ends in one pod", async (t, at) => {
  const port = String(await freePort());
  const line = `"$@" serve ${at.any} ${port} & until "$@" call ${at.pods} ${port} 2>/dev/null; do sleep 0.05; done`;
  const pod = await at.launch(needs("bash"), ["-c", line, "bash", node, script("count.mjs")]);
  await loggedBy(pod, "listening");
  await counts(pod);
  await cycles(at, pod, () => counts(pod));
  t.pass("they go on");
  await pod.destroy();
});

atEach(["here"], "a reattach that fails", async (t, at) => {
  const port = String(await freePort());
  const server = at.outside(node, [script("count.mjs"), "serve", at.others, port]);
  await until("a server", () => server.said.out.includes("listening"));
  const program = join(at.directory, "client.mjs");
  run("/bin/cp", [script("count.mjs"), program]);
  run("/bin/cp", [script("report.mjs"), join(at.directory, "report.mjs")]);
  const pod = await start(node, [program, "call", at.others, port]);
  await goesOn(server, 20);
  const image = await pod.detach({ image: imageName() });
  for (const fault of ["rebuild-grown", "rebuild-state", "rebuild-parked", "rebuild-commit"]) {
    process.env["VIRT_RUN_FAULT"] = fault;
    await t.rejects(reattach(image, { stdio: "log" }), fault);
    delete process.env["VIRT_RUN_FAULT"];
  }
  const again = await reattach(image, { stdio: "log" });
  image.remove();
  await goesOn(server, 20);
  t.equal((await account(server))["connections"], 1, "the connection was kept all the time");
  await again.destroy();
});
