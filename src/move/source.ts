/**
 * The side of a move that gives a pod away: hello, track, offer, rounds, stop, prepare, commit; and settling a move that was
 * cut. Until *committing* is written down every failure leaves the pod running; from then on this side never lets it run.
 */
import { type Blocker, toVirtError, VirtError } from "../errors.js";
import { version } from "../version.js";
import { type About, Conversation, Interruption } from "./conversation.js";
import type { Ledger, OutgoingNote } from "./ledger.js";
import { chooseVersion, draftPieces, type MessageOf, protocolError, spokenVersions } from "./messages.js";
import type { MoveSettings, MoveWire, SourcePod } from "./parts.js";
import { type CopyRound, judgeRounds } from "./rounds.js";

/**
 * How far a move is.
 *
 * @example
 * const onProgress = ({ phase, round, dirtyBytes }: MoveProgress) => console.log(phase, round, dirtyBytes);
 */
export interface MoveProgress {
  /** "hello", "track", "offer", "copy" (the pod runs), "stop" (it stands still from here), "prepare", "commit", "done". */
  phase: "hello" | "track" | "offer" | "copy" | "stop" | "prepare" | "commit" | "done";
  /** Of copying, from 1; 0 before. */
  round: number;
  /** All that went across, in bytes. */
  sentBytes: number;
  /** What of this round went across, and what it has to send, about; in bytes. Both 0 outside of rounds. */
  roundBytes: number;
  totalBytes: number;
  /** What the pod wrote to in the last round and has to go again, in bytes. */
  dirtyBytes: number;
  /** Of the last rounds; 0 before. */
  bytesPerSecond: number;
  /** How long the pod would stand still if it stopped after this round, in milliseconds; 0 before the first. */
  expectedStopMs: number;
}

/** What moveAway() may be told; what is not required has a default. */
export interface MoveAwayOptions extends MoveSettings {
  ledger: Ledger;
  /** 32 hexadecimal digits that no other move has. */
  move: string;
  /** As the user named it; for the note and messages. */
  target: string;
  /** Copy while the pod runs. Default true. */
  live?: boolean;
  /** How long the pod may stand still, if its writing allows it, in milliseconds. Default 300. */
  downtimeMs?: number;
  /** What of that goes by whatever there is to send, in milliseconds. Default 50. */
  fixedMs?: number;
  /** Default 30. */
  mostRounds?: number;
  /** How long the target may take to build the pod while it stands still here, in milliseconds. Default 600 000. */
  prepareMs?: number;
  /** Stops the move with ERR_ABORTED, until the target has the whole pod; the pod goes on. */
  signal?: AbortSignal;
  onProgress?: (progress: MoveProgress) => void;
}

/** A pod that runs elsewhere now. */
export interface Moved {
  target: string;
  epoch: number;
  /** What it is there; undefined if it has gone on from there since. */
  pod: { id: string; name: string } | undefined;
  /** What could not be had back there, in words. */
  notes: string[];
  /** From the stop to the word that it runs there; undefined of a move that was settled later. */
  stoppedMs?: number;
}

/**
 * Moves a pod over a wire, which is closed at the end. Resolves when it runs there.
 *
 * Errors that leave the pod running here: ERR_MOVE_REFUSED with `blockers`, ERR_MOVE_PROTOCOL, ERR_MOVE_LOST, ERR_ABORTED,
 * ERR_POD_BUSY, those of the capture. ERR_MOVE_IN_DOUBT: the target has the whole pod, this side none; settleMove() goes on.
 *
 * @example
 * const { pod: there } = await moveAway(source, wire, { ledger, move: native.randomHex(16), target: "ssh://b" });
 */
export async function moveAway(pod: SourcePod, wire: MoveWire, options: MoveAwayOptions): Promise<Moved> {
  return await underLock(pod, wire, options, (departure) => departure.run());
}

async function underLock<T>(
  pod: SourcePod,
  wire: MoveWire,
  options: MoveAwayOptions,
  work: (departure: Departure) => Promise<T>,
): Promise<T> {
  const talk = new Conversation(wire, options, options.signal);
  try {
    const unlock = await options.ledger.lockOutgoing(pod.id);
    if (!unlock) throw new VirtError("ERR_POD_BUSY", `another command moves the pod ${pod.name}`);
    try {
      return await work(new Departure(pod, wire, talk, options));
    } finally {
      unlock();
    }
  } finally {
    await talk.close();
  }
}

/**
 * What stands in the way of a move: everything, here or there; the pod is stopped for a moment and runs on. Rejects as
 * moveAway() does for what is no obstacle of the pod's: nobody is reached, say.
 */
export async function checkAway(pod: SourcePod, wire: MoveWire, options: MoveAwayOptions): Promise<Blocker[]> {
  return await underLock(pod, wire, options, (departure) => departure.check());
}

/** One move, from the source's side. */
class Departure {
  #touched = false;
  #offered = false;
  /** The target may have an image that this side has not heard of. */
  #prepareSent = false;
  #refused = false;
  #wanted: ReadonlySet<string> = new Set();
  /** Of all that went across, where this round began. */
  #roundStart = 0;
  #memoryBytes = 0;
  #progress: MoveProgress = {
    phase: "hello",
    round: 0,
    sentBytes: 0,
    roundBytes: 0,
    totalBytes: 0,
    dirtyBytes: 0,
    bytesPerSecond: 0,
    expectedStopMs: 0,
  };
  #note: OutgoingNote;

  constructor(
    private readonly pod: SourcePod,
    private readonly wire: MoveWire,
    private readonly talk: Conversation,
    private readonly options: MoveAwayOptions,
  ) {
    const { id, name, lineage } = pod;
    const { move, target } = options;
    this.#note = { schemaVersion: 1, state: "offered", move, lineage, epoch: 0, at: "", pod: { id, name }, target };
  }

  get #about(): About {
    return { move: this.#note.move, epoch: this.#note.epoch };
  }

  async run(): Promise<Moved> {
    const { talk, options, pod } = this;
    let stoppedAt: number;
    try {
      await this.#begin();
      if (options.live ?? true) await this.#copy();
      this.#tell({ phase: "stop" });
      stoppedAt = talk.now;
      await talk.during(pod.stop(this.wire, this.#wanted));
      this.#tell({ phase: "prepare" });
      this.#prepareSent = true;
      await talk.send({ type: "prepare", ...this.#about });
      const answer = await talk.expect(["prepared", "refuse"], this.#about, options.prepareMs ?? 600_000);
      if (answer.type === "refuse") throw this.#refusal(answer);
      talk.passed("prepared");
      await this.#write("committing");
    } catch (e) {
      throw await this.#giveUp(e);
    }
    talk.uninterruptible();
    this.#tell({ phase: "commit" });
    try {
      // In this order: the word that lets it run there is not said while it could run here.
      await talk.during(pod.release(), false);
      await talk.send({ type: "commit", ...this.#about });
      const committed = await talk.expect(["committed"], this.#about);
      return { ...(await finish(this.options.ledger, this.#note, committed)), stoppedMs: talk.now - stoppedAt };
    } catch (e) {
      throw inDoubt(this.#note, e);
    } finally {
      this.#tell({ phase: "done" });
    }
  }

  async check(): Promise<Blocker[]> {
    const enough = new VirtError("ERR_ABORTED", "nothing but a check was wanted");
    try {
      await this.#begin();
      await this.#giveUp(enough);
      return [];
    } catch (e) {
      const error = await this.#giveUp(e);
      if (error.code === "ERR_MOVE_REFUSED" && error.blockers) return [...error.blockers];
      throw error;
    }
  }

  async #begin(): Promise<void> {
    const { talk, options, pod } = this;
    // A note "committing" of a pod that is here to be moved says that its supervisor died before it was let go of: no
    // commit was sent, and the new epoch makes the old image useless wherever it is.
    const last = await options.ledger.outgoing(pod.id);
    this.#note.epoch = Math.max(pod.epoch, last?.epoch ?? 0) + 1;
    this.#tell({ phase: "hello" });
    const { host } = await greet(talk, options);
    pod.met(host);
    await this.#offer();
  }

  async #offer(): Promise<void> {
    const { talk, pod } = this;
    this.#tell({ phase: "track" });
    this.#touched = true;
    const draft = await talk.during(pod.track());
    if (draft.blockers.length > 0) {
      throw new VirtError("ERR_MOVE_REFUSED", `the pod ${pod.name} cannot be moved: see what stands in the way`, {
        blockers: draft.blockers,
      });
    }
    this.#memoryBytes = draft.totalBytes;
    this.#tell({ phase: "offer" });
    await this.#write("offered");
    this.#offered = true;
    await talk.send({
      type: "offer",
      ...this.#about,
      lineage: pod.lineage,
      pod: { id: pod.id, name: pod.name },
      totalBytes: this.#memoryBytes,
      draftLength: draft.manifest.length,
    });
    for (const piece of draftPieces(draft.manifest)) await talk.send(piece);
    const answer = await talk.expect(["accept", "refuse"], this.#about);
    if (answer.type === "refuse") throw this.#refusal(answer);
    const { wanted } = answer.facts;
    if (Array.isArray(wanted)) this.#wanted = new Set(wanted.filter((path) => typeof path === "string"));
    talk.passed("accept");
  }

  async #copy(): Promise<void> {
    const { downtimeMs = 300, fixedMs = 50, mostRounds = 30 } = this.options;
    const rounds: CopyRound[] = [];
    for (;;) {
      this.#roundStart = this.wire.progress().sentBytes;
      const totalBytes = rounds.at(-1)?.dirtyBytes ?? this.#memoryBytes;
      this.#tell({ phase: "copy", round: rounds.length + 1, totalBytes });
      const round = await this.talk.during(this.pod.copy(this.wire));
      rounds.push(round);
      const { sentBytes, dirtyBytes } = round;
      const { next, bytesPerSecond, expectedStopMs } = judgeRounds(rounds, { downtimeMs, fixedMs, mostRounds });
      this.#tell({ dirtyBytes, bytesPerSecond, expectedStopMs });
      await this.talk.send({ type: "round", round: rounds.length, sentBytes, dirtyBytes });
      if (next !== "again") return;
    }
  }

  #refusal({ message, blockers }: MessageOf<"refuse">): VirtError {
    this.#refused = true;
    return new VirtError("ERR_MOVE_REFUSED", `the other host does not take it: ${message}`, { blockers });
  }

  /** The pod goes on; then the target is told, if it can be reached. Gives the error that says so. */
  async #giveUp(thrown: unknown): Promise<VirtError> {
    const { talk, pod, options } = this;
    talk.uninterruptible();
    const cause = described(thrown);
    const attached: string[] = [];
    const attempt = (work: Promise<unknown>) => work.catch((e: unknown) => void attached.push(toVirtError(e).message));
    // If writing "committing" failed the note may say it all the same: that the pod is alive proves it wrong.
    if (this.#note.state === "committing") await attempt(this.#write("offered"));
    // Before its lock is taken nobody knows whether init was told to end it.
    if (!this.#touched || cause.code === "ERR_POD_GONE") return cause;
    await attempt(pod.thaw());
    const hint =
      this.#offered && !(await this.#withdraw(cause))
        ? `${options.target} may keep an image, which never runs; \`virt-run move --resume ${pod.name}\` removes it`
        : undefined;
    // First, where blockers follow: what is listed below need not be in one line.
    const message = cause.blockers?.length
      ? `the pod ${pod.name} runs on here; ${cause.message}`
      : `${cause.message}; the pod ${pod.name} runs on here`;
    return new VirtError(cause.code, message, {
      ...detailsOf(cause),
      ...(hint !== undefined && { hint }),
      ...(attached.length > 0 && { attached }),
      cause,
    });
  }

  /** True when nothing of it lasts there. */
  async #withdraw(cause: VirtError): Promise<boolean> {
    const { talk } = this;
    try {
      if (!this.#refused) {
        talk.passed("accept", "prepared");
        const reachable = !["ERR_MOVE_LOST", "ERR_MOVE_PROTOCOL"].includes(cause.code);
        // What the target has before it was told to prepare goes with its process.
        if (this.#prepareSent && !reachable) return false;
        if (reachable) {
          const told = talk.send({ type: "abort", ...this.#about }).then(() => talk.expect(["abandoned"], this.#about));
          await (this.#prepareSent ? told : told.catch(() => {}));
        }
      }
      await this.#write("abandoned");
      return true;
    } catch {
      return false; // `move --resume` does it
    }
  }

  async #write(state: OutgoingNote["state"]): Promise<void> {
    this.#note = { ...this.#note, state, at: new Date().toISOString() };
    await this.options.ledger.putOutgoing(this.#note);
  }

  #tell(change: Partial<MoveProgress>): void {
    const { sentBytes } = this.wire.progress();
    this.#progress = { ...this.#progress, ...change, sentBytes };
    const copies = this.#progress.phase === "copy";
    this.#progress.roundBytes = copies ? sentBytes - this.#roundStart : 0;
    if (!copies) this.#progress.totalBytes = 0;
    this.options.onProgress?.(this.#progress);
  }
}

/** Says hello and hears what the other side speaks. @internal */
export async function greet(
  talk: Conversation,
  { features = [], host = {} }: MoveSettings,
): Promise<MessageOf<"welcome">> {
  await talk.send({ type: "hello", ...spokenVersions, virtRun: version, features: [...features], host });
  const welcome = await talk.expect(["welcome"]);
  // Who takes a version that was not offered is asked no further.
  chooseVersion(spokenVersions, { least: welcome.version, most: welcome.version });
  talk.passed("welcome");
  return welcome;
}

/** Writes down where it went. @internal */
export async function finish(ledger: Ledger, note: OutgoingNote, committed: MessageOf<"committed">): Promise<Moved> {
  const { pod, notes } = committed;
  await ledger.putOutgoing({ ...note, state: "moved", at: new Date().toISOString(), there: pod });
  return { target: note.target, epoch: note.epoch, pod, notes };
}

/** @internal */
export function inDoubt(note: OutgoingNote, cause: unknown): VirtError {
  const why = described(cause);
  return new VirtError(
    "ERR_MOVE_IN_DOUBT",
    `${note.target} holds the whole pod ${note.pod.name} but has not said that it runs there (${why.message}); it does not run here any more`,
    { cause, hint: `run \`virt-run move --resume ${note.pod.name}\` here when ${note.target} can be reached` },
  );
}

function described(thrown: unknown): VirtError {
  return toVirtError(thrown instanceof Interruption ? protocolError(`'${thrown.said.type}' out of turn`) : thrown);
}

function detailsOf(error: VirtError) {
  const { blockers, phase, pid, fd, kind, path, syscall, errnoName, hint } = error;
  return { blockers, phase, pid, fd, kind, path, syscall, errnoName, ...(hint !== "" && { hint }) };
}
