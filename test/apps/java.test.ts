/**
 * OpenJDK: compiled code in hot loops, garbage collection, monitors, timers, and the JVM's safepoints, which are made of
 * page protections and signals.
 */
import { join } from "node:path";
import t from "tap";
import type { Pod } from "virt-run";
import { fiveCycles, leaveNothing, linesWith, run, sources } from "../support/apps.js";
import { sandbox } from "../support/env.js";
import { needs } from "../support/packages.js";
import { logged, start, until } from "../support/pods.js";

leaveNothing(t);

const states = (pod: Pod) => linesWith(pod.logs(), "state ").map((line) => line.split(" ").map(Number));

t.test("hot loops, garbage, monitors, timers", async (t) => {
  run(needs("javac"), ["-J-XX:-UsePerfData", "-d", sandbox, join(sources, "java", "Work.java")]);
  const pod = await start(needs("java"), ["-Xmx128m", "-cp", sandbox, "Work"]);
  await logged(pod, "state ");
  let last = await until("the loops to be hot", () => {
    const now = states(pod).at(-1);
    return now?.every((n) => n > 50) && now;
  });
  const end = await fiveCycles(pod, async (pod) => {
    const before = last;
    last = await until("everything to go on", () => {
      const now = states(pod).at(-1);
      return now?.every((n, i) => n > (before[i] as number)) && now;
    });
  });
  t.notMatch(end.logs().toString(), /WRONG|Exception|SIGSEGV|fatal/);
  for (const i of last.keys()) {
    const column = states(end).map((state) => state[i] as number);
    t.ok(
      column.every((n, k) => k === 0 || n >= (column[k - 1] as number)),
      `counter ${i} never goes back`,
    );
  }
  await end.kill("SIGTERM");
  t.match(await end.ended(), { code: 143 });
  t.match(end.logs().toString(), /shutting down/);
});
