/**
 * What it costs that connections outlive a move: a relayed connection against a direct one between the same hosts, the pause
 * that a client sees, and what thousands of open connections add.
 */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { launch, type Pod, reattach } from "virt-run";
import type { Running } from "../test/support/cli.js";
import { type Host, makeHosts } from "../test/support/hosts.js";
import { logged, until } from "../test/support/pods.js";
import { reportMost, reportRatio, reportShare, timed } from "./measure.js";

const mebibyte = 2 ** 20;

/** Where the bench has what, and how it calls the command line. */
export interface Place {
  root: string;
  work: string;
  cli: string;
  imagePath: () => string;
}

export async function connections({ root, work, cli, imagePath }: Place): Promise<void> {
  const program = join(work, "connections");
  execFileSync("gcc", ["-O2", "-Wall", "-o", program, join(root, "bench/connections.c")], { stdio: "inherit" });
  await relayed(program, imagePath);
  await pauses(program, cli, work, imagePath);
  await manyOpen(program, imagePath);
}

/** A client that answers every line with a number. */
class Client {
  readonly #child: Running["child"];
  readonly #lines: AsyncIterator<string>;

  constructor(child: Running["child"]) {
    this.#child = child;
    if (child.stdout === null) throw new Error("a client without output");
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  async ask(line: string): Promise<number> {
    this.#child.stdin?.write(`${line}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`the client has ended at '${line}'`);
    return Number(value);
  }

  async end(): Promise<void> {
    const exit = once(this.#child, "exit");
    this.#child.stdin?.end();
    await exit;
  }
}

/** Here, not on one of the hosts. */
function clientHere(program: string, ...words: string[]): Client {
  return new Client(spawn(program, words, { stdio: ["pipe", "pipe", "inherit"] }));
}

/** Through a holder and a tunnel, and beside it straight to the host on which the pod is now. */
async function relayed(program: string, imagePath: () => string): Promise<void> {
  const ends: (() => unknown)[] = [];
  const hosts = await makeHosts({ teardown: (end) => void ends.push(end) }, ["a", "b", "peer"]);
  try {
    const [a, b, peer] = hosts as [Host, Host, Host];
    const server = async (host: Host, name: string, port: string) => {
      await done(host, ["run", "-d", "--name", name, "--", program, "serve", port]);
      await until("the server", async () => (await host.virtRun(["logs", name])).out.includes("ready"));
    };
    await server(a, "moved", "7000");
    await server(b, "direct", "7001");
    const through = new Client(peer.start(program, ["ask", a.address, "7000"]).child);
    const direct = new Client(peer.start(program, ["ask", b.address, "7001"]).child);
    await through.ask("echo 10");
    const image = imagePath();
    await done(a, ["detach", "moved", "-o", image, "--hold-at", a.address]);
    await done(b, ["reattach", image, "-d"]);

    const alternately = async (order: string) => {
      const ours: number[] = [];
      const theirs: number[] = [];
      for (let i = 0; i < 8; i++) {
        if (i % 2 === 0) theirs.push(await direct.ask(order));
        ours.push(await through.ask(order));
        if (i % 2 === 1) theirs.push(await direct.ask(order));
      }
      return [ours.slice(1), theirs.slice(1)] as const; // the first of each finds small windows
    };
    const amount = 256 * mebibyte;
    const speed = (us: readonly number[]) => us.map((n) => amount / n);
    for (const [order, what] of [
      ["sink", "a relayed connection, to the pod : a direct one"],
      ["source", "the same, from the pod"],
    ] as const) {
      const [ours, theirs] = await alternately(`${order} ${amount}`);
      reportShare(what, speed(ours), speed(theirs), 0.5, "MB/s");
    }
    const rounds = 2000;
    const [ours, theirs] = await alternately(`echo ${rounds}`);
    const each = (us: readonly number[]) => us.map((n) => n / rounds);
    reportRatio("a round trip of one byte, relayed : direct", each(ours), each(theirs), 2.5, "µs");
    await through.end();
    await direct.end();
    for (const host of [a, b]) for (const name of ["moved", "direct"]) await host.virtRun(["rm", "-f", name]);
  } finally {
    for (const end of ends) await end();
  }
}

async function done(host: Host, words: string[]): Promise<void> {
  const { code, err } = await host.virtRun(words);
  if (code !== 0) throw new Error(`${words.join(" ")} on ${host.name}: ${err}`);
}

/** How long a client of a small server waits while that is detached and reattached on this host. */
async function pauses(program: string, cli: string, work: string, imagePath: () => string): Promise<void> {
  const port = 20_000 + (process.pid % 10_000);
  const words = ["--port", String(port), "--save", "", "--bind", "127.0.0.1"];
  let pod: Pod = await launch("redis-server", words, { stdio: "log", cwd: work, name: "paused" });
  await logged(pod, "Ready to accept");
  const client = clientHere(program, "ping", "127.0.0.1", String(port));
  await client.ask("longest");
  const inSdk: number[] = [];
  const byCommand: number[] = [];
  const node: number[] = [];
  for (let round = 0; round < 7; round++) {
    const image = await pod.detach({ image: imagePath() });
    pod = await reattach(image, { stdio: "log" });
    inSdk.push((await client.ask("longest")) / 1000);
    image.remove();
  }
  pod.disconnect();
  for (let round = 0; round < 7; round++) {
    const image = imagePath();
    execFileSync(process.execPath, [cli, "detach", "-q", "paused", "-o", image], {
      stdio: ["ignore", "ignore", "inherit"],
    });
    execFileSync(process.execPath, [cli, "reattach", image, "-d"], { stdio: ["ignore", "ignore", "inherit"] });
    byCommand.push((await client.ask("longest")) / 1000);
    const start = performance.now();
    execFileSync(process.execPath, ["-e", "0"]);
    node.push(performance.now() - start);
  }
  await client.end();
  execFileSync(process.execPath, [cli, "rm", "-f", "paused"], { stdio: ["ignore", "ignore", "inherit"] });
  reportMost("pause of a redis client over detach and reattach, SDK", inSdk, 150, "ms");
  reportMost("the same, two command lines", byCommand, 150, "ms");
  reportMost("  starting Node once is of that", node, Number.POSITIVE_INFINITY, "ms");
}

/** What open connections add to a detach and reattach on this host. */
async function manyOpen(program: string, imagePath: () => string): Promise<void> {
  const count = 5000;
  const port = 20_000 + (process.pid % 10_000);
  const start = async (at: number) => {
    const pod = await launch(program, ["keep", String(at)], { stdio: "log" });
    await logged(pod, "ready");
    return pod;
  };
  let many = await start(port);
  let none = await start(port + 1);
  const client = clientHere(program, "open", "127.0.0.1", String(port), String(count));
  await client.ask("live");
  const [alone, detached, reattached]: [number[], number[], number[]] = [[], [], []];
  for (let round = 0; round < 5; round++) {
    const first = await there(none, imagePath());
    none = first.pod;
    alone.push(first.detachMs + first.reattachMs);
    const { pod, detachMs, reattachMs } = await there(many, imagePath());
    many = pod;
    detached.push(detachMs);
    reattached.push(reattachMs);
    const live = await client.ask("live");
    if (live !== count) throw new Error(`${count - live} of ${count} connections are lost`);
  }
  await client.end();
  for (const pod of [many, none]) {
    await pod.destroy();
    pod.remove();
  }
  const added = detached.map((ms, i) => ms + (reattached[i] as number) - (alone[i] as number));
  reportMost(`what ${count} connections add to detach and reattach`, added, 1000, "ms");
  reportMost("  detach with them", detached, Number.POSITIVE_INFINITY, "ms");
  reportMost("  reattach with them", reattached, Number.POSITIVE_INFINITY, "ms");
}

async function there(pod: Pod, path: string) {
  const { ms: detachMs, value: image } = await timed(() => pod.detach({ image: path }));
  const { ms: reattachMs, value } = await timed(() => reattach(image, { stdio: "log" }));
  image.remove();
  return { pod: value, detachMs, reattachMs };
}
