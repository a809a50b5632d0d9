/**
 * Clients in a pod whose servers are outside and are not disturbed: curl, ssh, Node, Java, unix sockets, UDP. Both ends check
 * what they get.
 */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { userInfo } from "node:os";
import { join } from "node:path";
import t from "tap";
import { countedUp, freePort, isRoot, leaveNothing, linesWith, run, sources } from "../support/apps.js";
import type { Running } from "../support/cli.js";
import { sandbox } from "../support/env.js";
import { needs } from "../support/packages.js";
import { account, atEach, countIn, cycles, goesOn, type Place, type Traveller } from "../support/places.js";
import { until } from "../support/pods.js";

leaveNothing(t);

const node = process.execPath;
const script = (name: string) => join(sources, "connections", name);

/** Starts a server outside, and waits until it listens. */
async function serve(start: Place["outside"], name: string, ...words: string[]): Promise<Running> {
  const server = start(node, [script(name), ...words]);
  await until({ toString: () => `a server: ${server.said.err}` }, () => server.said.out.includes("listening\n"));
  return server;
}

/** Cycles of a client whose server counts what it gets; then the end of both. */
async function goesOnWith(at: Place, pod: Traveller, server: Running, more = 50): Promise<Record<string, number>> {
  await goesOn(server, more);
  await cycles(at, pod, () => goesOn(server, more));
  await pod.kill("SIGKILL");
  await pod.ended();
  return account(server);
}

atEach(["here", "on"], "curl with a download of 1 GiB", async (t, at) => {
  const port = String(await freePort());
  const bytes = 1 << 30;
  const server = await serve(at.outside, "count.mjs", "download", at.others, port, String(bytes));
  // Slow enough to be under way all the time; a command for each step takes longer than a call.
  const rate = at.where === "here" ? "80M" : "120M";
  const line = `${needs("curl")} -sS --limit-rate ${rate} http://${at.others}:${port}/ | sha256sum`;
  const pod = await at.launch(needs("bash"), ["-c", line]);
  await goesOn(server, 20);
  await cycles(at, pod, () => goesOn(server, 20));
  t.ok(countIn(server.said.out) < bytes / 2 ** 20, "it was under way all the time");
  t.equal(await pod.ended(), 0);
  const { sha256, longestMs } = await account<{ sha256: string; longestMs: number }>(server);
  t.equal((await pod.logs()).trim(), `${sha256}  -`, "every byte arrived");
  t.comment(`the longest pause was ${longestMs} ms`);
});

atEach(["here", "back"], "an ssh session", async (t, at) => {
  const port = String(await freePort());
  const directory = join(at.directory, "ssh");
  mkdirSync(directory, { mode: 0o700 });
  const inside = (name: string) => join(directory, name);
  for (const key of ["host", "user"]) run(needs("ssh-keygen"), ["-q", "-t", "ed25519", "-N", "", "-f", inside(key)]);
  run("/bin/cp", [inside("user.pub"), inside("authorized")]);
  writeFileSync(
    inside("config"),
    `ListenAddress ${at.others}\nPort ${port}\nHostKey ${inside("host")}\nAuthorizedKeysFile ${inside("authorized")}
     StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n`,
  );
  // Root's would have a directory of its own in /run: in a mount namespace that is gone with it.
  const own = 'mount -t tmpfs none /run && mkdir /run/sshd && exec "$@"';
  const before = isRoot ? [needs("unshare"), "--mount", needs("bash"), "-c", own, "bash"] : [];
  const [command, ...words] = [...before, needs("sshd"), "-D", "-e", "-f", inside("config")];
  const server = at.outside(command as string, words);
  await until({ toString: () => server.said.err }, () => server.said.err.includes("Server listening"));
  const stop = inside("stop");
  const options = [
    "StrictHostKeyChecking=no",
    `UserKnownHostsFile=${inside("known")}`,
    "BatchMode=yes",
    "LogLevel=ERROR",
  ];
  const ssh = [needs("ssh"), "-F", "none", "-i", inside("user"), "-p", port, ...options.flatMap((o) => ["-o", o])];
  const line = `i=0; while [ ! -e ${stop} ]; do echo $i; i=$((i+1)); sleep 0.005; done | "$@"; echo "ssh ended: $?"`;
  const there = "exec cat";
  const pod = await at.launch(needs("bash"), [
    "-c",
    line,
    "bash",
    ...ssh,
    `${userInfo().username}@${at.others}`,
    there,
  ]);
  const lines = async () => (await pod.logs()).split("\n").filter((one) => /^\d+$/.test(one));
  const more = async () => {
    const from = (await lines()).length;
    await until({ toString: () => `ssh to go on: ${server.said.err}` }, async () => {
      const log = await pod.logs();
      if (log.includes("ssh ended")) throw new Error(`${log.slice(-500)} ${server.said.err.slice(-500)}`);
      return (await lines()).length > from + 20;
    });
  };
  await more();
  await cycles(at, pod, more);
  writeFileSync(stop, "");
  t.equal(await pod.ended(), 0);
  t.match(await pod.logs(), /ssh ended: 0\n/);
  t.pass(`${countedUp(await lines(), "ssh")} lines came back, in order`);
  server.child.kill("SIGTERM");
  await server.ended;
});

atEach(["here", "on"], "Node's HTTP client with a keep-alive agent", async (t, at) => {
  const port = String(await freePort());
  const server = await serve(at.outside, "keep-alive.mjs", "serve", at.others, port);
  const pod = await at.launch(node, [script("keep-alive.mjs"), "call", at.others, port, "5"]);
  const log = async () => countIn(await pod.logs());
  const more = async () => {
    const from = await log();
    await until("the client to go on", async () => (await log()) > from + 50);
  };
  await more();
  await cycles(at, pod, more);
  t.notMatch(await pod.logs(), /WRONG/);
  await pod.kill("SIGKILL");
  await pod.ended();
  server.child.kill("SIGKILL");
  await server.ended;
});

t.before(() => run(needs("javac"), ["-J-XX:-UsePerfData", "-d", sandbox, join(sources, "java", "Count.java")]));

atEach(["here", "back"], "Java, on one connection", async (t, at) => {
  const port = String(await freePort());
  const server = await serve(at.outside, "count.mjs", "serve", at.others, port);
  const words = ["-XX:-UsePerfData", "-Xmx64m", "-Djava.net.preferIPv4Stack=true", "-cp", sandbox, "Count"];
  const pod = await at.launch(needs("java"), [...words, at.others, port]);
  const { count, longestMs, connections } = await goesOnWith(at, pod, server);
  t.equal(connections, 1);
  t.comment(`${count} numbers, the longest pause was ${longestMs} ms`);
  t.notMatch(await pod.logs(), /WRONG/);
});

atEach(["here", "back"], "a unix socket", async (t, at) => {
  const path = join(at.directory, "count.sock");
  const server = await serve(at.beside, "count.mjs", "serve", path);
  const pod = await at.launch(node, [script("count.mjs"), "call", path]);
  const { connections, count, longestMs } = await goesOnWith(at, pod, server);
  t.equal(connections, 1);
  t.comment(`${count} numbers, the longest pause was ${longestMs} ms`);
});

atEach(["here", "on"], "UDP, 60 times a second both ways", async (t, at) => {
  const port = String(await freePort());
  const server = await serve(at.outside, "count.mjs", "udp", "serve", at.others, port);
  // Lost is what waits unread when it leaves for the second time (docs/connections.md), and what comes when a queue is full.
  const gaps = at.where === "here" ? 0 : 2 * at.cycles;
  const pod = await at.launch(node, [script("count.mjs"), "udp", "call", at.others, port, String(gaps)]);
  const log = async () => countIn(await pod.logs());
  const more = async () => {
    const from = await log();
    await goesOn(server, 20);
    await until("the client to go on", async () => (await log()) > from + 20);
  };
  await more();
  await cycles(at, pod, more);
  t.notMatch(await pod.logs(), /WRONG/, "the pod has every number, in order");
  await pod.kill("SIGKILL");
  await pod.ended();
  const { got, longestMs } = await account(server);
  t.pass(`so has the other end: ${got}; the longest pause was ${longestMs} ms`);
});

atEach(["here", "on"], "psql in the pod, over TCP and a unix socket", async (t, at) => {
  const port = String(await freePort());
  const directory = join(at.directory, "pg");
  const data = join(directory, "data");
  mkdirSync(directory, { mode: 0o755 });
  const asUser = isRoot ? [needs("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups", "--"] : [];
  if (isRoot) {
    chmodSync(sandbox, 0o711);
    run("/bin/chown", ["65534:65534", directory]);
  }
  const env = { PATH: process.env["PATH"], LC_ALL: "C" };
  const words = (...all: string[]) => [...asUser, ...all] as [string, ...string[]];
  const [init, ...initArgs] = words(needs("initdb"), "-D", data, "-U", "tester", "-A", "trust", "--no-sync");
  run(init, initArgs, { cwd: directory, env });
  writeFileSync(join(data, "pg_hba.conf"), "local all all trust\nhost all all 0.0.0.0/0 trust\n");
  const there = ["/usr/bin/env", "-C", directory];
  const [command, ...args] = words(...there, needs("postgres"), "-D", data, "-k", directory, "-p", port, "-h", at.pods);
  const server = at.beside(command, args, { cwd: directory, env });
  await until({ toString: () => server.said.err }, () => server.said.err.includes("ready to accept connections"));
  for (const host of [at.pods, directory]) {
    const stop = join(at.directory, `stop-${host.length}`);
    const psql = [
      needs("psql"),
      "-h",
      host,
      "-p",
      port,
      "-U",
      "tester",
      "-X",
      "-qAt",
      "--set=ON_ERROR_STOP=1",
      "postgres",
    ];
    const line = `{ echo 'CREATE TABLE "${host}" (n serial); BEGIN;'
      while [ ! -e ${stop} ]; do echo 'INSERT INTO "${host}" DEFAULT VALUES RETURNING $$n $$ || n;'; sleep 0.005; done
      echo 'COMMIT;'; } | "$@"`;
    const pod = await at.launch(needs("bash"), ["-c", line, "bash", ...psql], { env });
    const rows = async () => linesWith(await pod.logs(), "n ");
    const more = async () => {
      const from = (await rows()).length;
      await until("psql to go on", async () => (await rows()).length > from + 10);
    };
    await more();
    await cycles(at, pod, more);
    writeFileSync(stop, "");
    t.equal(await pod.ended(), 0);
    const count = countedUp(["0", ...(await rows())], "psql") - 1;
    const ask = [...psql.slice(1), "-c", `SELECT count(*), max(n) FROM "${host}"`];
    t.equal((await at.beside(needs("psql"), ask).ended).out, `${count}|${count}\n`, `${count} rows by ${host}`);
  }
  // What stands for it here may be another process.
  const [pid = ""] = readFileSync(join(data, "postmaster.pid"), "utf8").split("\n");
  await at.beside("/bin/kill", ["-INT", pid]).ended;
  await server.ended;
});
