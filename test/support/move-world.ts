/**
 * Two hosts for the model of a move: virtual time, processes that can be killed between any two steps, a network that cuts,
 * hangs, delays, doubles and echoes, notes that stay, and pods that are no more than states. The protocol itself is the real one.
 */
import { VirtError } from "../../src/errors.js";
import type { NoteStore } from "../../src/move/notes.js";
import type { MoveClock, MoveWire, PodFate } from "../../src/move/parts.js";
import type { Random } from "./random.js";

/** Something that goes wrong at one step of a process, or one message. */
export type Fault =
  | { kind: "kill-before" | "kill-during" | "kill-after" | "fail-before" | "fail-after" | "abort"; step: number }
  | { kind: "cut-before" | "cut-after" | "hang" | "double" | "echo"; message: number }
  | { kind: "late"; message: number; ms: number };

type HostName = "a" | "b";

/** One copy of the pod: only one may run, ever. */
export interface Copy {
  id: string;
  host: HostName;
  state: "running" | "frozen" | "parked" | "gone";
  fate: PodFate;
  owner: Process | undefined;
  everRan: boolean;
  /** What init was told and has not done yet. */
  underWay: number;
}

export const never = new Promise<never>(() => {});
const latencyMs = 2;
const longestMs = 3_600_000;

export class World {
  now = 0;
  readonly copies: Copy[] = [];
  readonly images = new Map<string, { complete: boolean }>();
  /** What descriptors of directories stand for: ids of moves. */
  readonly directories: string[] = [];
  readonly notes = { a: new Map<string, string>(), b: new Map<string, string>() };
  readonly locks = { a: new Map<string, Process>(), b: new Map<string, Process>() };
  readonly trace: string[] = [];
  readonly processes: Process[] = [];
  readonly said: { toTarget: boolean; bytes: Buffer }[] = [];
  steps = 0;
  messages = 0;
  ids = 0;
  broken: string | undefined;
  readonly #events: { at: number; order: number; f: () => void }[] = [];
  #order = 0;

  constructor(
    readonly faults: Fault[],
    readonly random: Random,
  ) {
    this.copies.push({
      id: "a00000000000",
      host: "a",
      state: "running",
      fate: "runs",
      owner: undefined,
      everRan: true,
      underWay: 0,
    });
  }

  log(text: string): void {
    this.trace.push(`${this.now} ${text}`);
  }

  after(ms: number, f: () => void): () => void {
    const event = { at: this.now + ms, order: this.#order++, f };
    this.#events.push(event);
    return () => {
      const at = this.#events.indexOf(event);
      if (at >= 0) this.#events.splice(at, 1);
    };
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.after(ms, resolve));
  }

  /** Lets time pass until the work is done, or until nothing is left that could happen. */
  async run(isDone: () => boolean): Promise<void> {
    for (;;) {
      await new Promise(setImmediate); // all that promises have to do is done then
      this.check();
      if (this.broken !== undefined || isDone() || this.#events.length === 0) return;
      let next = 0;
      for (let i = 1; i < this.#events.length; i++) {
        const [a, b] = [this.#events[i], this.#events[next]];
        if (a && b && (a.at < b.at || (a.at === b.at && a.order < b.order))) next = i;
      }
      const [event] = this.#events.splice(next, 1);
      if (!event) return;
      this.now = event.at;
      if (this.now > longestMs) this.broken ??= "it never ends";
      event.f();
    }
  }

  copy(id: string): Copy {
    const copy = this.copies.find((c) => c.id === id);
    if (!copy) throw new Error(`no copy ${id}`);
    return copy;
  }

  states(host: HostName): string[] {
    return [...this.notes[host].values()].map((text) => (JSON.parse(text) as { state: string }).state);
  }

  runningAt(host: HostName): number {
    return this.copies.filter((c) => c.host === host && c.state === "running").length;
  }

  /** The rule of all this, at every moment. */
  check(): void {
    const running = this.copies.filter((c) => c.state === "running").length;
    if (running > 1) this.broken ??= `${running} copies run`;
    if (running === 1 || this.copies.some((c) => c.state === "frozen")) return;
    const kept =
      this.states("b").some((s) => s === "prepared" || s === "activating") &&
      [...this.images.values()].some((i) => i.complete);
    if (!kept) this.broken ??= "no copy runs, and none is kept";
    else if (!this.states("a").includes("committing"))
      this.broken ??= "no copy runs, and the source does not know of it";
  }
}

/** What a supervisor or receiver is to the world: a kill drops it between two of its steps. */
export class Process {
  alive = true;
  readonly connections: Connection[] = [];
  readonly abort = new AbortController();

  constructor(
    readonly world: World,
    readonly name: string,
    readonly host: HostName,
  ) {
    world.processes.push(this);
  }

  /** A step: whatever the state machines do that others can see. */
  async step<T>(what: string, f: () => T | Promise<T>): Promise<T> {
    if (!this.alive) return never;
    const { world } = this;
    const number = world.steps++;
    const fault = world.faults.find((one) => "step" in one && one.step === number);
    if (fault) world.log(`${this.name}: ${fault.kind} at ${number} (${what})`);
    if (fault?.kind === "abort") this.abort.abort();
    if (fault?.kind === "kill-before") return this.die();
    if (fault?.kind === "fail-before") throw new VirtError("ERR_SYSCALL", "input/output error", { errnoName: "EIO" });
    if (fault?.kind === "kill-during") world.after(1, () => this.alive && this.exit());
    const value = await f();
    if (!this.alive) return never;
    if (fault?.kind === "kill-after") return this.die();
    if (fault?.kind === "fail-after") throw new VirtError("ERR_SYSCALL", "input/output error", { errnoName: "EIO" });
    return value;
  }

  die(): Promise<never> {
    this.exit();
    return never;
  }

  /** What the kernel does when a process ends. */
  exit(): void {
    this.alive = false;
    for (const c of this.connections) c.cut();
    for (const [name, owner] of this.world.locks[this.host])
      if (owner === this) this.world.locks[this.host].delete(name);
    for (const copy of this.world.copies) {
      if (copy.owner !== this) continue;
      copy.owner = undefined;
      if (copy.state === "frozen") this.set(copy, "running");
      // init sees it a little later, after what it was told before.
      if (copy.state === "parked") void this.told(copy, 5, () => copy.state === "parked" && this.set(copy, "gone"));
    }
  }

  set(copy: Copy, state: Copy["state"]): void {
    this.world.log(`the pod at ${copy.host} (${copy.id}): ${state}`);
    copy.state = state;
    if (state === "running") copy.everRan = true;
    this.world.check();
  }

  /** init does it, whether or not this process lives then. */
  told(copy: Copy, ms: number, f: () => void): Promise<void> {
    copy.underWay++;
    return new Promise((resolve) => {
      this.world.after(ms, () => {
        copy.underWay--;
        f();
        resolve();
      });
    });
  }

  get clock(): MoveClock {
    return {
      now: () => this.world.now,
      after: (ms, f) => this.world.after(ms, () => this.alive && f()),
    };
  }

  get store(): NoteStore {
    const notes = this.world.notes[this.host];
    const locks = this.world.locks[this.host];
    return {
      read: (name) => this.step(`read ${name}`, () => notes.get(name)),
      write: (name, text) =>
        this.step(`write ${name} ${(JSON.parse(text) as { state: string }).state}`, () => {
          this.world.log(`${this.name} writes ${(JSON.parse(text) as { state: string }).state}`);
          notes.set(name, text);
        }),
      list: () => this.step("list", () => [...notes.keys()]),
      lock: (name) =>
        this.step(`lock ${name}`, () => {
          if (locks.has(name)) return undefined;
          locks.set(name, this);
          return () => {
            if (this.alive && locks.get(name) === this) locks.delete(name);
          };
        }),
    };
  }
}

type Item = { control: Buffer } | { data: number; last: boolean };

/** One end of a connection, which is two of them. */
export class Connection implements MoveWire {
  peer!: Connection;
  #stalledUntil = 0;
  #ended = false;
  #sent = 0;
  #received = 0;
  #into: number | undefined;
  readonly #arrived: Item[] = [];
  readonly #held: (() => void)[] = [];
  #wake = () => {};

  constructor(
    readonly process: Process,
    readonly toTarget: boolean,
  ) {
    process.connections.push(this);
  }

  send(message: Buffer): Promise<void> {
    const { type } = JSON.parse(message.toString()) as { type: string };
    if (type === "alive") return this.#sayAlive(message);
    return this.process.step(`send ${type}`, () => {
      this.#refuseIfEnded();
      const { world } = this.process;
      const number = world.messages++;
      const faults = world.faults.filter((one) => "message" in one && one.message === number);
      for (const one of faults) {
        world.log(`message ${number} (${type}): ${one.kind}`);
        if (one.kind === "cut-before") return this.cut();
        if (one.kind === "hang") this.#stall(Number.POSITIVE_INFINITY);
        if (one.kind === "late") this.#stall(world.now + one.ms);
        const earlier = world.said.filter((s) => s.toTarget === this.toTarget);
        if (one.kind === "echo" && earlier.length > 0) this.#carry({ control: world.random.pick(earlier).bytes });
      }
      world.log(`${this.process.name} says ${message}`);
      world.said.push({ toTarget: this.toTarget, bytes: message });
      this.#sent += message.length;
      this.#carry({ control: message });
      for (const one of faults) {
        if (one.kind === "double") this.#carry({ control: message });
        if (one.kind === "cut-after") world.after(latencyMs, () => this.cut());
      }
    });
  }

  /** No step, and no message that a fault counts: there would be little else. */
  async #sayAlive(message: Buffer): Promise<void> {
    if (!this.process.alive) return never;
    this.#refuseIfEnded();
    this.#carry({ control: message });
  }

  /** Pages: they fill the way when nobody takes them. */
  async data(bytes: number, last: boolean): Promise<void> {
    for (;;) {
      if (!this.process.alive) await never;
      this.#refuseIfEnded();
      const { world } = this.process;
      if (this.#stalledUntil <= world.now) break;
      if (this.#stalledUntil === Number.POSITIVE_INFINITY) await new Promise<void>((r) => this.#held.push(r));
      else await world.sleep(this.#stalledUntil - world.now);
    }
    this.#sent += bytes;
    this.#carry({ data: bytes, last });
  }

  async sendFile(): Promise<void> {}

  next(): Promise<Buffer | undefined> {
    return this.process.step("next", async () => {
      for (;;) {
        const item = this.#arrived.shift();
        if (item && "control" in item) return item.control;
        if (item) this.#put(item);
        else if (this.#ended) return undefined;
        else await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    });
  }

  receiveInto(directoryFd: number): void {
    this.#into = directoryFd;
  }

  progress(): { sentBytes: number; receivedBytes: number } {
    return { sentBytes: this.#sent, receivedBytes: this.#received };
  }

  limit(): void {}

  async close(): Promise<void> {
    if (!this.process.alive) return never;
    this.cut();
  }

  /** Ends here at once, there when what was sent has arrived; a hung way tells nobody. */
  cut(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#wake();
    for (const resolve of this.#held.splice(0)) resolve();
    if (this.#stalledUntil === Number.POSITIVE_INFINITY) return;
    const { world } = this.process;
    world.after(Math.max(latencyMs, this.#stalledUntil - world.now), () => {
      this.peer.#ended = true;
      this.peer.#wake();
      for (const resolve of this.peer.#held.splice(0)) resolve();
    });
  }

  #put({ data, last }: { data: number; last: boolean }): void {
    if (this.#into === undefined) throw new Error("data where no directory is");
    this.#received += data;
    const { world } = this.process;
    const image = world.images.get(world.directories[this.#into] ?? "");
    if (image && last) image.complete = true;
  }

  #stall(until: number): void {
    for (const end of [this, this.peer]) end.#stalledUntil = Math.max(end.#stalledUntil, until);
  }

  #carry(item: Item): void {
    const { world } = this.process;
    if (this.#stalledUntil === Number.POSITIVE_INFINITY) return;
    world.after(Math.max(latencyMs, this.#stalledUntil - world.now), () => {
      if (!this.peer.process.alive || this.peer.#ended) return;
      if ("control" in item) this.peer.#received += item.control.length;
      this.peer.#arrived.push(item);
      this.peer.#wake();
    });
  }

  #refuseIfEnded(): void {
    if (this.#ended) throw new VirtError("ERR_SYSCALL", "broken pipe", { syscall: "write", errnoName: "EPIPE" });
  }
}
