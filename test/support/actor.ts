/**
 * A program on one of the hosts that does with its sockets what it is told (test/connections/actor.py), in a pod or outside; and
 * how a pod is moved from one host to another.
 */
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Said } from "./cli.js";
import type { Host } from "./hosts.js";
import { needs } from "./packages.js";
import { until } from "./pods.js";

const source = new URL("../connections/actor.py", import.meta.url).pathname;

let made = 0;

/** What it could not do: the errno's name, or Python's exception. */
export class ActorError extends Error {
  readonly errno: string | undefined;
  constructor(expression: string, { errno, failure }: { errno?: string; failure?: string }) {
    super(`${expression}: ${errno ?? failure}`);
    this.errno = errno;
  }
}

export class Actor {
  #host: Host;
  /** Where it was: what it did before a move was answered there. */
  readonly #former: Host[] = [];
  readonly name: string;

  private constructor(host: Host, name: string) {
    this.#host = host;
    this.name = name;
  }

  /** Where it is; a move changes it. */
  get host(): Host {
    return this.#host;
  }

  set host(host: Host) {
    this.#former.push(this.#host);
    this.#host = host;
  }

  /** Starts it in a pod of its name. `options` are words for `virt-run run`. */
  static async inPod(host: Host, ...options: string[]): Promise<Actor> {
    const actor = new Actor(host, `actor${made++}`);
    mkdirSync(actor.#place);
    await said(
      host.virtRun(["run", "-d", "--name", actor.name, ...options, needs("python3"), source, actor.#directory]),
    );
    return actor;
  }

  /** Starts it outside, where it ends with its host. */
  static outside(host: Host): Actor {
    const actor = new Actor(host, `actor${made++}`);
    mkdirSync(actor.#place);
    host.start(needs("python3"), [source, actor.#directory]);
    return actor;
  }

  /** Another process of it, with the same sockets. */
  async child(): Promise<Actor> {
    const child = new Actor(this.host, `actor${made++}`);
    await this.do(`child('${child.#directory}')`);
    return child;
  }

  get #directory(): string {
    return join(this.host.directory, this.name);
  }

  /** The same from outside. */
  get #place(): string {
    return join(this.host.disk, this.name);
  }

  /** Begins something that may take long: a function that waits for what comes of it. */
  begin<T = unknown>(expression: string, patienceMs = 30_000): () => Promise<T> {
    const number = made++;
    const at = join(this.#place, `${number}`);
    const answers = () => [this.#host, ...this.#former].map(({ disk }) => join(disk, this.name, `${number}.did`));
    mkdirSync(this.#place, { recursive: true });
    writeFileSync(`${at}.new`, expression);
    renameSync(`${at}.new`, `${at}.do`);
    return async () => {
      const what = `${this.name} on ${this.host.name}: ${expression}`;
      const path = await until(what, () => answers().find(existsSync), patienceMs);
      const answer = JSON.parse(readFileSync(path, "utf8"));
      if ("value" in answer) return answer.value as T;
      throw new ActorError(expression, answer);
    };
  }

  /** Does it; gives its value. */
  do<T = unknown>(expression: string, patienceMs?: number): Promise<T> {
    return this.begin<T>(expression, patienceMs)();
  }

  /** Name of the errno with which it fails; "" if it does not. */
  async fails(expression: string, patienceMs?: number): Promise<string> {
    try {
      await this.do(expression, patienceMs);
      return "";
    } catch (e) {
      if (e instanceof ActorError && e.errno !== undefined) return e.errno;
      throw e;
    }
  }

  /** Its pod goes into an image, at this path on its host, which is where others reach what is held. */
  async detach(options: readonly string[] = ["--hold-at", this.host.address]): Promise<string> {
    const image = join(this.host.directory, `image${made++}`);
    await said(this.host.virtRun(["detach", this.name, "-o", image, ...options]));
    return image;
  }

  /** Reattaches its image on a host; what it was asked and has not answered is answered there. */
  async reattach(image: string, host: Host, ...options: string[]): Promise<void> {
    await said(this.tryReattach(image, host, ...options));
    this.host = host;
  }

  /** The same where it may fail: then it is where it was. */
  tryReattach(image: string, host: Host, ...options: string[]): Promise<Said> {
    if (host !== this.host) carry(image, this.host, host);
    mkdirSync(join(host.disk, this.name), { recursive: true });
    return host.virtRun(["reattach", image, "-d", ...options]);
  }

  async move(host: Host, ...options: string[]): Promise<void> {
    await this.reattach(await this.detach(), host, ...options);
  }
}

/** Copies an image to another host, where its path is the same. */
export function carry(image: string, from: Host, to: Host): void {
  const path = (host: Host) => image.replace(host.directory, host.disk);
  rmSync(path(to), { recursive: true, force: true });
  cpSync(path(from), path(to), { recursive: true, preserveTimestamps: true });
}

/** What a `virt-run` says that must not fail. */
export async function said(what: Promise<Said>): Promise<string> {
  const { code, out, err } = await what;
  if (code !== 0) throw new Error(`exit code ${code}: ${err || out}`);
  return out;
}
