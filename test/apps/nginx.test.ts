/**
 * nginx with its workers: in the foreground, and as a daemon that outlives the program that was launched.
 */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import type { Pod } from "virt-run";
import { fiveCycles, freePort, httpGet, isRoot, leaveNothing, run } from "../support/apps.js";
import { sandbox } from "../support/env.js";
import { needs } from "../support/packages.js";
import { start, until } from "../support/pods.js";

leaveNothing(t);

const bigBytes = 3 << 20;

/** A directory with a configuration and pages. For root, workers give their rights away, and must get in all the same. */
function prefix(name: string, port: number): string {
  const directory = join(sandbox, name);
  mkdirSync(join(directory, "pages"), { recursive: true });
  if (isRoot) for (const path of [sandbox, directory]) chmodSync(path, 0o711);
  const own = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((what) => `${what}_temp_path ${what};`);
  writeFileSync(
    join(directory, "nginx.conf"),
    `${isRoot ? "user nobody nogroup;" : ""}
     worker_processes 3;
     worker_rlimit_nofile 300;
     pid nginx.pid;
     error_log error.log notice;
     events { worker_connections 64; }
     http {
       ${own.join(" ")}
       access_log access.log;
       server {
         listen 127.0.0.1:${port} reuseport;
         location / { root pages; }
         location /who { return 200 "$pid"; }
       }
     }`,
  );
  writeFileSync(join(directory, "pages", "index.html"), "first page");
  writeFileSync(join(directory, "pages", "big"), "0123456789abcdef".repeat(bigBytes / 16));
  return directory;
}

/** Pids of master and workers, as the pod sees them. */
async function family(pod: Pod): Promise<{ master: number[]; workers: number[] }> {
  const { processes = [] } = await pod.inspect();
  const those = (what: string) =>
    processes
      .filter(({ command }) => command.join(" ").startsWith(`nginx: ${what}`))
      .map(({ pid }) => pid)
      .sort((a, b) => a - b);
  return { master: those("master process"), workers: those("worker process") };
}

/** How many files each worker may open: they have lowered it for themselves, and may not raise it again. */
async function openFiles(pod: Pod): Promise<string[]> {
  const { processes = [] } = await pod.inspect();
  return processes
    .filter(({ command }) => command.join(" ").startsWith("nginx: worker"))
    .map(
      ({ hostPid }) => /^Max open files +(\d+ +\d+)/m.exec(readFileSync(`/proc/${hostPid}/limits`, "utf8"))?.[1] ?? "",
    );
}

for (const daemon of ["off", "on"] as const) {
  t.test(`daemon ${daemon}`, async (t) => {
    const port = await freePort();
    const directory = prefix(`nginx-${daemon}`, port);
    let requests = 0;
    const ask = (path: string) => {
      requests++;
      return httpGet(port, path);
    };
    const pod = await start(needs("nginx"), [
      ...["-p", directory, "-c", "nginx.conf", "-e", "error.log"],
      ...["-g", `daemon ${daemon};`],
    ]);
    await until("three workers", async () => (await family(pod)).workers.length === 3);
    if (daemon === "on") t.match(await pod.wait(), { code: 0 }, "the program that was launched has ended");
    const before = await family(pod);
    t.equal(before.master.length, 1);
    const end = await fiveCycles(pod, async (pod, cycle) => {
      const now = await family(pod);
      const limits = await openFiles(pod);
      if (limits.length !== 3 || !limits.every((limit) => /^300 +300$/.test(limit)))
        throw new Error(`limits ${limits}`);
      if (JSON.stringify(now) !== JSON.stringify(before)) throw new Error(`the family is ${JSON.stringify(now)}`);
      if ((await ask("/")) !== (cycle === 1 ? "first page" : `page ${cycle - 1}`)) throw new Error("the wrong page");
      writeFileSync(join(directory, "pages", "index.html"), `page ${cycle}`);
      if ((await ask("/big")).length !== bigBytes) throw new Error("the large page is cut");
      // The kernel spreads connections over the workers' sockets: all of them must answer.
      const who = new Set<number>();
      await until("an answer from each worker", async () => who.add(Number(await ask("/who"))).size === 3);
      if (!before.workers.every((pid) => who.has(pid))) throw new Error(`unknown workers answered: ${[...who]}`);
    });

    // The master still knows its workers, and the file of its own pid is right inside the pod.
    const reload = await end.exec(
      needs("nginx"),
      ["-p", directory, "-c", "nginx.conf", "-e", "error.log", "-s", "reload"],
      {
        stdio: "inherit",
      },
    );
    t.match(await reload.wait(), { code: 0 });
    reload.close();
    const after = await until("new workers", async () => {
      const now = await family(end);
      return now.workers.length === 3 && !now.workers.some((pid) => before.workers.includes(pid)) && now;
    });
    t.strictSame(after.master, before.master);
    t.equal(await ask("/"), "page 5");

    await end.kill("SIGQUIT", { pid: before.master[0] as number });
    t.match(await end.ended(), { code: 0, detached: false });
    const log = readFileSync(join(directory, "access.log"), "utf8");
    t.equal(log.split("\n").length - 1, requests, "every request is in the log");
    t.notMatch(readFileSync(join(directory, "error.log"), "utf8"), /\[(error|crit|alert|emerg)\]/);
    t.throws(() => run("cat", [join(directory, "nginx.pid")]), "it has cleaned up");
  });
}
