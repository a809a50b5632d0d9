/**
 * Thousands of connections that come and go with their pod, and clients that knock while it is away.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { freePort, leaveNothing, linesWith, sources } from "../support/apps.js";
import type { Running } from "../support/cli.js";
import { needs } from "../support/packages.js";
import { atEach, cycles, loggedBy } from "../support/places.js";
import { until } from "../support/pods.js";

leaveNothing(t);

const node = process.execPath;
const script = (name: string) => join(sources, "connections", name);

/** How many files a process may open at most: the pod's, and its init's, may not have more. */
function mostFiles(): number {
  const limit = /^Max open files +\d+ +(\d+|unlimited)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
  return limit === undefined || limit === "unlimited" ? Number.POSITIVE_INFINITY : Number(limit);
}

async function says(who: Running, text: string, timeoutMs = 30_000): Promise<void> {
  const what = { toString: () => `'${text}': ${who.said.out.slice(-300)}${who.said.err.slice(-600)}` };
  await until(
    what,
    () => {
      if (who.said.out.includes(text)) return true;
      if (who.child.exitCode !== null || who.child.signalCode !== null)
        throw new Error(`it has ended: ${who.said.err}`);
      return false;
    },
    timeoutMs,
  );
}

atEach(["here", "back"], "thousands of connections", async (t, at) => {
  const port = String(await freePort());
  // The server has a handful of its own, a supervisor holds each twice for a moment.
  // As many go to another host as well, but there it takes long.
  const wanted = at.where === "here" ? 5000 : 1000;
  const count = Math.min(wanted, Math.floor((mostFiles() - 100) / 3));
  if (count < wanted) t.comment(`only ${count}: the hard limit of open files is ${mostFiles()}`);
  const pod = await at.launch(needs("python3"), [script("many.py"), at.any, port]);
  await loggedBy(pod, "listening");
  const crowd = at.outside(node, [script("crowd.mjs"), at.pods, port, String(count)]);
  await says(crowd, "connected\n");
  await loggedBy(pod, `connections ${count}\n`);
  let round = 0;
  const began = performance.now();
  const all = () => {
    crowd.child.stdin?.write("again\n");
    return says(crowd, `round ${++round}\n`);
  };
  await all();
  await cycles({ ...at, cycles: 2 }, pod, all, () => {
    // Asked while nobody answers.
    crowd.child.stdin?.write("again\n");
    round++;
  }).finally(() => crowd.child.kill("SIGKILL"));
  t.match(
    crowd.said.out,
    `round ${round}\n`,
    `${round} rounds, all alive; ${Math.round(performance.now() - began)} ms`,
  );
  await crowd.ended;
  await pod.kill("SIGKILL");
  await pod.ended();
});

for (const kind of ["TCP", "unix"]) {
  atEach(["here"], `clients that come while it is away: ${kind}`, async (t, at) => {
    const words = kind === "TCP" ? [at.pods, String(await freePort())] : [join(at.directory, "backlog.sock")];
    const pod = await at.launch(needs("python3"), [script("backlog.py"), ...words]);
    await loggedBy(pod, "listening");
    const knock = (word: string) => at.outside(node, [script("knock.mjs"), word, ...words]);
    let waiting: Running[] = [];
    let answered = 0;
    const come = async () => {
      waiting = Array.from({ length: 8 }, (_, n) => knock(`client-${n}`));
      for (const one of waiting) await says(one, "connected\n");
      const gone = knock("impatient");
      await says(gone, "connected\n");
      gone.child.kill("SIGKILL");
      await gone.ended;
    };
    const served = async (n: number) => {
      const ends = await Promise.all(waiting.map((one) => one.ended));
      const answers = ends.flatMap(({ out }) => linesWith(out, "answer "));
      if (ends.some(({ code }) => code !== 0) || answers.length !== 8)
        throw new Error(`only ${answers.length} were served: ${ends.map(({ err }) => err).join("")}`);
      const words = answers.map((text) => text.split(" ")[1]).sort();
      if (new Set(words).size !== 8) throw new Error(`some were served twice: ${words}`);
      answered += answers.length;
      const next = await knock("after").ended; // served after those before it: also who went is out of the way by now
      if (next.code !== 0 || !next.out.includes("after")) throw new Error(`cycle ${n}: nobody answers: ${next.err}`);
    };
    await cycles(at, pod, served, come);
    t.equal(answered, 8 * at.cycles, "all were served, none was refused");
    await pod.kill("SIGKILL");
    await pod.ended();
  });
}
