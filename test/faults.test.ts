/**
 * Whatever fails, and whenever the supervisor dies: afterwards the program runs on and finds everything as it left it, or
 * it lies in a whole image that can be reattached. Every fault point of the native code (native/base/fault.h), in every
 * job, as an error and as a kill -9; and kills at random moments.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { type Pod, reattach } from "virt-run";
import { leaveNothing } from "./support/apps.js";
import { sandbox } from "./support/env.js";
import { leftovers } from "./support/leftovers.js";
import { until } from "./support/pods.js";
import { Random, seeds } from "./support/random.js";
import {
  goesOn,
  isWhole,
  type Outcome,
  startSteady,
  steadyProgram,
  supervise,
  survivor,
  unfinished,
} from "./support/steady.js";

leaveNothing(t);

/** The names of all fault points, from the sources: a new one is tested by being there. Those of moves and of
 * connections that go along by themselves have tests of their own. */
const points = readdirSync(new URL("../native", import.meta.url), { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".cc") && !path.startsWith("test/"))
  .flatMap((path) => [
    ...readFileSync(new URL(`../native/${path}`, import.meta.url), "utf8").matchAll(/\bfault_point\("([^"]+)"\)/g),
  ])
  .map(([, name]) => name as string)
  .filter((name) => !/^(move|repair)-/.test(name));

const images = join(sandbox, "images");
mkdirSync(images);
let made = 0;
const newImage = () => join(images, `i${made++}`);

/** Which points made a job fail; each has to, somewhere. */
const hit = new Set<string>();

function note(fault: string, outcome: Outcome): void {
  const [name, action] = fault.split(":") as [string, string];
  if (action === "kill" && outcome.result === undefined) hit.add(name);
  if (action === "error" && outcome.result?.code !== undefined) {
    hit.add(name);
    if (outcome.result.code !== "ERR_FAULT")
      throw new Error(`${fault} came out as ${outcome.result.code}: ${outcome.result.message}`);
  }
}

/** Half-written images are left by a kill alone. */
function noUnfinished(killed: boolean): void {
  const left = unfinished(images);
  if (left.length > 0 && !killed) throw new Error(`unfinished images: ${left.join(", ")}`);
  for (const name of left) rmSync(join(images, name), { recursive: true });
}

/** Forgets the pod and proves that nothing is left of it. */
async function end(pod: Pod): Promise<void> {
  await pod.destroy();
  pod.remove();
  await until(`nothing to be left: ${leftovers().join("\n")}`, () => leftovers().length === 0, 5000);
}

/** After a detach or snapshot that may have failed. Gives a pod that runs, and if it comes from an image. */
async function afterCapture(kind: "detach" | "snapshot", image: string, outcome: Outcome): Promise<Pod> {
  const { result } = outcome;
  const pod = await survivor();
  noUnfinished(result === undefined);
  const whole = await isWhole(image);
  if (result?.done !== undefined && !whole) throw new Error("said to be done, and there is no image");
  if (pod) {
    if (kind === "detach" && result?.done !== undefined) throw new Error("said to be detached, and it runs");
    await goesOn(pod);
    rmSync(image, { recursive: true, force: true });
    return pod;
  }
  if (kind === "snapshot") throw new Error("a snapshot ended the pod");
  if (!whole) throw new Error("neither a pod nor an image");
  const again = await reattach(image, { stdio: "log" });
  await goesOn(again);
  rmSync(image, { recursive: true });
  return again;
}

/** After a reattach that may have failed: all of it, or nothing and the image can be reattached. */
async function afterReattach(image: string, { result }: Outcome): Promise<void> {
  const pod = await survivor();
  if (result?.done !== undefined && !pod) throw new Error("said to be reattached, and it does not run");
  if (result?.code !== undefined && pod)
    throw new Error(`failed with ${result.code}, and a pod runs: ${result.message}`);
  if (pod) {
    await goesOn(pod);
    await end(pod);
  }
  if (!(await isWhole(image))) throw new Error("the image is gone");
}

async function reattaches(image: string): Promise<void> {
  const pod = await reattach(image, { stdio: "log" });
  await goesOn(pod);
  await end(pod);
}

async function imageOf(pod: Pod): Promise<string> {
  const image = await pod.detach({ image: newImage(), withFiles: "all" });
  return image.path;
}

t.test("there are fault points", async (t) => {
  t.ok(points.length > 10, points.join(", "));
  t.equal(new Set(points).size, points.length, "each name is used once");
});

for (const kind of ["detach", "snapshot"] as const) {
  t.test(`${kind}, with a fault at each point`, async (t) => {
    let pod = await startSteady();
    for (const fault of points.flatMap((name) => [`${name}:error`, `${name}:kill`])) {
      try {
        const image = newImage();
        pod.disconnect();
        const outcome = await supervise([kind, pod.id, image], { fault });
        pod = await afterCapture(kind, image, outcome);
        note(fault, outcome);
      } catch (e) {
        t.fail(`${fault}: ${(e as Error).message}`);
        await pod.destroy().catch(() => {});
        pod = await startSteady();
      }
    }
    t.pass(`${points.length} points, as errors and as kills`);
    await end(pod);
  });
}

t.test("reattach, with a fault at each point", async (t) => {
  const image = await imageOf(await startSteady());
  rmSync(steadyProgram()); // it has to be placed
  for (const fault of points.flatMap((name) => [`${name}:error`, `${name}:kill`])) {
    try {
      const outcome = await supervise(["reattach", image], { fault });
      await afterReattach(image, outcome);
      note(fault, outcome);
    } catch (e) {
      t.fail(`${fault}: ${(e as Error).message}`);
    }
  }
  await reattaches(image);
  rmSync(image, { recursive: true });
});

t.test("every fault point is somewhere on the way", async (t) => {
  // This one chooses the other way instead of failing, when it is an error.
  for (const name of points) t.ok(hit.has(name), name);
});

t.test("kill -9 at random moments of a detach", async (t) => {
  let pod = await startSteady();
  const { tookMs } = await supervise(["snapshot", pod.id, newImage()], {});
  let killed = 0;
  for (const seed of seeds(20)) {
    const image = newImage();
    const killAfterMs = new Random(seed).fraction() * tookMs;
    pod.disconnect();
    const outcome = await supervise(["detach", pod.id, image], { killAfterMs });
    if (outcome.result === undefined) killed++;
    try {
      pod = await afterCapture("detach", image, outcome);
    } catch (e) {
      throw new Error(`VIRT_RUN_SEED=${seed}, killed after ${killAfterMs.toFixed(1)} ms: ${(e as Error).message}`);
    }
  }
  t.ok(killed > 0, `${killed} of the kills came in time (a snapshot takes ${tookMs.toFixed(0)} ms)`);
  await end(pod);
});

t.test("kill -9 at random moments of a reattach", async (t) => {
  const image = await imageOf(await startSteady());
  const whole = await supervise(["reattach", image], {});
  await afterReattach(image, whole);
  let killed = 0;
  for (const seed of seeds(20)) {
    const killAfterMs = new Random(seed).fraction() * whole.tookMs;
    const outcome = await supervise(["reattach", image], { killAfterMs });
    if (outcome.result === undefined) killed++;
    try {
      await afterReattach(image, outcome);
    } catch (e) {
      throw new Error(`VIRT_RUN_SEED=${seed}, killed after ${killAfterMs.toFixed(1)} ms: ${(e as Error).message}`);
    }
  }
  t.ok(killed > 0, `${killed} of the kills came in time (a reattach takes ${whole.tookMs.toFixed(0)} ms)`);
  await reattaches(image);
  rmSync(image, { recursive: true });
});
