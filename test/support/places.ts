/**
 * Where the pods of the tests of connections live and come back, and where the other ends of their connections are. "here" is
 * all of it on this host; "host" has pods and other ends on hosts of their own. PLACE=host chooses.
 */
import type { SpawnOptions } from "node:child_process";
import { join } from "node:path";
import type { Test } from "tap";
import type { LaunchOptions, Pod } from "virt-run";
import { reattach } from "virt-run";
import { type Running, running } from "./cli.js";
import { sandbox } from "./env.js";
import { makeHosts } from "./hosts.js";
import { imageName, start, until } from "./pods.js";

type LaunchWhere = Pick<LaunchOptions, "env" | "cwd">;

/** A pod that leaves and comes back. */
export interface Traveller {
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
  name: string;
  /** The address under which the pod's servers are known. */
  pods: string;
  /** That of servers outside. */
  others: string;
  others6: string;
  launch(command: string, args: readonly string[], options?: LaunchWhere): Promise<Traveller>;
  /** Starts a program outside of the pod. */
  outside(command: string, args: readonly string[], options?: SpawnOptions): Running;
}

class Here implements Traveller {
  #pod: Pod;
  #image: Awaited<ReturnType<Pod["detach"]>> | undefined;

  constructor(pod: Pod) {
    this.#pod = pod;
  }

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

async function here(): Promise<Place> {
  return {
    name: "here",
    pods: "127.0.0.1",
    others: "127.0.0.1",
    others6: "::1",
    launch: async (command, args, options) => new Here(await start(command, [...args], options)),
    outside: (command, args, options) => running(command, args, options),
  };
}

async function onHost(t: Test): Promise<Place> {
  const [home, other] = await makeHosts(t, ["home", "other"]);
  if (!home || !other) throw new Error("no hosts");
  const say = async (...words: string[]) => {
    const said = await home.virtRun(words, { cwd: sandbox });
    if (said.code !== 0) throw new Error(`virt-run ${words.join(" ")}: ${said.err}`);
    return said.out;
  };
  return {
    name: "host",
    pods: home.address,
    others: other.address,
    others6: other.address6,
    launch: async (command, args, options = {}) => {
      const env = Object.entries(options.env ?? {}).flatMap(([key, value]) => ["-e", `${key}=${value}`]);
      const words = ["run", "-d", ...env, "-w", options.cwd ?? sandbox, "--", command, ...args];
      let id = (await say(...words)).trim();
      const image = join(sandbox, `${id}.image`);
      return {
        logs: () => say("logs", id),
        detach: async () => void (await say("detach", id, "-o", image)),
        reattach: async () => {
          id = (await say("reattach", image, "-d")).trim();
          await home.run("/bin/rm", ["-r", image]);
        },
        kill: async (signal) => void (await say("kill", "-s", signal, id)),
        destroy: async () => void (await home.virtRun(["rm", "-f", id])),
        ended: async () => (await home.virtRun(["wait", id])).code,
      };
    },
    outside: (command, args, options) => other.start(command, args, options),
  };
}

/** The place that PLACE names. What it has started outside ends with the test. */
export async function place(t: Test): Promise<Place> {
  const name = process.env["PLACE"] ?? "here";
  if (name !== "here" && name !== "host") throw new Error(`PLACE=${name}: here or host`);
  const found = await (name === "here" ? here() : onHost(t));
  const started: Running[] = [];
  t.teardown(async () => {
    for (const { child } of started) child.kill("SIGKILL");
    await Promise.all(started.map(({ ended }) => ended));
  });
  const outside: Place["outside"] = (command, args, options) => {
    const one = found.outside(command, args, options);
    started.push(one);
    return one;
  };
  return { ...found, outside };
}

/** Leaves and comes back so many times; after each `proof` must hold. */
export async function cycles(
  pod: Traveller,
  proof: (n: number) => Promise<unknown> | unknown,
  count = 5,
  away: () => Promise<unknown> | unknown = () => undefined,
): Promise<void> {
  for (let n = 1; n <= count; n++) {
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
