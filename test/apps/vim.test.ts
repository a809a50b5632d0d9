/**
 * vim in a terminal: what was typed before, between and after is in the file, and the screen can be drawn again.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import type { Pod } from "virt-run";
import { fiveCycles, leaveNothing } from "../support/apps.js";
import { sandbox } from "../support/env.js";
import { needs } from "../support/packages.js";
import { sleep, start } from "../support/pods.js";
import { resize, shown, shows, typeInto } from "../support/terminal.js";

leaveNothing(t);

const env = { PATH: process.env["PATH"], HOME: sandbox, TERM: "xterm", LC_ALL: "C.UTF-8" };

/** Leaves insert mode. vim waits for a moment whether escape begins a function key: what follows must not come too soon. */
async function leaveInsertMode(pod: Pod): Promise<void> {
  await typeInto(pod, "\x1b");
  await sleep(200);
}

/** Has the screen drawn from nothing, and waits for all of this on it. */
async function redrawn(pod: Pod, ...texts: string[]): Promise<void> {
  const since = shown(pod).length;
  await typeInto(pod, "\x0c");
  for (const text of texts) await shows(pod, new RegExp(text), since);
}

t.test("typing on, in insert mode all the time", async (t) => {
  const file = join(sandbox, "insert.txt");
  const pod = await start(needs("vim"), ["--clean", file], { stdio: "terminal", env, rows: 30, columns: 100 });
  await shows(pod, /insert\.txt/);
  await typeInto(pod, "iline 0");
  await shows(pod, /-- INSERT --.*line 0/s);
  const end = await fiveCycles(pod, async (pod, cycle) => {
    const since = shown(pod).length;
    await typeInto(pod, `\rline ${cycle} é`);
    await shows(pod, new RegExp(`line ${cycle} é`), since);
  });
  await leaveInsertMode(end);
  t.ok(readdirSync(sandbox).includes(".insert.txt.swp"), "its swap file is where it was");
  await typeInto(end, ":wq\r");
  t.match(await end.ended(), { code: 0 });
  t.equal(readFileSync(file, "utf8"), `line 0\n${[1, 2, 3, 4, 5].map((n) => `line ${n} é\n`).join("")}`);
  t.notOk(readdirSync(sandbox).includes(".insert.txt.swp"), "and gone after");
});

t.test("commands, undo and the window's size", async (t) => {
  const file = join(sandbox, "command.txt");
  writeFileSync(file, "first\nsecond\nthird\n");
  const pod = await start(needs("vim"), ["--clean", file], { stdio: "terminal", env, rows: 30, columns: 100 });
  await shows(pod, /third/);
  const end = await fiveCycles(pod, async (pod, cycle) => {
    await typeInto(pod, `Gochange ${cycle}`);
    await leaveInsertMode(pod);
    await redrawn(pod, "first", "third", `change ${cycle}`);
    // The size comes as a signal and an ioctl on the terminal.
    const columns = 90 + cycle;
    await resize(pod, 30 + cycle, columns);
    await sleep(100);
    await typeInto(pod, ":echo 'size' &lines &columns\r");
    await shows(pod, new RegExp(`size ${30 + cycle} ${columns}`));
  });
  await typeInto(end, "uu");
  await redrawn(end, "change 3");
  await typeInto(end, ":wq\r");
  t.match(await end.ended(), { code: 0 });
  t.equal(readFileSync(file, "utf8"), "first\nsecond\nthird\nchange 1\nchange 2\nchange 3\n", "two changes are undone");
});
