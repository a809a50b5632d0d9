/**
 * Running pods that are moved between two hosts, live and cold: a program whose memory never stands still and knows what
 * should be in it, ten times there and back; what is said of it, and what is left of it.
 */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { leaveNothing } from "../support/apps.js";
import { sandbox } from "../support/env.js";
import type { Host } from "../support/hosts.js";
import { hostsWithSsh, logOf, remains, sockets, stops, toAndFro, told, whereRuns } from "../support/moves.js";
import { needs } from "../support/packages.js";
import { until } from "../support/pods.js";

leaveNothing(t);

const source = new URL("churn.c", import.meta.url).pathname;
const churn = join(sandbox, "churn");
const file = join(sandbox, "churn.file");

execFileSync(needs("gcc"), ["-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", churn, source], { stdio: "pipe" });
{
  const words = new BigUint64Array(96 * 512);
  for (let i = 0; i < words.length; i++)
    words[i] = BigInt.asUintN(64, ((BigInt(i >> 9) << 16n) | BigInt(i & 511)) * 0x9e3779b97f4a7c15n);
  writeFileSync(file, words);
}

const steps = (host: Host) => Number(/n (\d+)\n(?!.*\n)/s.exec(logOf(host))?.[1] ?? 0);

async function goesOn(host: Host): Promise<void> {
  const before = steps(host);
  await until({ toString: () => `more than ${before} steps: ${logOf(host).slice(-300)}` }, () => {
    if (/WRONG/.test(logOf(host))) throw new Error(logOf(host).slice(-500));
    return steps(host) > before + 100;
  });
}

t.test("memory that never stands still, there and back", async (t) => {
  const hosts = await hostsWithSsh(t);
  const [a, b] = hosts as [Host, Host];
  await told(a, "run", "-d", "--name", "churn", "--", churn, file);
  await goesOn(a);
  const last = await toAndFro(
    hosts,
    "churn",
    10,
    async (here) => {
      await goesOn(here);
      const other = here === a ? b : a;
      t.strictSame(remains(other), [], `nothing remains of it on ${other.name}`);
      t.strictSame(remains(here), [], `nothing but the pod is on ${here.name}`);
      t.strictSame(new Set(whereRuns(hosts, churn)), new Set([here.name]), "it runs there alone");
      t.strictSame(sockets(other), [], "no socket is left");
    },
    (n) => (n % 5 === 0 ? ["--cold"] : []),
  );
  await told(last, "kill", "-s", "TERM", "churn");
  await told(last, "wait", "churn");
  t.match(await told(last, "logs", "churn"), /PASS\n$/);
  t.comment(`it stood still for ${stops.join(", ")} ms`);
  const { pods } = JSON.parse(await told(b, "ps", "-a", "--json")) as { pods: { name: string; state: string }[] };
  t.match(
    pods.map((pod) => pod.name),
    [],
    "ps -a on the other host",
  );
  for (const host of hosts) await told(host, "rm", "-f", "churn").catch(() => {});
});
