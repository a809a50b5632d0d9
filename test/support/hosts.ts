/**
 * Machines on this one: hosts with a network, process and mount namespace, addresses, and a HOME each, joined by a switch. An
 * ordinary user makes them in one user namespace, whose root the switch is, and is itself again in a nested one on each host;
 * root needs neither. Every host has a process that keeps it, and ends with it whatever runs there; that ends when its
 * standard input does, so that nothing is left of a test that was killed.
 */
import type { SpawnOptions } from "node:child_process";
import { mkdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { isRoot, run } from "./apps.js";
import { program, type Running, running, type Said } from "./cli.js";
import { sandbox } from "./env.js";
import { needs } from "./packages.js";
import { until } from "./pods.js";

type Options = SpawnOptions & { input?: string | Buffer };

/** Waits for its standard input to end, and for children that others have left to it meanwhile. */
const keeper = "echo up; while read -r _; do :; done";
/** As bash(1) is told it; by the last word leftovers.ts knows a host that was forgotten. */
const keeping = () => [needs("bash"), "-c", keeper, sandbox];

let made = 0;

/** One of the machines. */
export interface Host {
  readonly name: string;
  /** 10.77.0.1 and so on. */
  readonly address: string;
  /** fd77::1 and so on. */
  readonly address6: string;
  /** Its network namespace, as readlink(2) of /proc/PID/ns/net gives it. */
  readonly network: string;
  /** All that is the host's own: its HOME, and what programs there may write. As the host sees it; `disk` from outside. */
  readonly directory: string;
  readonly disk: string;
  /** Starts a program there, as the user of the test. Ends with the host, and with the process that stands for it here. */
  start(command: string, words?: readonly string[], options?: Options): Running;
  /** Runs a program there to its end; gives what it printed, throws with its complaints if it fails. */
  run(command: string, words?: readonly string[], options?: Options): Promise<string>;
  /** Starts a script with Node there. */
  node(script: string, words?: readonly string[], options?: Options): Running;
  /** Runs `virt-run` there to its end. */
  virtRun(words: readonly string[], options?: Options): Promise<Said>;
  /** Takes the plug out of the switch: nothing comes or goes any more, nobody is told. */
  cut(): void;
  /** Puts it in again. */
  restore(): void;
  /** Ends each TCP connection from or to this port there, as the kernel does on an error. False if it has ended none. */
  tear(port: number): boolean;
  /** No more than so many bits a second in either direction. False if this kernel cannot. */
  slow(bitsPerSecond: number): boolean;
  /** Pulls the power cord: everything that runs there is gone at once. */
  crash(): Promise<void>;
}

/** Makes hosts that reach each other, for one test, or whatever else says when it ends; they end with it. */
export async function makeHosts(
  t: { teardown(end: () => Promise<void>): void },
  names: readonly string[],
): Promise<Host[]> {
  const keepers: Kept[] = [];
  t.teardown(async () => {
    for (const k of keepers.reverse()) await k.end();
  });
  const keep = async (words: string[]) => {
    const kept = new Kept(words);
    keepers.push(kept);
    await kept.stands();
    return kept;
  };
  const root = isRoot ? [] : ["--user", "--map-root-user"];
  const middle = new Middle(await keep([needs("unshare"), ...root, "--net", ...keeping()]));
  middle.ip("link", "add", "switch", "type", "bridge");
  middle.ip("link", "set", "switch", "up");
  const hosts: Host[] = [];
  for (const [i, name] of names.entries()) hosts.push(await makeHost(middle, keep, name, i + 1));
  return hosts;
}

/** A process that stands for a host, or for the switch. */
class Kept {
  readonly #running: Running;

  constructor([command, ...words]: string[]) {
    this.#running = running(command as string, words, { cwd: "/", env: { PATH: process.env["PATH"] } });
  }

  get pid(): number {
    return this.#running.child.pid as number;
  }

  async stands(): Promise<void> {
    await until({ toString: () => `a host to stand: ${this.#running.said.err}` }, () => {
      if (this.#running.child.exitCode !== null) throw new Error(`no host: ${this.#running.said.err}`);
      return this.#running.said.out.startsWith("up\n");
    });
  }

  /** The process that was forked to be the first of its pid namespace. */
  get child(): number {
    return Number(readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, "utf8").trim());
  }

  async end(): Promise<void> {
    this.#running.child.stdin?.end();
    await this.#running.ended;
  }

  async kill(): Promise<void> {
    this.#running.child.kill("SIGKILL"); // --kill-child takes the first of the namespace along
    await this.#running.ended;
  }
}

/** The switch's own network namespace, and the user namespace that owns all of them. */
class Middle {
  readonly pid: number;
  /** Words before a command that make it run as the user namespace's root. */
  readonly asOwner: string[];

  constructor(kept: Kept) {
    this.pid = kept.pid;
    this.asOwner = isRoot ? [] : [needs("nsenter"), "-t", String(kept.pid), "-U", "--preserve-credentials", "--"];
  }

  in(pid: number, ...words: string[]): string {
    const all = [...this.asOwner, needs("nsenter"), "-t", String(pid), "-n", "--", ...words] as [string, ...string[]];
    return run(all[0], all.slice(1));
  }

  ip(...words: string[]): string {
    return this.in(this.pid, needs("ip"), ...words);
  }
}

async function makeHost(
  middle: Middle,
  keep: (words: string[]) => Promise<Kept>,
  name: string,
  number: number,
): Promise<Host> {
  const { uid, gid } = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  const self = isRoot ? [] : ["--user", `--map-user=${uid}`, `--map-group=${gid}`];
  const own = [needs("unshare"), ...self, "--pid", "--fork", "--kill-child", "--mount-proc", ...keeping()];
  // Its disk is at one place on every host, where no other's is to be seen.
  const disk = join(sandbox, `disk-${made++}-${name}`);
  const directory = join(sandbox, "disk");
  for (const path of [disk, directory, join(disk, "run")]) mkdirSync(path, { mode: 0o700, recursive: true });
  const mounted = [needs("bash"), "-c", `mount --bind ${disk} ${directory} && exec "$@"`, "mounted"];
  const kept = await keep([...middle.asOwner, needs("unshare"), "--net", "--mount", "--", ...mounted, ...own]);
  const pid = kept.child;
  const [address, address6, port] = [`10.77.0.${number}`, `fd77::${number}`, `port${number}`];
  const ip = (...words: string[]) => middle.in(pid, needs("ip"), ...words);

  middle.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", String(pid));
  middle.ip("link", "set", port, "master", "switch", "up");
  ip("link", "set", "lo", "up");
  ip("address", "add", `${address}/24`, "dev", "eth0");
  ip("address", "add", `${address6}/64`, "dev", "eth0", "nodad");
  ip("link", "set", "eth0", "up");

  const env = {
    PATH: process.env["PATH"],
    LANG: process.env["LANG"] ?? "C.UTF-8",
    USER: process.env["USER"] ?? "root",
    HOME: directory,
    XDG_RUNTIME_DIR: join(directory, "run"),
    XDG_STATE_HOME: join(directory, "state"),
    XDG_DATA_HOME: join(directory, "data"),
    XDG_CONFIG_HOME: join(directory, "config"),
  };

  const namespaces = [...(isRoot ? [] : ["-U", "--preserve-credentials"]), "-n", "-m", "-p"];
  const start: Host["start"] = (command, words = [], options = {}) => {
    const inside = [needs("nsenter"), "-t", String(pid), ...namespaces, `--wd=${directory}`, "--"];
    // What stands for it here is nsenter(1), which passes no signal on.
    const all = [...middle.asOwner, ...inside, needs("setpriv"), "--pdeathsig", "KILL", "--", command, ...words];
    return running(all[0] as string, all.slice(1), { cwd: "/", ...options, env: { ...env, ...options.env } });
  };
  const toEnd = (what: Running) => what.ended;
  return {
    name,
    address,
    address6,
    network: readlinkSync(`/proc/${pid}/ns/net`),
    directory,
    disk,
    start,
    node: (script, words = [], options) => start(process.execPath, [script, ...words], options),
    run: async (command, words = [], options) => {
      const said = await toEnd(start(command, words, { input: "", ...options }));
      if (said.code !== 0) throw new Error(`${command} ${words.join(" ")} on ${name}: ${said.err || said.out}`);
      return said.out;
    },
    virtRun: (words, options) => toEnd(start(process.execPath, [program, ...words], { input: "", ...options })),
    cut: () => void middle.ip("link", "set", port, "down"),
    restore: () => void middle.ip("link", "set", port, "up"),
    tear: (port) => {
      const which = ["state", "established", `( sport = :${port} or dport = :${port} )`];
      return middle.in(pid, needs("ss"), "-H", "-K", "-tn", ...which).trim() !== "";
    },
    slow: (bitsPerSecond) => {
      const limit = ["root", "tbf", "rate", `${bitsPerSecond}bit`, "burst", "32kbit", "latency", "400ms"];
      try {
        middle.in(middle.pid, needs("tc"), "qdisc", "replace", "dev", port, ...limit);
        middle.in(pid, needs("tc"), "qdisc", "replace", "dev", "eth0", ...limit);
        return true;
      } catch (e) {
        if (/qdisc kind is unknown/.test(String(e))) return false;
        throw e;
      }
    },
    crash: () => kept.kill(),
  };
}
