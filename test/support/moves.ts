/**
 * Pods that are moved between hosts with `virt-run move`, over the stand-in for ssh; and what is where afterwards.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { program, type Running, type Said } from "./cli.js";
import { type Host, makeHosts } from "./hosts.js";
import { needs } from "./packages.js";
import { until } from "./pods.js";

const standIn = new URL("stand-in-ssh.py", import.meta.url).pathname;

/** Hosts that reach each other as if with ssh. */
export async function hostsWithSsh(
  t: { teardown(end: () => Promise<void>): void },
  names: readonly string[] = ["a", "b"],
): Promise<Host[]> {
  const hosts = await makeHosts(t, names);
  for (const host of hosts) {
    const daemon = host.start(needs("python3"), [standIn, "serve", host.address]);
    await until({ toString: () => `a daemon on ${host.name}: ${daemon.said.err}` }, () => daemon.said.out === "up\n");
  }
  return hosts;
}

export interface MoveFaults {
  /** VIRT_RUN_FAULT of the source, and of the target. */
  source?: string;
  target?: string;
  /** Where the line is cut (CUT of the stand-in). */
  cut?: string;
  /** `virt-run` there, if it is another. */
  remote?: string;
}

/** Environment of a `virt-run move`. */
function environment({ source, target, cut, remote }: MoveFaults): NodeJS.ProcessEnv {
  const there = remote ?? `${process.execPath} ${program}`;
  return {
    VIRT_RUN_SSH: standIn,
    VIRT_RUN_REMOTE_COMMAND: target === undefined ? there : `env VIRT_RUN_FAULT=${target} ${there}`,
    ...(source !== undefined && { VIRT_RUN_FAULT: source }),
    ...(cut !== undefined && { CUT: cut }),
  };
}

/** Begins to move a pod. */
export function moving(
  from: Host,
  to: Host,
  name: string,
  words: readonly string[] = [],
  faults: MoveFaults = {},
): Running {
  const all = [program, "move", name, `ssh://${to.address}`, ...words];
  return from.start(process.execPath, all, { env: environment(faults) });
}

/** Settles a move that was cut. */
export function resuming(from: Host, name: string, words: readonly string[] = []): Promise<Said> {
  const all = [program, "move", "--resume", name, ...words];
  return from.start(process.execPath, all, { env: environment({}) }).ended;
}

/** What `move --json` says. */
export interface MovedPod {
  pod: string;
  target: string;
  there: { id: string; name: string };
  epoch: number;
  stoppedMs: number;
}

/** Every stop that was made, in milliseconds: what a test may show. */
export const stops: number[] = [];

/** Moves a pod; throws with what was said if it fails. */
export async function moved(from: Host, to: Host, name: string, ...words: string[]): Promise<MovedPod> {
  const said = await moving(from, to, name, ["--json", ...words]).ended;
  if (said.code !== 0)
    throw new Error(
      `move ${name} from ${from.name} to ${to.name}: ${said.signal ?? said.code}: ${said.err}${said.out}`,
    );
  const document = JSON.parse(said.out) as MovedPod;
  stops.push(document.stoppedMs);
  return document;
}

/** To and fro, so many times; after each `proof` must hold, on the host where it is then. Gives that host. */
export async function toAndFro(
  [a, b]: readonly Host[],
  name: string,
  times: number,
  proof: (host: Host, n: number) => Promise<unknown> | unknown,
  words: (n: number) => readonly string[] = () => [],
): Promise<Host> {
  let [here, there] = [a as Host, b as Host];
  for (let n = 1; n <= times; n++) {
    await moved(here, there, name, ...words(n));
    [here, there] = [there, here];
    try {
      await proof(here, n);
    } catch (e) {
      throw new Error(`after move ${n}: ${(e as Error).message}; the log ends with ${logOf(here).slice(-800)}`, {
        cause: e,
      });
    }
  }
  return here;
}

/** Runs `virt-run` on a host; it must not fail. Gives what it printed. */
export async function told(host: Host, ...words: string[]): Promise<string> {
  const said = await host.virtRun(words);
  if (said.code !== 0) throw new Error(`virt-run ${words.join(" ")} on ${host.name}: ${said.code}: ${said.err}`);
  return said.out;
}

function inDirectory(...path: string[]): string[] {
  try {
    return readdirSync(join(...path));
  } catch {
    return []; // it was not made yet
  }
}

const state = (host: Host, ...path: string[]) => join(host.disk, "state", "virt-run", ...path);

/** The log of the only pod that runs on a host. Quicker to ask than `virt-run logs`. */
export function logOf(host: Host): string {
  const running = inDirectory(state(host, "pods")).filter((id) => {
    const files = inDirectory(state(host, "pods", id));
    return files.includes("pod.json") && !files.includes("exit");
  });
  if (running.length > 1) throw new Error(`${running.length} pods run on ${host.name}`);
  try {
    return readFileSync(state(host, "pods", running[0] ?? "none", "log"), "utf8");
  } catch {
    return ""; // none does, or it has said nothing yet
  }
}

/** Waits until the log of the pod that runs on a host holds what is looked for. */
export function logHas(host: Host, what: string | RegExp): Promise<string> {
  let log = "";
  return until({ toString: () => `${what} in the log on ${host.name}, which says: ${log.slice(-500)}` }, () => {
    log = logOf(host);
    return (typeof what === "string" ? log.includes(what) : what.test(log)) && log;
  });
}

/** What is left of moves on a host, beside notes and locks: images that came or went, and their options. */
export function remains(host: Host): string[] {
  return inDirectory(state(host, "moves")).filter((name) => !/\.(json|lock)$/.test(name));
}

/** Control sockets on a host. */
export function sockets(host: Host): string[] {
  return inDirectory(host.disk, "run", "virt-run");
}

/** Network namespaces tell hosts apart. Gives, for each living process whose command begins with these words, where it is. */
export function whereRuns(hosts: readonly Host[], command: string): string[] {
  const names = new Map(hosts.map((host) => [host.network, host.name]));
  return inDirectory("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
      if (!words.startsWith(command) || /^State:\s*[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"))) return [];
      const name = names.get(readlinkSync(`/proc/${pid}/ns/net`));
      return name === undefined ? [] : [name];
    } catch {
      return []; // it has ended
    }
  });
}
