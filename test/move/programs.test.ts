/**
 * Programs that are moved in the middle of their work: a JVM, a make with its compilers, Python with a child, a shell with jobs.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { leaveNothing, linesWith, run, sources } from "../support/apps.js";
import { sandbox } from "../support/env.js";
import type { Host } from "../support/hosts.js";
import { hostsWithSsh, logHas, logOf, stops, toAndFro, told } from "../support/moves.js";
import { needs } from "../support/packages.js";
import { until } from "../support/pods.js";

leaveNothing(t);

t.afterEach((t) => {
  t.comment(`the pod stood still for ${stops.splice(0).join(", ")} ms`);
});

async function forget(hosts: readonly Host[], name: string): Promise<void> {
  for (const host of hosts) await told(host, "rm", "-f", name).catch(() => {});
}

t.test("Java: hot loops, garbage, monitors, timers", async (t) => {
  const hosts = await hostsWithSsh(t);
  run(needs("javac"), ["-J-XX:-UsePerfData", "-d", sandbox, join(sources, "java", "Work.java")]);
  const words = ["-Xmx64m", "-XX:TieredStopAtLevel=1", "-cp", sandbox, "Work"];
  await told(hosts[0] as Host, "run", "-d", "--name", "java", "--", needs("java"), ...words);
  const states = (host: Host) => linesWith(logOf(host), "state ").map((line) => line.split(" ").map(Number));
  let last = await until("the loops to be hot", () => {
    const now = states(hosts[0] as Host).at(-1);
    return now?.every((n) => n > 20) && now;
  });
  const end = await toAndFro(hosts, "java", 2, async (host) => {
    const before = last;
    last = await until("everything to go on", () => {
      const now = states(host).at(-1);
      return now?.every((n, i) => n > (before[i] as number)) && now;
    });
  });
  t.notMatch(logOf(end), /WRONG|Exception|SIGSEGV|fatal/);
  await told(end, "kill", "-s", "TERM", "java");
  await end.virtRun(["wait", "java"]);
  t.match(await told(end, "logs", "java"), /shutting down/);
  await forget(hosts, "java");
});

t.test("a make of a small project, over and over", async (t) => {
  const hosts = await hostsWithSsh(t);
  const project = join(sandbox, "project");
  mkdirSync(project);
  const parts = Array.from({ length: 6 }, (_, n) => `part${n}`);
  for (const [n, part] of parts.entries())
    writeFileSync(
      join(project, `${part}.c`),
      `#include <stdio.h>\n#include <math.h>\nint ${part}(void) { return ${n} * 7; }\n`,
    );
  const sum = parts.map((part) => `${part}()`).join(" + ");
  const main = `#include <stdio.h>\n${parts.map((part) => `int ${part}(void);`).join("\n")}\nint main(void) { printf("sum %d\\n", ${sum}); }\n`;
  writeFileSync(join(project, "main.c"), main);
  const objects = [...parts, "main"].map((part) => `${part}.o`).join(" ");
  writeFileSync(
    join(project, "Makefile"),
    `CC = ${needs("gcc")}\nall: program\nprogram: ${objects}\n\t$(CC) -o $@ $^\nclean:\n\trm -f program *.o\n`,
  );
  const script = `n=0; while "$0" -s clean && "$0" -s -j2 && [ "$(./program)" = "sum 105" ]; do n=$((n + 1)); echo "built $n"; done; echo WRONG`;
  await told(
    hosts[0] as Host,
    "run",
    "-d",
    "--name",
    "make",
    "-w",
    project,
    "--",
    needs("bash"),
    "-c",
    script,
    needs("make"),
  );
  const built = (host: Host) => linesWith(logOf(host), "built ").length;
  await logHas(hosts[0] as Host, "built 1\n");
  const end = await toAndFro(hosts, "make", 4, async (host) => {
    const before = built(host);
    await until({ toString: () => `another build: ${logOf(host).slice(-400)}` }, () => built(host) > before + 1);
  });
  t.notMatch(logOf(end), /WRONG|rror/);
  await forget(hosts, "make");
});

t.test("Python: threads, and a child on two pipes", async (t) => {
  const hosts = await hostsWithSsh(t);
  const words = [needs("python3"), join(sources, "python", "work.py"), join(sandbox, "numbers")];
  await told(hosts[0] as Host, "run", "-d", "--name", "python", "-w", sandbox, "--", ...words);
  await logHas(hosts[0] as Host, /\d/);
  const end = await toAndFro(hosts, "python", 4, async (host) => {
    const before = logOf(host).length;
    await until("it to go on", () => logOf(host).length > before);
  });
  t.notMatch(logOf(end), /Traceback|Error|WRONG/);
  await told(end, "kill", "-s", "TERM", "python");
  await told(end, "wait", "python");
  t.notMatch(await told(end, "logs", "python"), /Traceback|Error|WRONG/);
  await forget(hosts, "python");
});

/** Jobs of a shell: one that is stopped, one that counts, and others that come and go. */
const jobs = `
set -m
sleep 100000 & kill -STOP %1
( n=0; while :; do n=$((n + 1)); echo "job $n"; sleep 0.02; done ) &
for (( n = 1; ; n++ )); do
  sleep 0.01 & wait $! || echo WRONG
  until jobs %1 | grep -q Stopped; do sleep 0.01; done
  jobs %2 | grep -q Running || echo WRONG "$(jobs)"
  echo "shell $n"
done
`;

t.test("a shell with jobs", async (t) => {
  const hosts = await hostsWithSsh(t);
  await told(hosts[0] as Host, "run", "-d", "--name", "shell", "--", needs("bash"), "-c", jobs);
  const counts = (host: Host) => ["job ", "shell "].map((word) => linesWith(logOf(host), word).length);
  const goesOn = async (host: Host) => {
    const before = counts(host);
    await until({ toString: () => `jobs to go on: ${logOf(host).slice(-300)}` }, () =>
      counts(host).every((n, i) => n > (before[i] as number) + 5),
    );
  };
  await goesOn(hosts[0] as Host);
  const end = await toAndFro(hosts, "shell", 4, goesOn);
  t.notMatch(logOf(end), /WRONG/);
  for (const word of ["job ", "shell "]) {
    const numbers = linesWith(logOf(end), word);
    t.strictSame(
      numbers,
      numbers.map((_, n) => String(n + 1)),
      `${word}${numbers.length}: none left out, none twice`,
    );
  }
  await forget(hosts, "shell");
});
