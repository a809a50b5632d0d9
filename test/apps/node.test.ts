/**
 * Node: timers, a worker thread and a listening HTTP server; its clock does not notice how long it was away.
 */
import { join } from "node:path";
import t from "tap";
import { reattach } from "virt-run";
import { fiveCycles, freePort, httpGet, leaveNothing, sources, untilFree } from "../support/apps.js";
import { imageName, logged, sleep, start, until } from "../support/pods.js";

leaveNothing(t);

interface State {
  ticks: number;
  immediates: number;
  workerTicks: number;
  wrongSums: number;
  wentBack: number;
  longestGapMs: number;
  requests: number;
}

t.test("timers, a worker thread, an HTTP server", async (t) => {
  const port = await freePort();
  const ask = async (path = "/") => JSON.parse(await httpGet(port, path)) as State;
  const pod = await start(process.execPath, [join(sources, "node", "serve.mjs"), String(port)]);
  await logged(pod, "listening");
  let last = await until("timers and worker to run", async () => {
    const now = await ask();
    return now.ticks > 5 && now.workerTicks > 5 && now;
  });
  let end = await fiveCycles(pod, async () => {
    const before = last;
    last = await until("timers and worker to go on", async () => {
      const now = await ask();
      const goOn = (["ticks", "immediates", "workerTicks"] as const).every((key) => now[key] > before[key] + 5);
      return goOn && now;
    });
    if (last.requests <= before.requests) throw new Error("it forgot its requests");
  });

  // The time it is away is no time to it: a clock that ran on would show a gap of at least that.
  const awayMs = 2000;
  await ask("/forget-gap");
  const image = await untilFree(end, () => end.detach({ image: imageName() }));
  await sleep(awayMs);
  end = await reattach(image, { stdio: "log" });
  const before = last.ticks;
  last = await until("timers to go on", async () => {
    const now = await ask();
    return now.ticks > before + 5 && now;
  });
  t.ok(last.longestGapMs > 0 && last.longestGapMs < awayMs - 200, `longest gap ${last.longestGapMs} ms`);
  t.match(last, { wrongSums: 0, wentBack: 0 });
});

t.test("the C library called through koffi: functions, a struct, memory, a callback", async (t) => {
  const pod = await start(process.execPath, [join(sources, "node", "ffi.mjs")]);
  await logged(pod, "right");
  const end = await fiveCycles(pod, async (pod) => {
    const before = pod.logs().length;
    await until("it to look again", () => pod.logs().length > before + 20);
  });
  const lines = end.logs().toString().trimEnd().split("\n");
  t.same(new Set(lines), new Set(["right"]));
});
