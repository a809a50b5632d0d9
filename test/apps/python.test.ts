/**
 * python3: threads with queues between them, a child that answers through pipes, and a file that is being written.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import type { Pod } from "virt-run";
import { countedUp, fiveCycles, leaveNothing, linesWith, sources } from "../support/apps.js";
import { sandbox } from "../support/env.js";
import { needs } from "../support/packages.js";
import { logged, start, until } from "../support/pods.js";

leaveNothing(t);

/** The last line that it printed of how far it is. */
function progress(pod: Pod): { written: number; ticks: number; threads: number } {
  const line = linesWith(pod.logs(), "written ").at(-1) ?? "0 ticks 0 threads 0";
  const [written, ticks, threads] = line.split(/ [a-z]+ /).map(Number) as [number, number, number];
  return { written, ticks, threads };
}

t.test("threads, a child on pipes, an open file", async (t) => {
  const file = join(sandbox, "numbers");
  const pod = await start(needs("python3"), [join(sources, "python", "work.py"), file]);
  await logged(pod, "written 100 ");
  let last = progress(pod);
  const end = await fiveCycles(pod, async (pod) => {
    const before = last;
    last = await until("the threads to go on", () => {
      const now = progress(pod);
      return now.written > before.written + 50 && now.ticks > before.ticks && now;
    });
    if (last.threads !== 4) throw new Error(`${last.threads} threads instead of 4`);
    countedUp(readFileSync(file, "utf8").split("\n").slice(0, -1), "the file");
  });
  await end.kill("SIGTERM");
  t.match(await end.ended(), { code: 0, signal: null });
  const lines = readFileSync(file, "utf8").split("\n").slice(0, -1);
  t.equal(linesWith(end.logs(), "done ")[0], `${countedUp(lines, "the file")}, the child said 0`);
  t.notMatch(end.logs().toString(), /WRONG|Error|assert/);
  t.ok(lines.length > last.written, `${lines.length} lines`);
});
