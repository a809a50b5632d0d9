/**
 * Short words for what tests do with pods.
 */
import "./env.js";
import { readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  connect,
  type DetachOptions,
  type Image,
  type LaunchOptions,
  launch,
  list,
  type Pod,
  type ReattachOptions,
  reattach,
} from "virt-run";
import { sandbox } from "./env.js";
import { watchNamespace } from "./leftovers.js";

export { sleep };

let images = 0;

/** A path for an image that does not exist yet. */
export function imageName(): string {
  return join(sandbox, `image-${process.pid}-${images++}`);
}

/** Launches with output to the pod's log. */
export function start(command: string, args: string[] = [], options: LaunchOptions = {}): Promise<Pod> {
  return launch(command, args, { stdio: "log", cwd: sandbox, ...options });
}

/** Waits until `f` gives something that is not undefined or false; fails after `timeoutMs` with what was waited for. */
export async function until<T>(
  what: string | { toString(): string },
  f: () => T | Promise<T>,
  timeoutMs = 20_000,
): Promise<Exclude<T, undefined | false | null>> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const value = await f();
    if (value !== undefined && value !== false && value !== null) return value as Exclude<T, undefined | false | null>;
    if (Date.now() > end) throw new Error(`waited ${timeoutMs} ms in vain for: ${what}`);
    await sleep(10);
  }
}

/** Waits until the pod's log holds a text; fails at once if the pod ends without it. */
export async function logged(pod: Pod, text: string, timeoutMs = 20_000): Promise<string> {
  return until(
    `'${text}' in the log of ${pod.command.join(" ")}, which says: ${pod.logs().toString().slice(-500)}`,
    () => {
      const log = pod.logs().toString();
      if (log.includes(text)) return log;
      if (!pod.running) throw new Error(`the pod ended without '${text}': ${log.slice(-2000)}`);
      return undefined;
    },
    timeoutMs,
  );
}

export interface Cycle {
  pod: Pod;
  image: Image;
}

/**
 * Detaches, proves that nothing of the pod is left running (but its init, if that holds something), reattaches, and proves that
 * the init has ended. The image is removed.
 */
export async function cycle(
  pod: Pod,
  { detach, ...options }: ReattachOptions & { detach?: DetachOptions } = {},
  path: string = imageName(),
): Promise<Pod> {
  const initPid = (await pod.inspect()).initPid as number;
  const namespace = watchNamespace(initPid);
  try {
    const image = await pod.detach({ image: path, ...detach });
    const alive = namespace.alive().filter((pid) => pid !== initPid);
    if (alive.length > 0) throw new Error(`still running after detach: ${alive.join(", ")}`);
    const ended = () => until("the pod's init to end", () => namespace.alive().length === 0);
    const holds = image.manifest.holder !== undefined;
    if (!holds) await ended();
    const again = await reattach(image, { stdio: "log", ...options });
    if (holds) await ended();
    image.remove();
    return again;
  } finally {
    namespace.close();
  }
}

/** Ends whatever pods a test has left, so that one failure does not disturb the next test. */
export async function endAll(): Promise<void> {
  for (const { id } of await list()) {
    const pod = await connect(id);
    await pod.destroy();
    pod.remove({ force: true });
  }
}

/** Descriptors of this process, for leak checks: what each points to. */
export function ownFds(): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [`${fd} ${readlinkSync(`/proc/self/fd/${fd}`)}`];
    } catch {
      return []; // the directory's own
    }
  });
}
