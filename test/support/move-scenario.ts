/**
 * One life of the model: a move with what goes wrong in it, then settling it until nothing is left to settle. Whatever
 * breaks a promise of a move is thrown, with all that happened.
 */
import { VirtError } from "../../src/errors.js";
import { Ledger } from "../../src/move/ledger.js";
import { settleMove } from "../../src/move/settle.js";
import { moveAway } from "../../src/move/source.js";
import { receiveMove, sweepMoves } from "../../src/move/target.js";
import { modelFate, modelSource, modelTarget } from "./move-pods.js";
import { Connection, type Fault, Process, World } from "./move-world.js";
import { Random } from "./random.js";

const silenceMs = 1000;

export interface ScenarioOptions {
  live: boolean;
  /** For what is left to chance: waits between tries, how long a receiver takes to start. */
  seed: number;
  /** Try a new move in place of settling the old one, when the pod runs where it was. */
  anew?: boolean;
}

/** How the first attempt ended: the code it failed with, "moved", or "killed". */
export interface Ending {
  first: string;
  steps: number;
  messages: number;
}

export async function play(faults: Fault[], options: ScenarioOptions): Promise<Ending> {
  const world = new World(faults, new Random(options.seed));
  try {
    return await new Scenario(world, options).play();
  } catch (e) {
    const what = `seed ${options.seed}, ${options.live ? "live" : "cold"}${options.anew ? ", anew" : ""}: ${JSON.stringify(faults)}`;
    throw new Error(`${(e as Error).message}\n${what}\n${world.trace.join("\n")}`, { cause: e });
  }
}

class Scenario {
  #moves = 0;

  constructor(
    readonly world: World,
    readonly options: ScenarioOptions,
  ) {}

  async play(): Promise<Ending> {
    const { world, options } = this;
    const first = await this.#attempt("move");
    const ending = { first, steps: world.steps, messages: world.messages };
    let settled = first === "moved";
    for (let tries = 0; !settled; tries++) {
      if (tries === 12) throw new Error("it cannot be settled");
      // At first at once, so that what the dead left meets what comes; later they have gone.
      await this.#pass(tries < 3 ? world.random.pick([0, 0, world.random.below(1500)]) : 9 * silenceMs);
      const outcome = await this.#attempt(options.anew && world.runningAt("a") === 1 ? "move" : "settle");
      settled = ["moved", "abandoned", "ERR_POD_NOT_FOUND"].includes(outcome);
    }
    await this.#rest();
    world.faults.length = 0;
    if (world.runningAt("a") === 1) {
      this.#nothingLeft("a");
      const outcome = await this.#attempt("move");
      if (outcome !== "moved") throw new Error(`a later move fails: ${outcome}`);
      await this.#rest();
    }
    this.#nothingLeft("b");
    return ending;
  }

  /** Runs a command at the source to its end, whatever that is, and sees that it said the truth. */
  async #attempt(verb: "move" | "settle"): Promise<string> {
    const { world, options } = this;
    const source = new Process(world, `${verb} ${world.processes.length}`, "a");
    let outcome: string | undefined;
    let message = "";
    const copy = world.copy("a00000000000");
    const common = { ledger: new Ledger(source.store), clock: source.clock, silenceMs };
    const work: Promise<string> =
      verb === "move"
        ? moveAway(modelSource(source, copy, 0), this.#connect(source), {
            ...common,
            move: String(++this.#moves).padStart(32, "0"),
            target: "ssh://b",
            live: options.live,
            mostRounds: 3,
            signal: source.abort.signal,
          }).then(() => "moved")
        : settleMove(copy.id, {
            ...common,
            pods: { fate: (id) => modelFate(source, id) },
            connect: async () => this.#connect(source),
          }).then(({ state }) => state);
    work.then(
      (end) => (outcome = end),
      (e: VirtError) => {
        world.log(`${source.name} fails: ${e.message} (${e.code})`);
        message = e.message;
        outcome = e instanceof VirtError ? e.code : String((e as Error).stack);
        if (e.message.includes("is lost: it was given up")) world.broken = "a pod was lost";
      },
    );
    await world.run(() => outcome !== undefined || !source.alive);
    if (world.broken !== undefined) throw new Error(world.broken);
    const end = outcome ?? (source.alive ? "hangs" : "killed");
    world.log(`${source.name} ends: ${end}`);
    if (end === "hangs") throw new Error(`${source.name} hangs`);
    if (!end.startsWith("ERR_") && !["moved", "abandoned", "killed"].includes(end)) throw new Error(end);
    if (end === "ERR_BUG") throw new Error("a bug");
    if (end === "moved" && world.runningAt("b") !== 1) throw new Error("it said that the pod is there");
    if (end === "abandoned" && world.runningAt("a") !== 1) throw new Error("it said that the pod is here");
    if (message.includes("runs on here") && world.runningAt("a") !== 1 && !this.#thawFailed())
      throw new Error(`it said that the pod runs on (${end})`);
    if (end === "ERR_ABORTED" && verb === "move" && world.runningAt("a") !== 1) throw new Error("aborted, and gone");
    if (source.alive) source.exit();
    return end;
  }

  /** Then the end of the process thaws it. */
  #thawFailed(): boolean {
    return this.world.trace.some((line) => /fail-(before|after) at \d+ \(thaw\)/.test(line));
  }

  #connect(source: Process): Connection {
    const { world } = this;
    const target = new Process(world, `receive ${world.processes.length}`, "b");
    const [here, there] = [new Connection(source, true), new Connection(target, false)];
    here.peer = there;
    there.peer = here;
    const patience = world.random.pick([1, 1, 4]); // a host of its own has its own limits
    // sshd(8) takes its time.
    world.after(world.random.below(20), () => {
      if (!target.alive) return;
      receiveMove(there, {
        ledger: new Ledger(target.store),
        pods: modelTarget(target),
        clock: target.clock,
        silenceMs: patience * silenceMs,
      })
        .then(
          (received) => world.log(`${target.name} ends: ${received.state}`),
          (e: VirtError) => {
            world.log(`${target.name} fails: ${e.message} (${e.code})`);
            if (!(e instanceof VirtError) || e.code === "ERR_BUG") world.broken ??= String((e as Error).stack);
          },
        )
        .finally(() => target.exit());
    });
    return here;
  }

  async #pass(ms: number): Promise<void> {
    let over = false;
    this.world.after(ms, () => (over = true));
    await this.world.run(() => over);
    if (this.world.broken !== undefined) throw new Error(this.world.broken);
  }

  /** Everything ends that can; then the target sweeps, as it does whenever it is called. */
  async #rest(): Promise<void> {
    const { world } = this;
    await world.run(() => false);
    world.faults.length = 0;
    const sweeper = new Process(world, "sweep", "b");
    let swept = false;
    const ledger = new Ledger(sweeper.store);
    sweepMoves(ledger, modelTarget(sweeper)).then(
      () => (swept = true),
      (e: Error) => (world.broken ??= e.stack),
    );
    await world.run(() => swept);
    sweeper.exit();
    if (world.broken !== undefined) throw new Error(world.broken);
    const alive = world.processes.filter((p) => p.alive);
    if (alive.length > 0) throw new Error(`${alive.map((p) => p.name)} never end`);
  }

  /** One copy runs, and there is nothing but notes of the end anywhere else. */
  #nothingLeft(at: "a" | "b"): void {
    const { world } = this;
    const wrong: string[] = [];
    if (world.runningAt(at) !== 1) wrong.push(`${world.runningAt(at)} copies run at ${at}`);
    if (world.images.size > 0) wrong.push(`images of ${[...world.images.keys()]}`);
    const rest = world.copies.filter((c) => c.state === "parked" || c.state === "frozen");
    if (rest.length > 0) wrong.push(`${rest.map((c) => `${c.id} is ${c.state}`)}`);
    const ends = at === "a" ? ["abandoned", "dropped"] : ["moved", "committed"];
    for (const state of [...world.states("a"), ...world.states("b")])
      if (!ends.includes(state)) wrong.push(`a note says ${state}`);
    if (wrong.length > 0) throw new Error(`in the end: ${wrong.join("; ")}`);
  }
}
