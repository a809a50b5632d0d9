/**
 * A static Go program: the runtime's own threads and signals, goroutines, garbage collection, timers, netpoll.
 */
import { join } from "node:path";
import t from "tap";
import { fiveCycles, freePort, leaveNothing, run, sources, tcpRead } from "../support/apps.js";
import { sandbox } from "../support/env.js";
import { needs } from "../support/packages.js";
import { logged, start, until } from "../support/pods.js";

leaveNothing(t);

const counters = ["Spins", "Passed", "Rebuilt", "Ticks", "Sleeps", "Collections"] as const;
type State = Record<(typeof counters)[number] | "Wrong" | "LongestGapMs", number>;

t.test("goroutines, garbage, timers, a listener", async (t) => {
  const program = join(sandbox, "go-program");
  run(needs("go"), ["build", "-o", program, join(sources, "go", "main.go")], {
    cwd: sandbox,
    env: { PATH: process.env["PATH"], HOME: sandbox, GOCACHE: join(sandbox, "go-cache"), CGO_ENABLED: "0" },
  });
  const port = await freePort();
  const ask = async () => JSON.parse(await tcpRead(port)) as State;
  const pod = await start(program, [String(port)]);
  await logged(pod, "listening");
  let last = await until("everything to run", async () => {
    const now = await ask();
    return counters.every((key) => now[key] > 2) && now;
  });
  const end = await fiveCycles(pod, async () => {
    const before = last;
    last = await until("everything to go on", async () => {
      const now = await ask();
      return counters.every((key) => now[key] > before[key] + 2) && now;
    });
    if (last.Wrong > 0) throw new Error(`${last.Wrong} results were wrong`);
  });
  t.match(last, { Wrong: 0 });
  t.notOk(/WRONG|panic|fatal/.test(end.logs().toString()), "nothing went wrong");
  await end.kill("SIGQUIT"); // the runtime tells of all goroutines and ends with 2
  t.match(await end.wait(), { code: 2 });
  t.ok(/^created by main\./m.test(end.logs().toString()), "the goroutines are known to it");
});
