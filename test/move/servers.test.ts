/**
 * Servers that are moved while clients on a third host speak with them: the connections stay, at the address they were made to,
 * and every answer is the one that was due.
 */
import { chmodSync, chownSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { isRoot, leaveNothing, run, sources } from "../support/apps.js";
import { sandbox } from "../support/env.js";
import type { Host } from "../support/hosts.js";
import { hostsWithSsh, logHas, logOf, stops, toAndFro, told } from "../support/moves.js";
import { needs } from "../support/packages.js";
import { account, goesOn } from "../support/places.js";
import { until } from "../support/pods.js";

leaveNothing(t);

const nobody = 65534;

t.afterEach((t) => {
  t.comment(`the pod stood still for ${stops.splice(0).join(", ")} ms`);
});

t.test("redis with a client that pipelines, there and back ten times", async (t) => {
  const [a, b, c] = (await hostsWithSsh(t, ["a", "b", "c"])) as [Host, Host, Host];
  const settings = ["--port", "6379", "--bind", "0.0.0.0", "--save", "", "--protected-mode", "no"];
  await told(a, "run", "-d", "--name", "cache", "--", needs("redis-server"), ...settings);
  await logHas(a, "Ready to accept connections");
  const pipeline = c.node(join(sources, "connections", "pipeline.mjs"), [a.address, "6379", "64"]);
  await goesOn(pipeline, 1000);
  const last = await toAndFro([a, b], "cache", 10, () => goesOn(pipeline, 1000));
  const { count = 0, longestMs = 0 } = await account(pipeline);
  t.pass(`${count} answers, in order; the longest pause was ${longestMs} ms`);
  await told(last, "stop", "cache");
  for (const host of [a, b]) await told(host, "rm", "-f", "cache").catch(() => {});
});

t.test("PostgreSQL with psql in a transaction", async (t) => {
  const [a, b, c] = (await hostsWithSsh(t, ["a", "b", "c"])) as [Host, Host, Host];
  const directory = join(sandbox, "pg");
  const data = join(directory, "data");
  mkdirSync(directory, { mode: 0o700 });
  const asUser = isRoot ? [needs("setpriv"), `--reuid=${nobody}`, `--regid=${nobody}`, "--clear-groups", "--"] : [];
  if (isRoot) {
    chmodSync(sandbox, 0o711);
    chownSync(directory, nobody, nobody);
  }
  const words = (...all: string[]) => [...asUser, ...all] as [string, ...string[]];
  const [init, ...initArgs] = words(needs("initdb"), "-D", data, "-U", "tester", "-A", "trust", "--no-sync");
  run(init, initArgs, { cwd: directory, env: { PATH: process.env["PATH"], LC_ALL: "C" } });
  writeFileSync(join(data, "pg_hba.conf"), "host all all 0.0.0.0/0 trust\n");
  // Both hosts see one disk: a unix socket's name would be taken there.
  const server = words(needs("postgres"), "-D", data, "-k", "", "-c", "listen_addresses=*");
  await told(a, "run", "-d", "--name", "base", "-w", directory, "-e", "LC_ALL=C", "--", ...server);
  await logHas(a, "ready to accept connections");
  const flags = ["--no-psqlrc", "-qAt", "--set=ON_ERROR_STOP=1", "-h", a.address, "-U", "tester", "postgres"];
  const psql = c.start(needs("psql"), flags);
  let marks = 0;
  const ask = async (sql: string) => {
    const from = psql.said.out.length;
    const mark = `mark ${++marks}\n`;
    psql.child.stdin?.write(`${sql}\n\\echo ${mark}`);
    await until({ toString: () => `an answer to ${sql}: ${psql.said.err}` }, () => psql.said.out.endsWith(mark));
    return psql.said.out.slice(from, -mark.length).trim();
  };
  await ask("CREATE TABLE t AS SELECT n, md5(n::text) AS text FROM generate_series(1, 20000) AS n;");
  await ask("BEGIN; UPDATE t SET text = 'changed' WHERE n % 10 = 0;");
  const transaction = await ask("SELECT txid_current();");
  const last = await toAndFro([a, b], "base", 4, async (_, n) => {
    const current = await ask("SELECT txid_current();");
    if (current !== transaction) throw new Error(`transaction ${current}, it was ${transaction}`);
    await ask(`UPDATE t SET text = 'changed' WHERE n = ${n};`);
    const changed = await ask("SELECT count(*) FROM t WHERE text = 'changed';");
    if (changed !== String(2000 + n)) throw new Error(`${changed} changed`);
  });
  await ask("COMMIT;");
  t.equal(await ask("SELECT count(*), sum(n) FROM t WHERE text = 'changed';"), "2004|20010010");
  t.equal(await ask("SELECT count(*) FROM t WHERE text = md5(n::text);"), "17996");
  psql.child.stdin?.end("\\q\n");
  t.match(await psql.ended, { code: 0 });
  t.notMatch(logOf(last), /(ERROR|FATAL|PANIC): (?! *the database system is starting up)/);
  await told(last, "kill", "-s", "INT", "base");
  await told(last, "wait", "base");
  t.match(await told(last, "logs", "base"), /database system is shut down/);
  for (const host of [a, b]) await told(host, "rm", "-f", "base").catch(() => {});
});

/** Sixty times a second the state changes and goes to whoever sent something since. */
const game = `
import socket, struct, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", 5000)); s.setblocking(False)
print("READY", flush=True)
tick, inputs, player, due = 0, 0, None, time.monotonic()
while True:
    due += 1 / 60
    tick += 1
    while True:
        try: data, player = s.recvfrom(100)
        except BlockingIOError: break
        n, = struct.unpack("!Q", data)
        assert n > inputs, (n, inputs)
        inputs = n
    if player: s.sendto(struct.pack("!QQ", tick, inputs), player)
    time.sleep(max(0, due - time.monotonic()))
`;

const player = `
import socket, struct, sys, threading, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect((sys.argv[1], 5000))
sent = 0
def inputs():
    global sent
    while True:
        sent += 1
        s.send(struct.pack("!Q", sent))
        time.sleep(1 / 60)
threading.Thread(target=inputs, daemon=True).start()
got, last, heard, longest, at = 0, 0, 0, 0, time.monotonic()
while True:
    tick, inputs = struct.unpack("!QQ", s.recv(100))
    assert tick > last and heard <= inputs <= sent, (tick, last, inputs, heard, sent)
    now = time.monotonic()
    longest = max(longest, now - at)
    got, last, heard, at = got + 1, tick, inputs, now
    print("n", got, "of", tick, "inputs", inputs, "of", sent, "longest", round(longest * 1000), flush=True)
`;

t.test("a server that sends sixty datagrams a second", async (t) => {
  const [a, b, c] = (await hostsWithSsh(t, ["a", "b", "c"])) as [Host, Host, Host];
  await told(a, "run", "-d", "--name", "game", "--", needs("python3"), "-c", game);
  await logHas(a, "READY");
  const playing = c.start(needs("python3"), ["-c", player, a.address]);
  const count = () => Number(/n (\d+) .*\n$/.exec(playing.said.out)?.[1] ?? 0);
  const goesOn = async () => {
    const before = count();
    await until(
      { toString: () => `more datagrams: ${playing.said.err}${playing.said.out.slice(-100)}` },
      () => count() > before + 30,
    );
  };
  await goesOn();
  const last = await toAndFro([a, b], "game", 4, goesOn);
  t.notMatch(logOf(last), /Error/);
  t.equal(playing.child.exitCode, null, playing.said.err);
  t.pass(playing.said.out.trim().split("\n").at(-1) ?? "");
  await told(last, "rm", "-f", "game");
  playing.child.kill("SIGKILL");
  await playing.ended;
  for (const host of [a, b]) await told(host, "rm", "-f", "game").catch(() => {});
});
