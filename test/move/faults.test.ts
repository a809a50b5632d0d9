/**
 * Moves that are cut, at every message and in between: the source's supervisor is killed, or the target's, or the line. Afterwards
 * at most one copy of the pod runs; `move --resume` settles it so that exactly one does, it has forgotten nothing, and nothing
 * else is left on either host.
 */
import t, { type Test } from "tap";
import { leaveNothing } from "../support/apps.js";
import { program } from "../support/cli.js";
import type { Host } from "../support/hosts.js";
import {
  hostsWithSsh,
  logOf,
  type MoveFaults,
  moving,
  remains,
  resuming,
  sockets,
  told,
  whereRuns,
} from "../support/moves.js";
import { until } from "../support/pods.js";
import { steadyProgram } from "../support/steady.js";

leaveNothing(t);
t.jobs = 3; // each waits for others most of the time, and has hosts of its own

const receiver = `${process.execPath} ${program} receive`;

/** How many laps the log tells of; throws unless they are 1, 2, 3 … and nothing else was said. */
function laps(host: Host): number {
  const lines = logOf(host).split("\n").slice(0, -1);
  for (const [i, line] of lines.entries())
    if (line !== `lap ${i + 1}`) throw new Error(`'${line}' where 'lap ${i + 1}' should be`);
  return lines.length;
}

/** Two hosts and a pod that goes from one to the other when a move succeeds, or is settled that way. */
class Course {
  readonly #steady = steadyProgram();
  readonly #hosts: Host[];
  here: Host;
  there: Host;

  constructor(hosts: Host[]) {
    this.#hosts = hosts;
    [this.here, this.there] = hosts as [Host, Host];
  }

  async start(): Promise<void> {
    await told(this.here, "run", "-d", "--name", "steady", "--", this.#steady);
    await this.#goesOn(this.here, 17);
  }

  /** On which hosts it runs now. */
  #running(): string {
    return [...new Set(whereRuns(this.#hosts, this.#steady))].sort().join();
  }

  async #goesOn(host: Host, more: number): Promise<void> {
    const before = laps(host);
    await until("it to go on", () => laps(host) > before + more);
  }

  /** A move with this fault. Gives in a word how it ended, before and after it was settled. */
  async move(faults: MoveFaults, words: readonly string[] = []): Promise<string> {
    const { here, there } = this;
    const said = await moving(here, there, "steady", ["-q", ...words], faults).ended;
    await until("the other side to end", () => whereRuns(this.#hosts, receiver).length === 0);
    // A pod that was parked is killed by its init; one that was let go of by its own.
    await until("one copy at most", () => this.#running().length <= 1);
    const before = this.#running();
    if (said.code === 0 && before !== there.name) throw new Error(`said to be moved, and it runs on '${before}'`);
    if (before === here.name && said.code === 1 && /ERR_MOVE_IN_DOUBT/.test(said.err))
      throw new Error(`it runs on, and that is said to be in doubt: ${said.err}`);
    if (before === "" && said.code === 1 && !/ERR_MOVE_IN_DOUBT/.test(said.err))
      throw new Error(`it does not run, and nobody says so: ${said.err}`);
    if (said.code !== 0) {
      const settled = await resuming(here, "steady");
      const neverSaid = before === here.name && /was never moved from here/.test(settled.err);
      if (settled.code !== 0 && !neverSaid) throw new Error(`cannot be settled (${before}): ${settled.err}`);
    }
    const after = this.#running();
    if (after !== here.name && after !== there.name) throw new Error(`settled, and it runs on '${after}'`);
    if (before !== "" && after !== before) throw new Error(`it ran on ${before} and runs on ${after}`);
    if (after === there.name) [this.here, this.there] = [there, here];
    // All of its memory is looked at in 16 laps.
    await this.#goesOn(this.here, after === there.name ? 17 : 2);
    // What a target that was killed had received goes with the next move to it, or so.
    if (faults.target !== undefined) await told(there, "prune");
    await until(
      { toString: () => `nothing to remain: ${this.#remains().join(", ")}` },
      () => this.#remains().length === 0,
    );
    return `${said.signal ?? said.code}, ${before === here.name ? "stays" : before === "" ? "in doubt" : "goes"}, then ${after === here.name ? "stays" : "goes"}`;
  }

  #remains(): string[] {
    const others = [...remains(this.here), ...remains(this.there), ...sockets(this.there)];
    return sockets(this.here).length === 1 ? others : [...others, ...sockets(this.here)];
  }
}

/** What an ordinary user has tried root tries in part: nothing of it depends on who it is but what processes may do to each other. */
const some = <T>(cases: readonly T[]): T[] => cases.filter((_, i) => process.geteuid?.() !== 0 || i % 3 === 0);

/** One move with each of these; what fails is told with its fault. Every one has to come into effect. */
async function each(t: Test, cases: readonly (MoveFaults & { words?: string[] })[]): Promise<void> {
  const course = new Course(await hostsWithSsh(t));
  await course.start();
  for (const { words, ...faults } of some(cases)) {
    const name = [...Object.entries(faults), ...(words ?? [])].join(" ");
    try {
      const ended = await course.move(faults, words);
      if (ended.startsWith("0")) t.fail(`${name}: nothing happened`);
      else t.pass(`${name}: ${ended}`);
    } catch (e) {
      t.fail(`${name}: ${(e as Error).message}`);
      return; // one copy is not known to be where the next could begin
    }
  }
  t.equal(await course.move({}), "0, goes, then goes", "and one without a fault");
  await told(course.here, "rm", "-f", "steady");
}

const outgoing = ["hello", "offer", "draft", "round", "pages", "file", "prepare", "commit"];
const incoming = ["welcome", "accept", "prepared"];

t.test("the line is cut before and after each message", { buffered: true }, async (t) => {
  await each(t, [
    ...outgoing.flatMap((what) => [{ cut: `out:${what}:before` }, { cut: `out:${what}:after` }]),
    ...incoming.flatMap((what) => [{ cut: `in:${what}:before` }, { cut: `in:${what}:after` }]),
    { cut: "in:committed:before" }, // after it everything has been said
  ]);
});

t.test("the source's supervisor is killed", { buffered: true }, async (t) => {
  const words = ["--cold"];
  const sends = ["move-send@1", "move-send@2", "move-send@3", "move-send@4", "move-send@5"];
  const receives = ["move-received@1", "move-received@2", "move-received@3", "move-received@4"];
  const others = ["move-send-pages", "freeze-stopped", "survey", "capture-read-done", "release"];
  await each(
    t,
    [...sends, ...receives, ...others].map((name) => ({ source: `${name}:kill`, words })),
  );
});

t.test("the target's supervisor is killed", { buffered: true }, async (t) => {
  const words = ["--cold"];
  const receives = [1, 2, 3, 4, 5].map((n) => `move-received@${n}`);
  const sends = [1, 2, 3, 4].map((n) => `move-send@${n}`);
  const others = [
    "rebuild-seed",
    "rebuild-grown",
    "rebuild-fill",
    "rebuild-parked",
    "rebuild-commit",
    "rebuild-committed",
  ];
  await each(
    t,
    [...receives, ...sends, ...others].map((name) => ({ target: `${name}:kill`, words })),
  );
});
