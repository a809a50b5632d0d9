/**
 * What each side of a move has written down, so that the move can be settled whoever dies: one note a pod that goes away
 * (by its id here), one a pod that comes (by its lineage, which stays the same through all its moves). A note says the
 * newest move only; the epoch tells older from newer, and never goes back. Nobody writes a note without its lock.
 */
import * as v from "valibot";
import { VirtError } from "../errors.js";
import { count, optional } from "../image/manifest-values.js";
import type { NoteStore } from "./notes.js";

const move = v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/));
const podId = v.pipe(v.string(), v.regex(/^[0-9a-f]{12}$/));
const pod = v.object({ id: podId, name: v.string() });
const common = {
  schemaVersion: v.literal(1),
  move,
  lineage: v.pipe(v.string(), v.regex(/^[0-9a-f]{12,64}$/)),
  epoch: v.pipe(count, v.minValue(1)),
  /** RFC 3339, of the last change. */
  at: v.string(),
};

const outgoing = v.object({
  ...common,
  /**
   * "offered": the pod runs here, the target may have anything. "committing": the target has a whole copy, and the pod here
   * is killed or about to be; unless it is found alive, which proves that no commit was sent. "moved": it runs there.
   * "abandoned": it never left, and nothing of it is there.
   */
  state: v.picklist(["offered", "committing", "moved", "abandoned"]),
  pod,
  /** As it was given to move: "ssh://b". */
  target: v.string(),
  /** What it is there; of "moved". Without it: it has gone on from there since. */
  there: optional(pod),
});

const incoming = v.object({
  ...common,
  /**
   * "receiving": what came is no use if this process ends. "prepared": a whole image, which nobody may let run before the
   * source's word. "activating": that word was given; `here` runs or does not, the image is whole. "committed": `here` ran.
   * "dropped": nothing of it is here, and nothing of this epoch or an older one will be taken.
   */
  state: v.picklist(["receiving", "prepared", "activating", "committed", "dropped"]),
  /** The pod's name where it came from. */
  name: v.string(),
  /** The pod it is here; of "activating" and "committed". */
  here: optional(pod),
  notes: optional(v.array(v.string())),
  /** Its image may still be here. */
  image: v.boolean(),
});

/** What the source of a move has written down. */
export type OutgoingNote = v.InferOutput<typeof outgoing>;
/** What the target of a move has written down. */
export type IncomingNote = v.InferOutput<typeof incoming>;

/** From a state to which in the same move; a newer move begins at the first that is listed for "". */
const outgoingSteps: Record<string, readonly OutgoingNote["state"][]> = {
  "": ["offered"],
  offered: ["committing", "abandoned"],
  committing: ["moved", "offered"],
  moved: [],
  abandoned: [],
};
const incomingSteps: Record<string, readonly IncomingNote["state"][]> = {
  "": ["receiving", "dropped"],
  receiving: ["prepared", "dropped"],
  prepared: ["activating", "dropped"],
  activating: ["activating", "committed"],
  committed: ["committed"],
  dropped: [],
};

/**
 * The notes of one host. Every method may reject with ERR_SYSCALL, and with ERR_MOVE_IN_DOUBT for a note that is damaged.
 *
 * @example
 * const ledger = new Ledger(new NoteDirectory(movesDirectory()));
 * console.log((await ledger.outgoing(pod.id))?.state);
 */
export class Ledger {
  readonly #notes: NoteStore;

  constructor(notes: NoteStore) {
    this.#notes = notes;
  }

  outgoing(id: string): Promise<OutgoingNote | undefined> {
    return this.#read(`out-${id}`, outgoing);
  }

  incoming(lineage: string): Promise<IncomingNote | undefined> {
    return this.#read(`in-${lineage}`, incoming);
  }

  /** Every pod that came, or was to. */
  async allIncoming(): Promise<IncomingNote[]> {
    const notes: IncomingNote[] = [];
    for (const name of await this.#notes.list()) {
      const note = name.startsWith("in-") ? await this.#read(name, incoming) : undefined;
      if (note) notes.push(note);
    }
    return notes;
  }

  /** Durable when it resolves. Errors: ERR_BUG for a step that there is not. */
  async putOutgoing(note: OutgoingNote): Promise<void> {
    checkStep(await this.outgoing(note.pod.id), note, outgoingSteps);
    await this.#notes.write(`out-${note.pod.id}`, JSON.stringify(note));
  }

  /** Durable when it resolves. Errors: ERR_BUG for a step that there is not. */
  async putIncoming(note: IncomingNote): Promise<void> {
    checkStep(await this.incoming(note.lineage), note, incomingSteps);
    await this.#notes.write(`in-${note.lineage}`, JSON.stringify(note));
  }

  /** For whoever moves this pod away; undefined while somebody does. */
  lockOutgoing(id: string): Promise<(() => void) | undefined> {
    return this.#notes.lock(`out-${id}`);
  }

  /** For whoever takes a pod of this lineage; undefined while somebody does. */
  lockIncoming(lineage: string): Promise<(() => void) | undefined> {
    return this.#notes.lock(`in-${lineage}`);
  }

  /**
   * For what would make a second copy of a pod, or lose it: detaching or removing it. Errors: ERR_MOVE_IN_DOUBT if another
   * host may have to run it.
   */
  async checkSettled(id: string): Promise<void> {
    const note = await this.outgoing(id);
    if (note?.state !== "committing") return;
    throw new VirtError("ERR_MOVE_IN_DOUBT", `the pod ${note.pod.name} was being moved to ${note.target}`, {
      hint: `run \`virt-run move --resume ${note.pod.name}\` first`,
    });
  }

  async #read<T>(name: string, shape: v.GenericSchema<unknown, T>): Promise<T | undefined> {
    const text = await this.#notes.read(name);
    if (text === undefined) return undefined;
    try {
      return v.parse(shape, JSON.parse(text));
    } catch (cause) {
      // Taken for none, it could make a second copy, or lose the only one.
      throw new VirtError("ERR_MOVE_IN_DOUBT", `the note ${name} of a move is damaged`, {
        hint: "find out on which of the two hosts the pod is; then remove the note",
        cause,
      });
    }
  }
}

interface Step {
  state: string;
  move: string;
  lineage: string;
  epoch: number;
}

function checkStep(old: Step | undefined, now: Step, steps: Record<string, readonly string[]>): void {
  const same = old?.move === now.move && old.epoch === now.epoch && old.lineage === now.lineage;
  const allowed = same ? steps[old.state] : old === undefined || old.epoch < now.epoch ? steps[""] : [];
  if (allowed?.includes(now.state)) return;
  throw new VirtError(
    "ERR_BUG",
    `the note of move ${now.move} (epoch ${now.epoch}) cannot become ${now.state} after ${old ? `${old.state} (epoch ${old.epoch})` : "none"}`,
  );
}
