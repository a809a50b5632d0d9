/**
 * Moves that do not come about: the other host does not take the pod, has no virt-run, or the user thinks better of it. The pod
 * runs on, and nothing is left at the other host.
 */

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { leaveNothing } from "../support/apps.js";
import { sandbox } from "../support/env.js";
import type { Host } from "../support/hosts.js";
import { hostsWithSsh, logHas, logOf, moving, remains, sockets, told, whereRuns } from "../support/moves.js";
import { needs } from "../support/packages.js";
import { until } from "../support/pods.js";

leaveNothing(t);

/** Listens, and counts so that it can be seen to go on. */
const counting = `
import socket, sys, time
s = socket.create_server(("0.0.0.0", int(sys.argv[1])))
m = bytearray(int(sys.argv[2]) << 20)
for i in range(0, len(m), 4096): m[i:i + 4] = i.to_bytes(4, "big")
n = 0
while True:
    n += 1
    m[n * 4096 % len(m)] = n & 255
    print("n", n, flush=True)
    time.sleep(0.005)
`;

const counted = (host: Host) => Number(/n (\d+)\n(?!.*\n)/s.exec(logOf(host))?.[1] ?? 0);

async function runsOn(host: Host): Promise<void> {
  const before = counted(host);
  await until({ toString: () => `the pod to run on: ${logOf(host).slice(-200)}` }, () => counted(host) > before + 10);
}

async function counter(host: Host, mebibytes = 1, ...words: string[]): Promise<void> {
  await told(
    host,
    "run",
    "-d",
    "--name",
    "counter",
    ...words,
    "--",
    needs("python3"),
    "-c",
    counting,
    "7000",
    String(mebibytes),
  );
  await logHas(host, "n 1\n");
}

t.test("what the other host does not take is said all at once, and the pod does not stop", async (t) => {
  const [a, b] = (await hostsWithSsh(t)) as [Host, Host];
  const data = join(sandbox, "data");
  mkdirSync(data, { recursive: true });
  await counter(a, 1, "-w", data);
  await told(b, "run", "-d", "--name", "counter", "--", needs("python3"), "-c", counting, "7000", "1");
  await logHas(b, "n 1\n");
  const said = await moving(a, b, "counter", ["--json", "--remap", `path:${data}=/nowhere/at/all`]).ended;
  t.equal(said.code, 1);
  const error = JSON.parse(said.out || said.err) as { error?: unknown } & Record<string, unknown>;
  const {
    code,
    message,
    blockers = [],
  } = (error.error ?? error) as {
    code: string;
    message: string;
    blockers?: { code: string; message: string }[];
  };
  t.equal(code, "ERR_MOVE_REFUSED", message);
  t.match(message, /runs on here/);
  const all = blockers.map((blocker) => `${blocker.code} ${blocker.message}`).join("\n");
  t.match(all, /7000/, "the port");
  t.match(all, /counter/, "the name");
  t.match(all, /\/nowhere\/at\/all/, "the directory");
  await runsOn(a);
  await runsOn(b);
  t.strictSame([...remains(a), ...remains(b)], []);
  t.equal(sockets(b).length, 1);
  for (const host of [a, b]) await told(host, "rm", "-f", "counter");
});

t.test("a host without virt-run, one with an old one, and no host", async (t) => {
  const [a, b] = (await hostsWithSsh(t)) as [Host, Host];
  await counter(a);
  const fails = async (to: Host, remote: string, what: RegExp) => {
    const said = await moving(a, to, "counter", ["-q"], { remote }).ended;
    t.equal(said.code, 1);
    t.match(said.err, what);
    await runsOn(a);
  };
  await fails(b, "virt-run-that-is-not-there", /ERR_REMOTE_MISSING/);
  await fails(b, "echo 'virt-run: receive: not found (ERR_NOT_FOUND)' >&2; exit 127; :", /ERR_REMOTE_VERSION/);
  await fails(b, "echo welcome to this machine; :", /ERR_MOVE_PROTOCOL|ERR_MOVE_LOST/);
  await fails({ ...b, address: "10.77.0.99" }, "virt-run", /ERR_UNREACHABLE|ERR_TRANSPORT/);
  t.strictSame(sockets(b), []);
  await told(a, "rm", "-f", "counter");
});

t.test("SIGINT before the commit, and a limit of bandwidth", async (t) => {
  const [a, b] = (await hostsWithSsh(t)) as [Host, Host];
  await counter(a, 24);
  for (const words of [[], ["--cold"]]) {
    const running = moving(a, b, "counter", ["--bandwidth", "2000000", ...words]);
    const phase = words.length > 0 ? "virt-run: stop\n" : "virt-run: copy";
    await until({ toString: () => `${phase}: ${running.said.err}` }, () => running.said.err.includes(phase));
    await until("the image to begin", () => remains(b).length > 0);
    // What stands for it here is nsenter(1), which passes no signal on.
    const pids = (await a.run(needs("bash"), ["-c", "grep -lsz ^move$ /proc/[0-9]*/cmdline | cut -d/ -f3"])).trim();
    await a.run(needs("bash"), ["-c", `kill -INT ${pids.split("\n").join(" ")}`]);
    const said = await running.ended;
    t.equal(said.code, 1);
    t.match(said.err, /runs on here \(ERR_ABORTED\)/);
    await runsOn(a);
    await until(
      { toString: () => `nothing to be left: ${remains(b)} ${sockets(b)}` },
      () => remains(b).length + sockets(b).length === 0,
    );
    t.strictSame(remains(a), []);
  }
  // 24 MiB at 16 MiB a second cannot take less than 1.4 s: a tenth of a second may go at once.
  const start = performance.now();
  const said = await moving(a, b, "counter", ["--json", "--bandwidth", String(16 << 20)]).ended;
  const ms = performance.now() - start;
  t.equal(said.code, 0, said.err);
  t.ok(ms > 1350, `24 MiB at 16 MiB/s took ${Math.round(ms)} ms`);
  const document = JSON.parse(said.out);
  t.match(document, {
    schemaVersion: 1,
    name: "counter",
    target: `ssh://${b.address}`,
    there: { name: "counter" },
    epoch: 3,
  });
  await runsOn(b);
  t.strictSame(whereRuns([a, b], `${needs("python3")} -c`), ["b"]);
  t.match((await a.virtRun(["ps", "-a"])).out, /counter/, "the source knows where it went");
  t.comment((await a.virtRun(["ps", "-a"])).out);
  await told(b, "rm", "-f", "counter");
});
