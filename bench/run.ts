/**
 * `npm run bench`: what virt-run costs, as ratios against what the kernel itself takes for the same bytes, against the
 * same program outside a pod, and against starting Node. Not a test: a figure that misses its goal is shown, and that
 * is all.
 */
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statfsSync } from "node:fs";
import { freemem, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Image, launch, type Pod, reattach } from "virt-run";
import { connections } from "./connections.js";
import { calls, programs, servers } from "./interposer.js";
import { report, reportMost, reportRatio, reportShare, timed } from "./measure.js";

const work = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "virt-run-bench-"));
for (const key of ["XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_DATA_HOME"])
  process.env[key] = join(work, key.toLowerCase());
const anchors = join(work, "anchors");
const gibibyte = 2 ** 30;
const root = new URL("../..", import.meta.url).pathname;
const cli = join(root, "dist/cli/virt-run.cjs");
let images = 0;
const imagePath = () => join(work, `image-${images++}`);

function anchor(...args: string[]): { ms: number; bytes: number } {
  const [ms, bytes] = execFileSync(anchors, args, { encoding: "utf8" }).split(" ").map(Number);
  return { ms: ms as number, bytes: bytes as number };
}

async function waitForRedis(port: number): Promise<void> {
  for (;;) {
    try {
      if (
        execFileSync("redis-cli", ["-p", String(port), "ping"], {
          encoding: "utf8",
          stdio: ["ignore", "pipe", "ignore"],
        }).trim() === "PONG"
      )
        return;
    } catch {
      // not listening yet
    }
    await sleep(5);
  }
}

const redisArguments = (port: number) => [
  "--port",
  String(port),
  "--save",
  "",
  "--bind",
  "127.0.0.1",
  "--enable-debug-command",
  "yes",
];

/** 1 GiB of redis, detached to memory and reattached until it answers; beside it the bare copying. */
async function largeRedis(): Promise<void> {
  const port = 20_000 + (process.pid % 10_000);
  let pod: Pod = await launch("redis-server", redisArguments(port), { stdio: "log", cwd: work });
  await waitForRedis(port);
  execFileSync("redis-cli", ["-p", String(port), "debug", "populate", "1000000", "key", "900"]);
  const detached: number[] = [];
  const copied: number[] = [];
  const answered: number[] = [];
  const loaded: number[] = [];
  for (let round = 0; round < 7; round++) {
    const { processes = [] } = await pod.inspect();
    const file = join(work, "copy");
    const copy = anchor("copy", String(processes[0]?.hostPid), file);
    rmSync(file);
    const { ms: detachMs, value: image } = await timed(() => pod.detach({ image: imagePath() }));
    const start = performance.now();
    pod = await reattach(image, { stdio: "log" });
    await waitForRedis(port);
    const answerMs = performance.now() - start;
    const loads = image.manifest.pagesInPart.map((_, i) => anchor("load", join(image.path, `pages-${i + 1}.bin`)).ms);
    const { sizeBytes } = image;
    image.remove();
    if (round < 2) continue; // the host gives the virtual machine its memory on first touch
    detached.push((detachMs / sizeBytes) * copy.bytes);
    copied.push(copy.ms);
    answered.push(answerMs);
    loaded.push(loads.reduce((a, b) => a + b, 0));
  }
  reportRatio("detach 1 GiB of redis to tmpfs : plain read+write loop", detached, copied, 1.3);
  reportRatio("reattach to the first reply : reading it into huge pages", answered, loaded, 1.2);
  reportMost("the same, in milliseconds (CRIU as root: 450)", answered, 450, "ms");
  await pod.destroy();
  pod.remove();
}

async function emptyProcess(): Promise<void> {
  let pod: Pod = await launch("sleep", ["1000000"], { stdio: "log" });
  const detached: number[] = [];
  const reattached: number[] = [];
  let image: Image | undefined;
  for (let i = 0; i < 30; i++) {
    const detaching = await timed(() => pod.detach({ image: imagePath() }));
    image = detaching.value;
    const attaching = await timed(() => reattach(image as Image, { stdio: "log" }));
    pod = attaching.value;
    detached.push(detaching.ms);
    reattached.push(attaching.ms);
    if (i < 29) image.remove();
  }
  reportMost("detach of an empty process", detached, 60, "ms");
  reportMost("reattach of an empty process", reattached, 60, "ms");
  reportMost("image of an idle sleep", [(image?.sizeBytes ?? 0) / 1024], 1024, "KiB");
  const info = await pod.inspect();
  const rss = /^VmRSS:\s*(\d+)/m.exec(readFileSync(`/proc/${String(info.initPid)}/status`, "utf8"))?.[1];
  reportMost("memory of the init of an idle pod", [Number(rss)], 3 * 1024, "KiB");
  image?.remove();
  await pod.destroy();
  pod.remove();
}

/** Wall time of a command, alternating with another. */
function startup(): void {
  const time = (command: string, args: string[]) => {
    const start = performance.now();
    execFileSync(command, args, { stdio: "ignore" });
    return performance.now() - start;
  };
  const ours: number[] = [];
  const node: number[] = [];
  for (let i = 0; i < 40; i++) {
    node.push(time(process.execPath, ["-e", "0"]));
    ours.push(time(process.execPath, [cli, "--", "true"]));
  }
  reportMost(
    "virt-run -- true, over starting Node itself",
    ours.map((o, i) => o - (node[i] as number)),
    15,
    "ms",
  );
}

/** A pod that nobody disturbs costs nothing. */
async function undisturbed(): Promise<void> {
  const outsidePort = 30_000 + (process.pid % 10_000);
  const insidePort = outsidePort + 1;
  const outside = spawn("redis-server", redisArguments(outsidePort), { stdio: "ignore", cwd: work });
  const pod = await launch("redis-server", redisArguments(insidePort), { stdio: "log", cwd: work });
  await waitForRedis(outsidePort);
  await waitForRedis(insidePort);
  const load = (port: number) =>
    Number(
      /"SET","([\d.]+)"/.exec(
        execFileSync("redis-benchmark", ["-p", String(port), "-t", "set", "-n", "100000", "-c", "20", "--csv"], {
          encoding: "utf8",
          stdio: ["ignore", "pipe", "ignore"],
        }),
      )?.[1],
    );
  const inside: number[] = [];
  const out: number[] = [];
  for (let i = 0; i < 9; i++) {
    // The order changes from pair to pair: whoever runs second must not always be the one that is favoured.
    if (i % 2 === 0) out.push(load(outsidePort));
    inside.push(load(insidePort));
    if (i % 2 === 1) out.push(load(outsidePort));
  }
  reportShare("redis-benchmark SET in a pod : outside", inside, out, 0.98, "/s");
  outside.kill();
  await pod.destroy();
  pod.remove();

  const rounds = "150000000";
  const podMs: number[] = [];
  const hostMs: number[] = [];
  for (let i = 0; i < 9; i++) {
    if (i % 2 === 0) hostMs.push(anchor("spin", rounds).ms);
    const spinning = await launch(anchors, ["spin", rounds], { stdio: "log" });
    await spinning.ended();
    podMs.push(Number(spinning.logs().toString().split(" ")[0]));
    spinning.remove();
    if (i % 2 === 1) hostMs.push(anchor("spin", rounds).ms);
  }
  const speed = (ms: number[]) => ms.map((m) => Number(rounds) / m);
  reportShare("a CPU loop in a pod : outside", speed(podMs), speed(hostMs), 0.98, "/ms");
}

try {
  execFileSync("gcc", ["-O2", "-Wall", "-o", anchors, join(root, "bench/anchors.c")], { stdio: "inherit" });
  const wanted = process.argv.slice(2);
  const run = async (name: string, f: () => void | Promise<void>) => {
    if (wanted.length === 0 || wanted.includes(name)) await f();
  };
  await run("startup", startup);
  await run("empty", emptyProcess);
  await run("undisturbed", undisturbed);
  await run("calls", () => calls(root, work));
  await run("programs", () => programs(root));
  await run("servers", () => servers(work, redisArguments));
  await run("connections", () => connections({ root, work, cli, imagePath }));
  const { bavail, bsize } = statfsSync(work);
  if (freemem() < 5 * gibibyte || bavail * bsize < 3 * gibibyte) {
    report({
      what: "1 GiB of redis",
      ours: "",
      against: "",
      ratio: undefined,
      goal: "5 GiB of free memory to be measured at all",
      met: false,
    });
  } else {
    await run("redis", largeRedis);
  }
} finally {
  rmSync(work, { recursive: true, force: true });
}
