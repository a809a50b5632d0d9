/**
 * The tour: shows a newcomer the main job on real programs, says what it does and why that is remarkable, and cleans
 * up. Everything it makes lies in one temporary directory.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { VirtError } from "../errors.js";
import type { Image } from "../image/image.js";
import { isLiving } from "../image/manifest.js";
import { processesOf } from "../pod/inspect.js";
import { launch } from "../pod/launch.js";
import type { Pod } from "../pod/pod.js";
import { reattach } from "../pod/reattach.js";
import { formatBytes } from "./report.js";

interface TourOptions {
  /** Between steps, for reading. */
  pauseMs: number;
}

const color =
  process.env["NO_COLOR"] === undefined && (process.stdout.isTTY === true || process.env["FORCE_COLOR"] !== undefined);
const paint = (code: number) => (text: string) => (color ? `\x1b[${code}m${text}\x1b[0m` : text);
const bold = paint(1);
const dim = paint(2);
const green = paint(32);

const say = (text: string) => process.stdout.write(`${text}\n`);
const heading = (text: string) => say(`\n${bold(text)}`);
/** What one would type to get the same. */
const typed = (text: string) => say(dim(`  $ ${text}`));
const result = (text: string) => say(`  ${green("→")} ${text}`);

export async function tour({ pauseMs }: TourOptions): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "virt-run-tour-"));
  for (const name of ["XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_DATA_HOME"])
    process.env[name] = join(directory, name.slice(4, 8));
  const pods = new Set<Pod>();
  const guide = new Guide(directory, pods, pauseMs);
  const cleanUp = async () => {
    for (const pod of pods) await pod.destroy().catch(() => {});
    rmSync(directory, { recursive: true, force: true });
  };
  const interrupted = () => void cleanUp().then(() => process.exit(130));
  process.once("SIGINT", interrupted);
  try {
    say(
      bold("virt-run makes running programs movable.") +
        " This shows it on this machine, as the user you are, in two minutes.",
    );
    await guide.counting();
    await guide.redis();
    heading("That was it.");
    say("  Nothing is left: both pods are ended, and everything lay in one directory that is removed now.");
    say(`  Next: ${bold("virt-run help")}, or the README.`);
  } finally {
    process.off("SIGINT", interrupted);
    await cleanUp();
  }
}

class Guide {
  readonly #directory: string;
  readonly #pods: Set<Pod>;
  readonly #pauseMs: number;

  constructor(directory: string, pods: Set<Pod>, pauseMs: number) {
    this.#directory = directory;
    this.#pods = pods;
    this.#pauseMs = pauseMs;
  }

  async counting(): Promise<void> {
    const before = join(this.#directory, "here");
    const after = join(this.#directory, "there");
    mkdirSync(before);
    const file = join(before, "numbers");

    heading("1. A shell that counts, in a pod");
    say(
      "  An ordinary /bin/sh, not changed or linked with anything. It keeps a file open and appends a number every 50 ms.",
    );
    typed(`virt-run -d --name counter sh -c 'n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done >>${file}'`);
    let pod = this.#keep(
      await launch("sh", ["-c", `n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done >>${file}`], {
        name: "counter",
        stdio: "log",
      }),
    );
    await sleep(700);
    const pids = await this.#pids(pod);
    result(`it is pid ${pids.inside} for itself and ${pids.host} for the host, and has counted to ${last(file)}`);
    await this.#pause();

    heading("2. Detach it");
    say(
      "  Every thread is stopped at the same moment, memory, handles and registers are written down, the image is read",
    );
    say("  back and synced, and only then the original is let go of.");
    typed("virt-run detach counter -o counter.image");
    const { image, ms } = await this.#detach(pod, "counter.image");
    const stopped = last(file);
    result(
      `${formatBytes(image.sizeBytes)} in ${ms} ms. Process ${pids.host} is gone: ${isGone(pids.host) ? "yes" : "NO"}`,
    );
    this.#describe(image);
    await this.#pause();

    heading("3. Move its files somewhere else, and reattach it there");
    say(`  The directory it writes to gets another name. The program knows only the old one:`);
    typed(`mv ${before} ${after}`);
    renameSync(before, after);
    typed(`virt-run reattach counter.image -d --remap path:${before}=${after}`);
    const start = performance.now();
    pod = this.#keep(await reattach(image, { stdio: "log", remap: { path: { [before]: after } } }));
    const reattachMs = Math.round(performance.now() - start);
    await sleep(700);
    const now = await this.#pids(pod);
    const moved = join(after, "numbers");
    const numbers = readFileSync(moved, "utf8").trim().split("\n").map(Number);
    const whole = numbers.every((n, i) => n === i + 1);
    result(`back in ${reattachMs} ms. For itself it is still pid ${now.inside}, for the host now ${now.host}`);
    result(`it had stopped at ${stopped} and has counted on to ${numbers.at(-1)}, into ${moved}`);
    result(whole ? "no number is missing and none came twice" : "NUMBERS ARE MISSING");
    if (!whole) throw new VirtError("ERR_BUG", "the counter lost numbers on the way");
    say("  No root, no kernel module, no preloaded library. The path it has open is translated by a mount of its own.");
    await this.#end(pod);
    await this.#pause();
  }

  async redis(): Promise<void> {
    heading("4. A database with data in it");
    if (!isInstalled("redis-server")) {
      say("  redis is not installed here (Debian: apt-get install redis-server), so this part is left out.");
      return;
    }
    const port = await freePort();
    const cli = (...args: string[]) =>
      execFileSync("redis-cli", ["-p", String(port), ...args], { encoding: "utf8" }).trim();
    typed(`virt-run -d --name cache redis-server --port ${port} --save ''`);
    const args = ["--port", String(port), "--save", "", "--bind", "127.0.0.1", "--enable-debug-command", "yes"];
    let pod = this.#keep(await launch("redis-server", args, { name: "cache", stdio: "log", cwd: this.#directory }));
    await answers(port);
    cli("debug", "populate", "200000", "key", "500");
    cli("set", "greeting", "hello from before");
    const digest = cli("debug", "digest");
    result(
      `${cli("dbsize")} keys, ${/used_memory_human:(.*)/.exec(cli("info", "memory"))?.[1]?.trim()} of memory, four threads, listening on port ${port}`,
    );
    await this.#pause();
    typed("virt-run detach cache");
    const { image, ms } = await this.#detach(pod, "cache.image");
    result(`${formatBytes(image.sizeBytes)} in ${ms} ms; the port is free again`);
    typed("virt-run reattach cache.image -d");
    const start = performance.now();
    pod = this.#keep(await reattach(image, { stdio: "log" }));
    await answers(port);
    const replyMs = Math.round(performance.now() - start);
    result(`it answered ${replyMs} ms after the command: ${cli("get", "greeting")}`);
    const same = cli("debug", "digest") === digest;
    result(same ? "every key and value is the same (redis' own digest of all its data)" : "THE DATA DIFFERS");
    if (!same) throw new VirtError("ERR_BUG", "redis' data changed on the way");
    await this.#end(pod);
  }

  #keep(pod: Pod): Pod {
    this.#pods.add(pod);
    return pod;
  }

  async #end(pod: Pod): Promise<void> {
    await pod.destroy();
    this.#pods.delete(pod);
  }

  async #detach(pod: Pod, name: string): Promise<{ image: Image; ms: number }> {
    const start = performance.now();
    const image = await pod.detach({ image: join(this.#directory, name) });
    this.#pods.delete(pod);
    return { image, ms: Math.round(performance.now() - start) };
  }

  async #pids(pod: Pod): Promise<{ inside: number; host: number }> {
    const { initPid = 0 } = await pod.inspect();
    const first = processesOf(initPid)[0];
    return { inside: first?.pid ?? 0, host: first?.hostPid ?? 0 };
  }

  #describe({ manifest }: Image): void {
    for (const p of manifest.processes) {
      if (!isLiving(p)) continue;
      const memory = p.pages.reduce((sum, run) => sum + run[1] * 4096, 0);
      result(
        `in the image: ${p.comm.toString()}, pid ${p.pid}, ${p.mappings.length} mappings, ${formatBytes(memory)} of its own, ${p.fds.length} descriptors`,
      );
    }
  }

  async #pause(): Promise<void> {
    await sleep(this.#pauseMs);
  }
}

function last(file: string): string {
  return readFileSync(file, "utf8").trim().split("\n").at(-1) ?? "";
}

function isGone(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return false;
  } catch {
    return true;
  }
}

function isInstalled(program: string): boolean {
  try {
    execFileSync(program, ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

async function answers(port: number): Promise<void> {
  for (let i = 0; i < 2000; i++) {
    try {
      const reply = execFileSync("redis-cli", ["-p", String(port), "ping"], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "ignore"],
      });
      if (reply.trim() === "PONG") return;
    } catch {
      // not yet
    }
    await sleep(5);
  }
  throw new VirtError("ERR_BUG", "redis does not answer");
}
