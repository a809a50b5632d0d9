/**
 * Where the pods of the tests of connections live and come back, and where the other ends of their connections are: all of it
 * on this host, or on hosts of their own (hosts.ts), where a pod comes back on another one than it left. Tests are written
 * once and run at each of these places; PLACE=here, PLACE=back or PLACE=on chooses one.
 */
import type { SpawnOptions } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import type { LaunchOptions, Pod } from "virt-run";
import { reattach } from "virt-run";
import { said } from "./actor.js";
import { type Running, running } from "./cli.js";
import { sandbox } from "./env.js";
import { type Host, makeHosts } from "./hosts.js";
import { imageName, start, until } from "./pods.js";
import { pidsOf } from "./stage.js";

/** On this host; from a host to another and back to it; from a host to another and on to where the peers are. */
export type Where = "here" | "back" | "on";

type LaunchWhere = Pick<LaunchOptions, "env" | "cwd">;

/** A pod that leaves and comes back. */
export interface Traveller {
  /** The address under which new clients find it now. */
  address(): string;
  logs(): Promise<string>;
  /** Into an image: what it had open to outside is kept from now on. */
  detach(): Promise<void>;
  /** Out of it, at the place where it comes back. */
  reattach(): Promise<void>;
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Ends all of it, if it has not ended yet. */
  destroy(): Promise<void>;
  /** Waits for its end; gives the exit code of its first program. */
  ended(): Promise<number | null>;
}

export interface Place {
  where: Where;
  /** Empty, for this test alone, and the same on all hosts. */
  directory: string;
  /** The same, but each host has one of its own under this name. */
  own: string;
  /** How often a pod leaves and comes back. */
  cycles: number;
  /** What the pod's servers bind: they find it wherever they come back. */
  any: string;
  /** The address under which the pod's servers are known at first. */
  pods: string;
  /** That of servers outside. */
  others: string;
  others6: string;
  launch(command: string, args: readonly string[], options?: LaunchWhere): Promise<Traveller>;
  /** Starts a program outside of the pod. */
  outside(command: string, args: readonly string[], options?: SpawnOptions): Running;
  /** The same where the pod begins: there its unix sockets are found, and its address is `pods`. */
  beside(command: string, args: readonly string[], options?: SpawnOptions): Running;
  /** Ends a program outside by SIGINT, for it may have something to say; `name` is its own. */
  interrupt(what: Running, name: string): Promise<void>;
}

class Here implements Traveller {
  #pod: Pod;
  #image: Awaited<ReturnType<Pod["detach"]>> | undefined;

  constructor(pod: Pod) {
    this.#pod = pod;
  }

  address = () => "127.0.0.1";
  // The log goes on where it was, from life to life.
  logs = () => Promise.resolve(this.#pod.logs().toString());

  async detach(): Promise<void> {
    this.#image = await this.#pod.detach({ image: imageName() });
  }

  async reattach(): Promise<void> {
    if (!this.#image) throw new Error("it is not away");
    this.#pod = await reattach(this.#image, { stdio: "log" });
    this.#image.remove();
    this.#image = undefined;
  }

  kill = (signal: NodeJS.Signals) => this.#pod.kill(signal);
  destroy = () => this.#pod.destroy();
  ended = async () => (await this.#pod.ended()).code;
}

type Kind = Omit<Place, "directory" | "own">;

const here: Kind = {
  where: "here",
  cycles: 5,
  any: "127.0.0.1",
  pods: "127.0.0.1",
  others: "127.0.0.1",
  others6: "::1",
  launch: async (command, args, options) => new Here(await start(command, [...args], options)),
  outside: running,
  beside: running,
  interrupt: async ({ child }) => void child.kill("SIGINT"),
};

/** Goes from host to host, round and round; others reach what one of them holds at its address. */
class Mover implements Traveller {
  #id: string;
  readonly #way: readonly [Host, ...Host[]];
  #moves = 0;
  readonly #image: string;

  constructor(id: string, way: readonly [Host, ...Host[]]) {
    this.#id = id;
    this.#way = way;
    this.#image = join(sandbox, `${id}.image`);
  }

  get #host(): Host {
    return this.#way[this.#moves % this.#way.length] as Host;
  }

  #say(...words: string[]): Promise<string> {
    return said(this.#host.virtRun(words));
  }

  address = () => this.#host.address;

  /** Read where it is written: tests ask for it again and again. */
  async logs(): Promise<string> {
    return readFileSync(join(this.#host.disk, "state", "virt-run", "pods", this.#id, "log"), "utf8");
  }

  async detach(): Promise<void> {
    await this.#say("detach", this.#id, "-o", this.#image, "--hold-at", this.#host.address);
  }

  async reattach(): Promise<void> {
    this.#moves++;
    this.#id = (await this.#say("reattach", this.#image, "-d")).trim();
    await this.#host.run("/bin/rm", ["-r", this.#image]);
  }

  kill = async (signal: NodeJS.Signals) => void (await this.#say("kill", "-s", signal, this.#id));
  destroy = async () => void (await this.#host.virtRun(["rm", "-f", this.#id]));
  ended = async () => (await this.#host.virtRun(["wait", this.#id])).code;
}

async function elsewhere(where: Where, a: Host, b: Host, c: Host): Promise<Kind> {
  const launch: Place["launch"] = async (command, args, options = {}) => {
    const env = Object.entries(options.env ?? {}).flatMap(([key, value]) => ["-e", `${key}=${value}`]);
    const words = ["run", "-d", ...env, "-w", options.cwd ?? sandbox, "--", command, ...args];
    return new Mover((await said(a.virtRun(words))).trim(), where === "on" ? [a, b, c] : [a, b]);
  };
  return {
    where,
    cycles: 2,
    any: "0.0.0.0",
    pods: a.address,
    others: c.address,
    others6: c.address6,
    launch,
    outside: c.start,
    beside: a.start,
    interrupt: async (_, name) => void (await c.run("kill", ["-INT", ...(await pidsOf(c, name)).map(String)])),
  };
}

/** A test of this at each of the places. */
export function atEach(places: readonly Where[], what: string, body: (t: Test, at: Place) => Promise<void>): void {
  const wanted = process.env["PLACE"] ?? "";
  for (const where of places)
    if (where.includes(wanted)) t.test(where === "here" ? what : `${what}: ${where}`, (t) => atPlace(t, where, body));
}

/** What the test has started outside ends with it. */
async function atPlace(t: Test, where: Where, body: (t: Test, at: Place) => Promise<void>): Promise<void> {
  const hosts = where === "here" ? [] : await makeHosts(t, ["a", "b", "c"]);
  const [a, b, c] = hosts;
  const at = a && b && c ? await elsewhere(where, a, b, c) : here;
  const started: Running[] = [];
  const end = async () => {
    for (const { child } of started) child.kill("SIGKILL");
    await Promise.all(started.map(({ ended }) => ended));
  };
  t.teardown(end);
  const counted =
    (start: Place["outside"]): Place["outside"] =>
    (command, args, options) => {
      const one = start(command, args, options);
      started.push(one);
      return one;
    };
  const directory = mkdtempSync(join(sandbox, "at-"));
  const own = join(a ? a.directory : directory, "own");
  const disks = a ? hosts.map((host) => host.disk) : [directory];
  // The sandbox itself is closed, unless a server that is somebody else must come in.
  for (const each of [directory, ...disks]) chmodSync(each, 0o711);
  for (const each of disks) {
    mkdirSync(join(each, "own"));
    chmodSync(join(each, "own"), 0o777);
  }
  await body(t, { ...at, directory, own, outside: counted(at.outside), beside: counted(at.beside) });
  await end();
  for (const host of hosts)
    for (const name of ["virt-hold", "virt-init"])
      await until(`no ${name} on ${host.name}`, async () => (await pidsOf(host, name)).length === 0);
}

/** Leaves and comes back as often as the place says; after each time `proof` must hold. */
export async function cycles(
  at: Place,
  pod: Traveller,
  proof: (n: number) => Promise<unknown> | unknown,
  away: () => Promise<unknown> | unknown = () => undefined,
): Promise<void> {
  for (let n = 1; n <= at.cycles; n++) {
    await pod.detach();
    await away();
    await pod.reattach();
    try {
      await proof(n);
    } catch (e) {
      const log = (await pod.logs()).slice(-800);
      throw new Error(`after cycle ${n}: ${(e as Error).message}; the log ends with ${log}`, { cause: e });
    }
  }
}

/** Waits until a pod's log holds a text. */
export function loggedBy(pod: Traveller, text: string): Promise<string> {
  let log = "";
  return until({ toString: () => `'${text}' in the log, which says: ${log.slice(-500)}` }, async () => {
    log = await pod.logs();
    return log.includes(text) && log;
  });
}

/** A count that a program prints as lines `n COUNT`. */
export function countIn(text: string): number {
  const at = text.lastIndexOf("\nn ", text.lastIndexOf("\n") - 1);
  const line = at < 0 ? text.split("\n", 1)[0] : text.slice(at + 1, text.indexOf("\n", at + 1));
  return line?.startsWith("n ") ? Number(line.slice(2)) : 0;
}

/** Waits until a count has grown by `more`, and complains at once of a program that has ended or found something wrong. */
export async function goesOn(what: Running, more: number): Promise<void> {
  const from = countIn(what.said.out);
  await until({ toString: () => `${more} more than ${from}: ${what.said.out.slice(-200)}${what.said.err}` }, () => {
    const { exitCode, signalCode, pid } = what.child;
    if (exitCode !== null || signalCode !== null)
      throw new Error(`${pid} has ended: ${signalCode ?? exitCode}: ${what.said.err.slice(-800)}`);
    return countIn(what.said.out) >= from + more;
  });
}

/** Tells a program of test/apps/connections to come to its end; gives the account it prints as its last line. */
export async function account<T = Record<string, number>>(what: Running): Promise<T> {
  what.child.stdin?.end("stop\n");
  const said = await what.ended;
  if (said.code !== 0) throw new Error(`${said.signal ?? said.code}: ${said.err.slice(-800)}`);
  return JSON.parse(said.out.trim().split("\n").at(-1) ?? "") as T;
}
