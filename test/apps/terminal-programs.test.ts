/**
 * Programs that live in a terminal: top, which draws by itself; less, which draws when told; bash with job control, for
 * which sessions, process groups and the terminal's foreground group must be right.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import type { Pod } from "virt-run";
import { fiveCycles, leaveNothing } from "../support/apps.js";
import { sandbox } from "../support/env.js";
import { needs } from "../support/packages.js";
import { sleep, start } from "../support/pods.js";
import { resize, shown, shows, typeInto } from "../support/terminal.js";

leaveNothing(t);

const env = { PATH: process.env["PATH"], HOME: sandbox, TERM: "xterm", LC_ALL: "C.UTF-8", PS1: "ready$ " };

/** Types something and waits for what it must lead to. */
async function answers(pod: Pod, text: string, what: RegExp): Promise<string> {
  const since = shown(pod).length;
  await typeInto(pod, text);
  return (await shows(pod, what, since))[0];
}

t.test("top", async (t) => {
  const pod = await start(needs("top"), ["-d", "0.2"], { stdio: "terminal", env, rows: 30, columns: 100 });
  await shows(pod, /top - /);
  const end = await fiveCycles(pod, async (pod, cycle) => {
    const since = shown(pod).length;
    await shows(pod, /top - (\d\d:\d\d:\d\d) .*top - (?!\1)/s, since); // it writes only what has changed
    await answers(pod, "h", /Help for Interactive Commands/);
    await answers(pod, "\x1b", /top - /);
    await resize(pod, 30, 100 + cycle);
    await answers(pod, " ", /top - /);
  });
  // Keys that come together are a function key to top, which it may not know.
  const again = setInterval(() => void typeInto(end, "q").catch(() => {}), 1000);
  await typeInto(end, "q");
  t.match(await end.ended(), { code: 0 });
  clearInterval(again);
});

t.test("less", async (t) => {
  const file = join(sandbox, "text");
  writeFileSync(file, Array.from({ length: 1000 }, (_, n) => `line ${n + 1} of it\n`).join(""));
  const pod = await start(needs("less"), [file], { stdio: "terminal", env, rows: 21, columns: 80 });
  await shows(pod, /line 20 of it/);
  const end = await fiveCycles(pod, async (pod, cycle) => {
    await answers(pod, " ", new RegExp(`line ${20 * cycle + 1} of it.*line ${20 * cycle + 20} of it`, "s"));
  });
  await answers(end, "/line 777\r", /line 777 of it/);
  await answers(end, "g", /line 1 of it/);
  await answers(end, "=", /lines 1-20\/1000/);
  await typeInto(end, "q");
  t.match(await end.ended(), { code: 0 });
});

t.test("bash with job control", async (t) => {
  const pod = await start(needs("bash"), ["--norc", "-i"], { stdio: "terminal", env, rows: 33, columns: 111 });
  await shows(pod, /ready\$ /);
  await answers(pod, "sleep 1000 &\r", /\[1\] \d+.*ready\$ /s);
  await answers(pod, "cat\r", /cat\r\n/);
  await answers(pod, "before\r", /before\r\nbefore\r\n/);
  // At odd cycles cat has the terminal, at even ones it is stopped and bash has it.
  let now = await fiveCycles(pod, async (pod, cycle) => {
    if (cycle % 2 === 1) {
      await answers(pod, `still ${cycle}\r`, new RegExp(`still ${cycle}\r\nstill ${cycle}\r\n`));
      await answers(pod, "\x1a", /\[2\]\+ +Stopped +cat.*ready\$ /s);
    } else {
      await answers(pod, "jobs\r", /\[1\]- +Running +sleep 1000 &.*\[2\]\+ +Stopped +cat.*ready\$ /s);
      await answers(pod, "fg\r", /cat\r\n/);
      await answers(pod, `again ${cycle}\r`, new RegExp(`again ${cycle}\r\nagain ${cycle}\r\n`));
    }
  });
  await answers(now, "fg\r", /cat\r\n/);
  await answers(now, "front\r", /front\r\nfront\r\n/); // only now is it sure to have the terminal
  await answers(now, "\x03", /\^C.*ready\$ /s);
  await answers(now, "jobs\r", /^jobs\r\n\r?\[1\]\+ +Running +sleep 1000 &\r\nready\$ /);

  // One that is stopped goes on in the background, and one in the background comes to the front and is interrupted.
  await answers(now, "sleep 2000\r", /sleep 2000\r\n/);
  now = await fiveCycles(now, async (pod) => {
    await answers(pod, "\x1a", /\[2\]\+ +Stopped +sleep 2000.*ready\$ /s);
    await answers(pod, "bg\r", /\[2\]\+ sleep 2000 &.*ready\$ /s);
    await answers(pod, "jobs -r\r", /\[2\]\+? +Running +sleep 2000 &|\[2\]- +Running +sleep 2000 &/);
    await answers(pod, "stty size; fg %2\r", /33 111\r\nsleep 2000\r\n/);
    await sleep(100); // bash says so before it gives the terminal away
  });
  await answers(now, "\x03", /\^C.*ready\$ /s);
  await answers(now, "kill %1; wait %1; echo code $?\r", /code 143\r\n.*ready\$ /s);

  // A window that gets another size is told to the program in the foreground.
  await answers(now, "trap 'echo new size; stty size' WINCH\r", /ready\$ $/);
  const since = shown(now).length;
  await resize(now, 40, 120);
  await shows(now, /new size\r\n40 120/, since);
  await typeInto(now, "exit 9\r");
  t.match(await now.ended(), { code: 9 });
});
