/**
 * PostgreSQL with psql in a transaction: a tree of processes with shared memory, semaphores, latches and sockets between
 * them. It refuses to be run by root, so root's pod gives its rights away first.
 */
import { chmodSync, chownSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import type { Pod } from "virt-run";
import { fiveCycles, isRoot, leaveNothing, run } from "../support/apps.js";
import { sandbox } from "../support/env.js";
import { needs } from "../support/packages.js";
import { logged, start } from "../support/pods.js";

leaveNothing(t);

const nobody = 65534;
/** Words that come before a command of PostgreSQL's. */
const asUser = isRoot ? [needs("setpriv"), `--reuid=${nobody}`, `--regid=${nobody}`, "--clear-groups", "--"] : [];

function runAsUser(command: string, ...args: string[]): string {
  const [first, ...rest] = [...asUser, command, ...args] as [string, ...string[]];
  return run(first, rest, { cwd: directory, env: { PATH: process.env["PATH"], LC_ALL: "C" } });
}

const directory = join(sandbox, "pg");
const data = join(directory, "data");
mkdirSync(directory, { mode: 0o700 });
if (isRoot) {
  chmodSync(sandbox, 0o711);
  chownSync(directory, nobody, nobody);
}

/** Server and client: the client is what the pod was launched for, and reads what we write to the pod. */
const script = `
export LC_ALL=C PGHOST=${directory} PGDATABASE=postgres PGUSER=tester
"$1" -D ${data} -k ${directory} -c listen_addresses= -c autovacuum_naptime=1 -c checkpoint_timeout=30 \\
  -c min_parallel_table_scan_size=0 -c log_min_messages=info </dev/null >${directory}/server.log 2>&1 &
until "$2" -qtc 'SELECT 1' >/dev/null 2>&1; do sleep 0.05; done
exec "$2" --no-psqlrc --no-align --tuples-only --set=ON_ERROR_STOP=1
`;

let marks = 0;
/** Says something to psql; resolves to what it answered, when it has. */
async function ask(pod: Pod, sql: string): Promise<string> {
  const mark = `mark ${++marks}`;
  const before = pod.logs().length;
  pod.stdin?.write(`${sql}\n\\echo ${mark}\n`);
  await logged(pod, `${mark}\n`);
  return pod.logs().subarray(before).toString().replace(`${mark}\n`, "").trim();
}

async function processes(pod: Pod, what: RegExp): Promise<number[]> {
  const { processes = [] } = await pod.inspect();
  return processes.filter(({ command }) => what.test(command.join(" "))).map(({ pid }) => pid);
}

t.test("psql in a transaction", async (t) => {
  runAsUser(needs("initdb"), "-D", data, "-U", "tester", "-A", "trust", "--data-checksums", "--no-sync");
  const [command, ...args] = [...asUser, needs("bash"), "-c", script, "bash", needs("postgres"), needs("psql")];
  let pod = await start(command as string, args, { stdio: "pipe", cwd: directory });
  await ask(pod, "CREATE TABLE t AS SELECT n, md5(n::text) AS text FROM generate_series(1, 100000) AS n;");
  await ask(pod, "CREATE TABLE beside (n int);");
  await ask(
    pod,
    "BEGIN; UPDATE t SET text = 'changed' WHERE n % 10 = 0; DECLARE c CURSOR FOR SELECT n FROM t ORDER BY n;",
  );
  t.equal(await ask(pod, "FETCH 2 FROM c;"), "1\n2");
  const transaction = await ask(pod, "SELECT txid_current();");
  const client = await ask(pod, "SELECT pg_backend_pid();");
  const helpers = (await processes(pod, /^postgres: /)).length;
  t.ok(helpers >= 6, `${helpers} processes behind the server`);

  pod = await fiveCycles(
    pod,
    async (pod, cycle) => {
      const expect = async (sql: string, answer: string) => {
        const said = await ask(pod, sql);
        if (said !== answer) throw new Error(`${sql} gives '${said}' and not '${answer}'`);
      };
      await expect("SELECT txid_current();", transaction);
      await expect("SELECT pg_backend_pid();", client);
      await expect("FETCH 1 FROM c;", String(cycle + 2));
      await expect("SELECT count(*) FROM t WHERE text = 'changed';", String(10_000 + cycle - 1));
      await ask(pod, `UPDATE t SET text = 'changed' WHERE n = ${cycle};`);
      // A session that comes now does not see what is not committed; the server makes processes for it, and for its
      // parallel query, and takes locks that the transaction does not hold.
      const beside = join(directory, `beside-${cycle}`);
      const session = await pod.exec(
        asUser[0] ?? needs("psql"),
        [
          ...(isRoot ? [...asUser.slice(1), needs("psql")] : []),
          ...["-h", directory, "-U", "tester", "-d", "postgres", "-qAtX", "-o", beside],
          ...[
            "-c",
            `SET force_parallel_mode = on; SELECT count(*) FROM t WHERE text = 'changed'; INSERT INTO beside VALUES (${cycle});`,
          ],
        ],
        { stdio: "inherit", cwd: directory },
      );
      const end = await session.wait();
      session.close();
      if (end.code !== 0) throw new Error(`the session beside ended with ${JSON.stringify(end)}`);
      const saw = run("cat", [beside]).trim();
      if (saw !== "0") throw new Error(`the session beside saw ${saw}`);
    },
    { reattach: { stdio: "pipe" } },
  );

  await ask(pod, "COMMIT;");
  t.equal(await ask(pod, "SELECT count(*), sum(n) FROM t WHERE text = 'changed';"), "10005|500050015");
  t.equal(await ask(pod, "SELECT count(*) FROM t WHERE text = md5(n::text);"), "89995");
  t.equal(await ask(pod, "SELECT string_agg(n::text, ' ' ORDER BY n) FROM beside;"), "1 2 3 4 5");
  const [server] = await processes(pod, /bin\/postgres -D/);
  pod.stdin?.write("\\q\n");
  t.match(await pod.wait(), { code: 0 });
  await pod.kill("SIGTERM", { pid: server as number });
  await pod.ended();
  const log = run("cat", [join(directory, "server.log")]);
  t.match(log, /database system is shut down/);
  t.notMatch(log, /(ERROR|FATAL|PANIC): (?! *the database system is starting up)/);
  t.match(runAsUser(needs("pg_checksums"), "--check", "-D", data), /Bad checksums: *0/);
});
