/**
 * redis: a hundred thousand keys, a million, a client that writes through a socket inside the pod, a child that saves, and an
 * append-only file that another redis must be able to read afterwards.
 */
import { createHash } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import type { Pod } from "virt-run";
import { reattach } from "virt-run";
import { fiveCycles, freePort, leaveNothing, run } from "../support/apps.js";
import { sandbox } from "../support/env.js";
import { needs } from "../support/packages.js";
import { imageName, logged, start, until } from "../support/pods.js";

leaveNothing(t);

type Ask = (...words: string[]) => string;

/** Asks the redis of this host that listens on a port; an error reply is an error. */
function client(port: number): Ask {
  return (...words) => run(needs("redis-cli"), ["-e", "-p", String(port), ...words]).trim();
}

function settings(port: number, directory: string): string[] {
  mkdirSync(directory, { recursive: true });
  const words = { port, bind: "127.0.0.1", dir: directory, save: "", "enable-debug-command": "local" };
  return Object.entries(words).flatMap(([key, value]) => [`--${key}`, String(value)]);
}

async function startRedis(args: string[]): Promise<Pod> {
  const pod = await start(needs("redis-server"), args);
  await logged(pod, "Ready to accept connections");
  return pod;
}

/** Values that are as good as random and can be made again: 1 KiB each. */
function textOf(key: number): string {
  return createHash("shake256", { outputLength: 512 }).update(String(key)).digest("hex");
}

function load(port: number, keys: number): void {
  const commands: string[] = [];
  for (let key = 0; key < keys; key++) commands.push(`SET key:${key} ${textOf(key)}\r\n`);
  const said = run(needs("redis-cli"), ["-p", String(port), "--pipe"], { input: commands.join("") });
  if (!said.includes("errors: 0")) throw new Error(said);
}

t.test("100 000 keys, and a writer between the cycles", async (t) => {
  const port = await freePort();
  const directory = join(sandbox, "redis-large");
  const ask = client(port);
  const pod = await startRedis([...settings(port, directory), "--appendonly", "yes"]);
  load(port, 100_000);
  t.ok(Number(/^used_memory:(\d+)/m.exec(ask("INFO", "memory"))?.[1]) > 100e6, "more than 100 MB of data");
  let digest = ask("DEBUG", "DIGEST");
  let written = 0;
  const write = () => {
    for (let n = 0; n < 20; n++) ask("RPUSH", "written", String(written++));
    digest = ask("DEBUG", "DIGEST");
  };
  let end = await fiveCycles(pod, (_, cycle) => {
    const now = ask("DEBUG", "DIGEST");
    if (now !== digest) throw new Error(`the data are ${now}, they were ${digest}`);
    for (let key = cycle; key < 100_000; key += 20_000)
      if (ask("GET", `key:${key}`) !== textOf(key)) throw new Error(`key:${key} is wrong`);
    write();
  });

  const image = await end.detach({ image: imageName(), tcp: "close" });
  t.throws(() => ask("PING"), "nobody listens on the port while it is away");
  end = await reattach(image, { stdio: "log" });
  t.equal(ask("DEBUG", "DIGEST"), digest);
  write();
  t.equal(ask("LLEN", "written"), String(written));

  await end.kill("SIGTERM");
  t.match(await end.ended(), { code: 0 });
  // What was written before, between and after the cycles is in the file: another redis has the same of it.
  const other = await startRedis([...settings(port, directory), "--appendonly", "yes"]);
  t.equal(ask("DEBUG", "DIGEST"), digest, "the append-only file is whole");
  await other.stop();
});

t.test("a million keys, 1 GiB", async (t) => {
  const port = await freePort();
  const ask = client(port);
  const pod = await startRedis(settings(port, join(sandbox, "redis-million")));
  ask("DEBUG", "POPULATE", "1000000", "key", "1000");
  t.ok(Number(/^used_memory:(\d+)/m.exec(ask("INFO", "memory"))?.[1]) > 2 ** 30, "more than 1 GiB of data");
  // All of it is compared at the end, a thousandth in between: redis takes seconds for a digest of a million keys.
  const digest = ask("DEBUG", "DIGEST");
  const some = Array.from({ length: 1000 }, (_, n) => `key:${n * 997}`);
  const sample = ask("DEBUG", "DIGEST-VALUE", ...some);
  const end = await fiveCycles(pod, (_, cycle) => {
    if (ask("DEBUG", "DIGEST-VALUE", ...some) !== sample) throw new Error("some values are wrong");
    ask("SET", `written:${cycle}`, textOf(cycle));
    if (ask("DBSIZE") !== String(1_000_000 + cycle)) throw new Error(`${ask("DBSIZE")} keys`);
  });
  for (let cycle = 1; cycle <= 5; cycle++) {
    t.equal(ask("GET", `written:${cycle}`), textOf(cycle));
    ask("DEL", `written:${cycle}`);
  }
  t.equal(ask("DEBUG", "DIGEST"), digest);
  await end.stop();
});

t.test("a client inside the pod, connected all the time", async (t) => {
  const port = await freePort();
  const socket = join(sandbox, "redis.sock");
  const ask = client(port);
  const server = [needs("redis-server"), ...settings(port, join(sandbox, "redis-small")), "--unixsocket", socket];
  // `$0` is the client; the server's settings are the arguments.
  const script = `"$@" & until [ -S ${socket} ]; do sleep 0.01; done; "$0" -s ${socket} -r 1000000 -i 0.001 INCR counter; wait`;
  const pod = await start(needs("bash"), ["-c", script, needs("redis-cli"), ...server]);
  const counter = () => Number(ask("GET", "counter"));
  let last = await until("the client to count", () => {
    if (!pod.logs().toString().includes("Ready to accept")) return false;
    const now = counter();
    return now > 10 && now;
  });
  const end = await fiveCycles(pod, async () => {
    const before = last;
    last = await until("the client to go on", () => {
      const now = counter();
      return now > before + 10 && now;
    });
    if (!/name= .*cmd=incr/.test(ask("CLIENT", "LIST"))) throw new Error("the client is not connected");
  });
  // Each answer was one more than the one before: nothing was lost, done twice or answered twice.
  const answers = end
    .logs()
    .toString()
    .split("\n")
    .filter((line) => /^\d+\r?$/.test(line))
    .map(Number);
  t.ok(answers.length > 50 && answers.every((n, i) => n === i + 1), `${answers.length} answers, in order`);
});

t.test("a child that saves what its parent had when it was forked", async (t) => {
  const port = await freePort();
  const directory = join(sandbox, "redis-saving");
  const ask = client(port);
  // redis itself begins to save, after two seconds: a child made by a command would hold that command's connection.
  const args = [...settings(port, directory), "--rdb-key-save-delay", "250000", "--save", "2 1"];
  const pod = await startRedis(args);
  for (let key = 0; key < 40; key++) ask("SET", `key:${key}`, textOf(key));
  const digest = ask("DEBUG", "DIGEST");
  await logged(pod, "Background saving started");
  ask("CONFIG", "SET", "save", "");
  ask("SET", "key:0", "written after the fork");
  const saving = () => ask("INFO", "persistence").includes("rdb_bgsave_in_progress:1");
  const end = await fiveCycles(pod, (_, cycle) => {
    if (cycle <= 2 && !saving()) throw new Error("the child is gone");
    ask("SET", `key:${cycle}`, "written after the fork");
  });
  await until("the child to have saved", () => !saving());
  t.match(ask("INFO", "persistence"), /rdb_last_bgsave_status:ok/);
  await end.kill("SIGKILL");
  await end.ended();
  const other = await startRedis(settings(port, directory));
  t.equal(ask("DEBUG", "DIGEST"), digest, "it saved the data of its fork");
  await other.stop();
});
