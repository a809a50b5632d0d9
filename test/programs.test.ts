/**
 * Every program in test/programs, through a matrix of modes: detached and reattached once, with its sockets kept meanwhile, and
 * three times, all made anew, and a snapshot that it must not notice. A new behaviour is a new file there.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import t from "tap";
import type { Pod } from "virt-run";
import { sandbox } from "./support/env.js";
import { cycle, endAll, imageName, logged, start } from "./support/pods.js";

const sources = new URL("programs/", import.meta.url).pathname;
const built = join(sandbox, "programs");

const anew = (pod: Pod) => cycle(pod, { detach: { tcp: "close" } });
const modes: Record<string, (pod: Pod) => Promise<Pod>> = {
  untouched: (pod) => Promise.resolve(pod),
  once: (pod) => cycle(pod),
  thrice: async (pod) => anew(await anew(await anew(pod))),
  snapshot: async (pod) => {
    (await pod.snapshot({ image: imageName() })).remove();
    return pod;
  },
};

const wanted = process.env["BEHAVIOUR"];
const programs = readdirSync(sources)
  .filter((f) => f.endsWith(".c"))
  .map((f) => f.slice(0, -2))
  .filter((name) => wanted === undefined || name.includes(wanted))
  .sort();

/**
 * A line `flags: -static` in a program's head comment, or `todo: why`: what the product does not do yet, shown as such by
 * the report and no failure of the run.
 */
function directive(name: string, key: string): string | undefined {
  return new RegExp(`^ \\* ${key}: (.*)$`, "m")
    .exec(readFileSync(join(sources, `${name}.c`), "utf8"))?.[1]
    ?.replace(/ \*\/$/, "");
}

async function behave(name: string, mode: string): Promise<void> {
  const directory = join(sandbox, `${name}-${mode}`);
  mkdirSync(directory);
  const go = join(directory, "go");
  let pod = await start(join(built, name), [], {
    cwd: directory,
    env: { PATH: process.env["PATH"], BEHAVIOUR_GO: go, BEHAVIOUR_DIR: directory, BEHAVIOUR_MODE: mode },
  });
  await logged(pod, "READY");
  pod = await (modes[mode] as (pod: Pod) => Promise<Pod>)(pod);
  writeFileSync(go, "");
  // A program that failed may leave relatives behind, who wait for it.
  const patience = setTimeout(() => void pod.destroy(), 60_000);
  const exit = await pod.ended();
  clearTimeout(patience);
  const log = pod.logs().toString();
  pod.remove();
  if (exit.code !== 0 || !log.includes("PASS")) throw new Error(`${exit.signal ?? exit.code}: ${log.slice(-600)}`);
}

t.before(() => {
  mkdirSync(built);
  const commands = programs.map((name) => {
    const flags = (directive(name, "flags") ?? "").split(" ").filter(Boolean);
    return [
      "gcc",
      "-O1",
      "-g",
      "-Wall",
      "-Wextra",
      "-Werror",
      "-I",
      sources,
      "-o",
      join(built, name),
      join(sources, `${name}.c`),
      ...flags,
      "-pthread",
      "-lrt",
      "-lm",
    ].join(" ");
  });
  execFileSync("xargs", ["-P", String(cpus().length), "-I", "{}", "sh", "-c", "{}"], {
    input: commands.join("\n"),
    stdio: ["pipe", "inherit", "inherit"],
  });
});

t.afterEach(endAll);

const table = new Map<string, Map<string, boolean>>();
for (const mode of Object.keys(modes).filter((name) => (process.env["MODE"] ?? name) === name)) {
  t.test(mode, async (t) => {
    for (const name of programs) {
      const row = table.get(name) ?? new Map<string, boolean>();
      table.set(name, row);
      try {
        await behave(name, mode);
        row.set(mode, true);
        t.pass(name);
      } catch (e) {
        row.set(mode, false);
        const todo = directive(name, "todo");
        t.fail(`${name}: ${(e as Error).message}`, {
          blockers: (e as { blockers?: unknown }).blockers,
          ...(todo !== undefined && { todo }),
        });
        await endAll();
      }
    }
  });
}

t.teardown(() => {
  const width = Math.max(...programs.map((p) => p.length));
  const lines = [...table].map(
    ([name, row]) =>
      `${name.padEnd(width)}  ${Object.keys(modes)
        .map((m) => (row.get(m) ? "ok" : "FAIL").padEnd(m.length))
        .join("  ")}`,
  );
  t.comment(`${"behaviour".padEnd(width)}  ${Object.keys(modes).join("  ")}\n${lines.join("\n")}`);
});
