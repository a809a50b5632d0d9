/**
 * What the tests of real programs share: five cycles of detach and reattach with a proof after each, ports, and the
 * end of a test, after which nothing may be left.
 */
import { type ExecFileSyncOptions, execFileSync } from "node:child_process";
import { get } from "node:http";
import { connect, createServer } from "node:net";
import type { Test } from "tap";
import type { Pod, ReattachOptions } from "virt-run";
import { leftovers } from "./leftovers.js";
import { cycle, endAll, until } from "./pods.js";

export const isRoot = process.geteuid?.() === 0;

/** Directory of the sources of test programs. */
export const sources = new URL("../apps/", import.meta.url).pathname;

export interface CycleOptions {
  reattach?: ReattachOptions;
  /** Where the image goes. */
  image?: string;
}

/** One cycle, then four more: after each of them `proof` must hold. Gives the pod as it is in the end. */
export async function fiveCycles(
  pod: Pod,
  proof: (pod: Pod, cycle: number) => Promise<void> | void,
  options: CycleOptions = {},
): Promise<Pod> {
  let now = pod;
  for (let n = 1; n <= 5; n++) {
    now = await untilFree(now, () => cycle(now, options.reattach, options.image));
    try {
      await proof(now, n);
    } catch (e) {
      throw new Error(
        `after cycle ${n}: ${(e as Error).message}; the log ends with ${now.logs().toString().slice(-800)}`,
        {
          cause: e,
        },
      );
    }
  }
  return now;
}

/**
 * Detaches with `detach` as soon as the pod has no connections left: a server closes its end some time after the client
 * has its answer.
 */
export async function untilFree<T>(pod: Pod, detach: () => Promise<T>): Promise<T> {
  await until("connections to end", async () => (await pod.check()).every(({ code }) => code !== "ERR_CONNECTION"));
  return detach();
}

/** Asks an HTTP server of this host, on a connection of its own. */
export function httpGet(port: number, path = "/"): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get({ host: "127.0.0.1", port, path, agent: false, timeout: 30_000 }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (text: string) => {
        body += text;
      });
      response.on("end", () =>
        response.statusCode === 200 ? resolve(body) : reject(new Error(`status ${response.statusCode}: ${body}`)),
      );
    });
    request.on("timeout", () => request.destroy(new Error(`no answer from port ${port} in 30 s`)));
    request.on("error", reject);
  });
}

/** Connects to a TCP port of this host and reads until the server closes. */
export async function tcpRead(port: number): Promise<string> {
  const socket = connect({ host: "127.0.0.1", port });
  let text = "";
  for await (const bytes of socket.setTimeout(30_000, () => socket.destroy(new Error(`port ${port} is silent`))))
    text += bytes;
  return text;
}

/** Call in every file: ends what a test leaves over, and proves in the end that nothing is left. */
export function leaveNothing(t: Test): void {
  t.afterEach(endAll);
  t.teardown(async () => {
    await endAll();
    // What was killed needs a moment to be gone.
    const left = await until("nothing to be left over", () => leftovers().length === 0, 5000).then(
      () => [],
      () => leftovers(),
    );
    if (left.length > 0) throw new Error(`left over:\n${left.join("\n")}`);
  });
}

let offset = 0;

/**
 * A port that nobody listens on, below those that the kernel gives to clients (ip_local_port_range): a client must not
 * take it while its server is in an image. Each test process has a range of its own.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 10_000 + ((process.pid * 16 + offset++) % 20_000);
    const free = await new Promise<boolean>((resolve) => {
      const server = createServer();
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
}

/** Runs a program on the host to its end and gives what it printed; throws with its complaints if it fails. */
export function run(command: string, args: readonly string[], options: ExecFileSyncOptions = {}): string {
  return execFileSync(command, args, { stdio: "pipe", ...options }).toString();
}

/** The whole lines of a text that begin with `prefix`, without it. A line that is still being written is left out. */
export function linesWith(text: string | Buffer, prefix: string): string[] {
  return text
    .toString()
    .split("\n")
    .slice(0, -1)
    .filter((line) => line.startsWith(prefix))
    .map((line) => line.slice(prefix.length));
}

/** Whole numbers that must be 0, 1, 2 … with none left out and none twice; gives how many there are. */
export function countedUp(lines: readonly string[], what: string): number {
  for (const [i, line] of lines.entries())
    if (line !== String(i)) throw new Error(`${what}: '${line}' where ${i} should be`);
  return lines.length;
}
