/**
 * Pods of test/faults/steady.c, which checks itself, and supervisors that fail or are killed while they work on one.
 */
import "./env.js";
import { execFileSync, spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { connect, list, type Pod, verifyImage } from "virt-run";
import { sandbox } from "./env.js";
import { leftovers } from "./leftovers.js";
import { start, until } from "./pods.js";

const faults = new URL("../faults/", import.meta.url).pathname;
const steady = join(sandbox, "steady");

/** The program's path; builds it the first time. */
export function steadyProgram(): string {
  if (!existsSync(steady)) {
    const source = join(faults, "steady.c");
    execFileSync("gcc", ["-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", steady, source], { stdio: "pipe" });
  }
  return steady;
}

/** A pod of the program, a few laps on. */
export async function startSteady(): Promise<Pod> {
  const pod = await start(steadyProgram());
  await goesOn(pod);
  return pod;
}

/** How many laps the log tells of; throws unless they are 1, 2, 3 … and nothing else was said. */
function laps(pod: Pod): number {
  const lines = pod.logs().toString().split("\n").slice(0, -1);
  for (const [i, line] of lines.entries())
    if (line !== `lap ${i + 1}`) throw new Error(`the program says '${line}' where 'lap ${i + 1}' should be`);
  return lines.length;
}

/** Proves that the program runs and finds everything as it left it: all of its memory is looked at in 16 laps. */
export async function goesOn(pod: Pod): Promise<void> {
  const before = laps(pod);
  await until("the program to go on", () => {
    if (!pod.running)
      throw new Error(`the program has ended after ${before} laps: ${pod.logs().toString().slice(-300)}`);
    return laps(pod) >= before + 18;
  });
}

export interface Outcome {
  /** Undefined if it was killed. */
  result: { done?: string; code?: string; message?: string } | undefined;
  /** From "begin" to the end. */
  tookMs: number;
}

/** Runs a supervisor to its end, or to its death `killAfterMs` after it began. */
export function supervise(
  args: string[],
  options: { fault?: string; killAfterMs?: number | undefined },
): Promise<Outcome> {
  const child = spawn(process.execPath, [join(faults, "supervisor.mjs"), ...args], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ...(options.fault === undefined ? {} : { VIRT_RUN_FAULT: options.fault }) },
  });
  let text = "";
  let began = 0;
  child.stdout.setEncoding("utf8").on("data", (more: string) => {
    text += more;
    if (began !== 0 || !text.includes("begin\n")) return;
    began = performance.now();
    if (options.killAfterMs !== undefined) setTimeout(() => child.kill("SIGKILL"), options.killAfterMs);
  });
  // Not "close": what it started may hold the pipe.
  return new Promise((resolve, reject) => {
    const stuck = setTimeout(() => {
      child.kill("SIGKILL");
      reject(new Error(`the supervisor does not end: ${args.join(" ")} ${options.fault ?? ""}`));
    }, 30_000);
    child.once("exit", (_, signal) => {
      clearTimeout(stuck);
      const tookMs = performance.now() - began;
      setImmediate(() => {
        const last = text.split("\n").at(-2);
        if (signal === null && !last?.startsWith("{")) reject(new Error(`the supervisor failed: ${text}`));
        else resolve({ result: signal === null && last ? JSON.parse(last) : undefined, tookMs });
      });
    });
  });
}

/**
 * The one pod that lives when everything has settled, or undefined if there is none and nothing is left of one: no
 * process, no socket. Fails if it stays somewhere between.
 */
export async function survivor(): Promise<Pod | undefined> {
  let seen = "";
  const found = await until(
    "a pod that runs, or nothing of it",
    async () => {
      const left = leftovers();
      if (left.length === 0) return "none" as const;
      seen = left.join("\n");
      const pods = await list();
      if (pods.length > 1) throw new Error(`${pods.length} pods where one was: ${seen}`);
      const [one] = pods;
      if (one === undefined) return undefined;
      try {
        const pod = await connect(one.id);
        if (pod.running && !(await pod.status()).rebuilding) return pod;
        pod.disconnect();
      } catch (e) {
        if ((e as { code?: string }).code !== "ERR_POD_GONE") throw e;
      }
      return undefined;
    },
    10_000,
  ).catch((e: Error) => {
    throw new Error(`${e.message}; there is\n${seen}`);
  });
  return found === "none" ? undefined : found;
}

/** Directories of images that were begun and not finished. */
export function unfinished(directory: string): string[] {
  return readdirSync(directory).filter((name) => name.includes(".partial-"));
}

/** True if there is a whole image, false if there is nothing; throws for anything else. */
export async function isWhole(path: string): Promise<boolean> {
  if (!existsSync(path)) return false;
  await verifyImage(path);
  return true;
}
