/**
 * Servers in a pod whose clients stay connected while it is away: redis, PostgreSQL, nginx. Clients check every answer; none
 * is lost, given twice, or out of order, and nobody connects again.
 */
import { chmodSync, chownSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { countedUp, freePort, isRoot, leaveNothing, run, sources } from "../support/apps.js";
import { sandbox } from "../support/env.js";
import { needs } from "../support/packages.js";
import { account, atEach, cycles, goesOn, loggedBy } from "../support/places.js";
import { until } from "../support/pods.js";

leaveNothing(t);

const node = process.execPath;
const nobody = 65534;

atEach(["here", "back"], "redis with a client that pipelines, and redis-cli", async (t, at) => {
  const port = String(await freePort());
  const settings = ["--port", port, "--bind", at.any, "--save", "", "--protected-mode", "no"];
  const pod = await at.launch(needs("redis-server"), settings);
  await loggedBy(pod, "Ready to accept connections");
  const pipeline = at.outside(node, [join(sources, "connections", "pipeline.mjs"), at.pods, port, "64"]);
  const words = ["-h", at.pods, "-p", port, "-r", "10000000", "-i", "0.001", "INCR", "once"];
  const one = at.outside(needs("redis-cli"), words);
  const answers = () => one.said.out.split("\n").slice(0, -1);
  await goesOn(pipeline, 1000);
  await until("redis-cli to count", () => answers().length > 10);
  await cycles(at, pod, async () => {
    const before = answers().length;
    await goesOn(pipeline, 1000);
    await until("redis-cli to go on", () => answers().length > before + 10);
  });
  const { count = 0, longestMs = 0 } = await account(pipeline);
  one.child.kill("SIGINT");
  await one.ended;
  const counted = countedUp(["0", ...answers()], "redis-cli");
  t.pass(`${count} pipelined answers and ${counted} of redis-cli, in order; the longest pause was ${longestMs} ms`);
  t.match(await pod.logs(), /Ready to accept/);
  await pod.kill("SIGTERM");
  t.equal(await pod.ended(), 0);
});

atEach(["here", "on"], "PostgreSQL with psql outside, in a transaction", async (t, at) => {
  const port = String(await freePort());
  const directory = join(at.directory, "pg");
  const data = join(directory, "data");
  mkdirSync(directory, { mode: 0o700 });
  const asUser = isRoot ? [needs("setpriv"), `--reuid=${nobody}`, `--regid=${nobody}`, "--clear-groups", "--"] : [];
  if (isRoot) {
    chmodSync(sandbox, 0o711);
    chownSync(directory, nobody, nobody);
  }
  const env = { PATH: process.env["PATH"], LC_ALL: "C" };
  const words = (...all: string[]) => [...asUser, ...all] as [string, ...string[]];
  const [init, ...initArgs] = words(needs("initdb"), "-D", data, "-U", "tester", "-A", "trust", "--no-sync");
  run(init, initArgs, { cwd: directory, env });
  writeFileSync(join(data, "pg_hba.conf"), "host all all 0.0.0.0/0 trust\n");
  const [command, ...args] = words(needs("postgres"), "-D", data, "-k", at.own, "-p", port);
  const pod = await at.launch(command, [...args, "-c", `listen_addresses=${at.any}`], { cwd: directory, env });
  await loggedBy(pod, "ready to accept connections");

  const flags = ["--no-psqlrc", "-qAt", "--set=ON_ERROR_STOP=1", "-h", at.pods, "-p", port, "-U", "tester", "postgres"];
  const psql = at.outside(needs("psql"), flags);
  let marks = 0;
  const ask = async (sql: string) => {
    const from = psql.said.out.length;
    const mark = `mark ${++marks}\n`;
    psql.child.stdin?.write(`${sql}\n\\echo ${mark}`);
    await until({ toString: () => `psql to answer ${sql}: ${psql.said.err}` }, () => psql.said.out.endsWith(mark));
    return psql.said.out.slice(from, -mark.length).trim();
  };
  await ask("CREATE TABLE t (n int);");
  await ask("BEGIN; INSERT INTO t SELECT generate_series(1, 1000);");
  const backend = await ask("SELECT pg_backend_pid(), txid_current();");
  await cycles(
    at,
    pod,
    async (n) => {
      if ((await ask("SELECT count(*) FROM t WHERE n < 0;")) !== String(n)) throw new Error("the query was lost");
      if ((await ask("SELECT pg_backend_pid(), txid_current();")) !== backend) throw new Error("another transaction");
    },
    // Asked while nobody can answer.
    () => psql.child.stdin?.write("INSERT INTO t SELECT coalesce(min(n), 0) - 1 FROM t WHERE n < 0;\n"),
  );
  await ask("COMMIT;");
  const n = at.cycles;
  t.equal(
    await ask("SELECT count(*), sum(n) FROM t;"),
    `${1000 + n}|${(1000 * 1001) / 2 - (n * (n + 1)) / 2}`,
    "the rows are right",
  );
  psql.child.stdin?.end();
  t.match(await psql.ended, { code: 0, err: "" });
  await pod.kill("SIGINT");
  t.equal(await pod.ended(), 0);
});

atEach(["here", "back"], "nginx under 200 connections of wrk", async (t, at) => {
  const port = await freePort();
  const directory = join(at.directory, "nginx");
  mkdirSync(join(directory, "pages"), { recursive: true });
  if (isRoot) for (const path of [sandbox, directory]) chmodSync(path, 0o711);
  const own = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((what) => `${what}_temp_path ${what};`);
  writeFileSync(
    join(directory, "nginx.conf"),
    `${isRoot ? "user nobody nogroup;" : ""}
     daemon off; worker_processes 2; pid nginx.pid; error_log error.log notice;
     events { worker_connections 512; }
     http { ${own.join(" ")} access_log off; keepalive_requests 100000000; keepalive_timeout 1h;
            server { listen ${at.any}:${port}; location / { root pages; } } }`,
  );
  writeFileSync(join(directory, "pages", "index.html"), "0123456789abcdef".repeat(100));
  const pod = await at.launch(needs("nginx"), ["-p", directory, "-c", "nginx.conf", "-e", "error.log"]);
  const url = () => `http://${pod.address()}:${port}/`;
  const asks = () => at.outside(needs("curl"), ["-sf", "-o", "/dev/null", url()], { stdio: "ignore" }).ended;
  await until("nginx to answer", async () => (await asks()).code === 0);
  const wrk = at.outside(needs("wrk"), ["-t", "1", "-c", "200", "-d", "300s", "--timeout", "60s", "--latency", url()]);
  // As many as there are: each asks for the next page as soon as it has one.
  const established = () =>
    at
      .outside("/bin/cat", ["/proc/net/tcp"])
      .ended.then(
        ({ out }) =>
          out.split("\n").filter((line) => line.trim().split(/ +/)[3] === "01" && line.includes(hex(port))).length,
      );
  await until("200 connections", async () => (await established()) >= 200);
  await cycles(at, pod, async () => {
    if (wrk.child.exitCode !== null) throw new Error(`wrk has ended: ${wrk.said.out}${wrk.said.err}`);
    const code = (await asks()).code;
    if (code !== 0) throw new Error(`curl: ${code}`);
  });
  await at.interrupt(wrk, "wrk");
  const { out } = await wrk.ended;
  t.match(out, /\d{3,} requests in/);
  t.notMatch(out, /Socket errors|Non-2xx/, "no request failed");
  t.comment(out.replace(/\s+/g, " "));
  await pod.kill("SIGTERM");
  t.equal(await pod.ended(), 0);
});

function hex(port: number): string {
  return `:${port.toString(16).toUpperCase().padStart(4, "0")} `;
}
