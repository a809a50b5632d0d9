/**
 * Settling a move that was cut (`virt-run move --resume`), on the side that the pod came from: what is written down here and
 * what became of the pod decide, and the target follows.
 */
import { toVirtError, VirtError } from "../errors.js";
import { Conversation } from "./conversation.js";
import type { Ledger, OutgoingNote } from "./ledger.js";
import type { MoveSettings, MoveWire, PodFate, SourcePods } from "./parts.js";
import { finish, greet, inDoubt, type Moved } from "./source.js";

/** What settleMove() may be told; what is not required has a default. */
export interface SettleOptions extends MoveSettings {
  ledger: Ledger;
  pods: SourcePods;
  /** Opens a wire to what was given to move; called only if there is something to settle. */
  connect: (target: string) => Promise<MoveWire>;
  /** How long the target may take to build the pod, in milliseconds. Default 600 000. */
  prepareMs?: number;
}

/**
 * How a move stands: the pod is at the target, or it never left and nothing of it is there.
 *
 * @example
 * const settled = await settleMove(id, options);
 * console.log(settled.state === "moved" ? settled.moved.pod : settled.fate);
 */
export type Settled = { state: "moved"; moved: Moved } | { state: "abandoned"; fate: PodFate };

/**
 * Settles the newest move of a pod, however often it is called: one copy runs after it.
 *
 * Errors: ERR_POD_NOT_FOUND (it was never moved), ERR_POD_BUSY (another command is at it, here or there), ERR_MOVE_IN_DOUBT (the
 * target cannot be reached, or fails to run it; call again), ERR_MOVE_LOST (the connection, while the pod runs here; or: the
 * target has lost what it confirmed, and this side has nothing), ERR_MOVE_PROTOCOL, those of `connect`.
 *
 * @example
 * await settleMove(pod.id, { ledger, pods, connect: (target) => openWire(target) });
 */
export async function settleMove(id: string, options: SettleOptions): Promise<Settled> {
  const { ledger, pods } = options;
  const unlock = await ledger.lockOutgoing(id);
  if (!unlock) throw new VirtError("ERR_POD_BUSY", `another command moves the pod ${id}`);
  try {
    let note = await ledger.outgoing(id);
    if (!note) throw new VirtError("ERR_POD_NOT_FOUND", `the pod ${id} was never moved from here`);
    if (note.state === "moved") {
      const { target, epoch, there } = note;
      return { state: "moved", moved: { target, epoch, pod: there, notes: [] } };
    }
    const fate = await pods.fate(id);
    if (note.state === "abandoned") return { state: "abandoned", fate };
    if (note.state === "committing" && (fate === "runs" || fate === "ended")) {
      // Its supervisor died between its note and the pod's end, so no commit was sent. This has to be known before the pod's end
      // is: the image there is older than what the pod has done since.
      note = { ...note, state: "offered", at: new Date().toISOString() };
      await ledger.putOutgoing(note);
    }
    return await ask(note, fate, options);
  } finally {
    unlock();
  }
}

async function ask(note: OutgoingNote, fate: PodFate, options: SettleOptions): Promise<Settled> {
  const { ledger, connect, prepareMs = 600_000 } = options;
  const committing = note.state === "committing";
  const about = { move: note.move, epoch: note.epoch };
  let talk: Conversation | undefined;
  try {
    talk = new Conversation(await connect(note.target), options);
    await greet(talk, options);
    await talk.send({ type: "resume", ...about, lineage: note.lineage, committing });
    talk.passed("accept", "prepared");
    const answers = ["committed", "abandoned", "unknown", "superseded", "busy"] as const;
    const answer = await talk.expect(answers, about, prepareMs);
    const name = `the pod ${note.pod.name}`;
    if (answer.type === "busy") {
      throw new VirtError("ERR_POD_BUSY", `${note.target} is still at work on ${name}; try again in a while`);
    }
    if (!committing) {
      if (answer.type === "committed") {
        throw new VirtError(
          "ERR_MOVE_IN_DOUBT",
          `${note.target} says that ${name} runs there as ${answer.pod.name}, but it was not given up here (${fate})`,
          { hint: "end one of the two; a directory of notes was brought back from a backup, or the other host lies" },
        );
      }
      await ledger.putOutgoing({ ...note, state: "abandoned", at: new Date().toISOString() });
      return { state: "abandoned", fate };
    }
    if (answer.type === "committed") return { state: "moved", moved: await finish(ledger, note, answer) };
    if (answer.type === "superseded") {
      await ledger.putOutgoing({ ...note, state: "moved", at: new Date().toISOString() });
      return { state: "moved", moved: { target: note.target, epoch: note.epoch, pod: undefined, notes: [] } };
    }
    throw new VirtError(
      "ERR_MOVE_LOST",
      `${name} is lost: it was given up here when ${note.target} had confirmed a whole copy, and ${note.target} knows nothing of it now`,
      { hint: `see whether ${note.target} is the same host and user as then, with the same state directory` },
    );
  } catch (e) {
    const error = toVirtError(e);
    if (!committing || (error.code === "ERR_MOVE_LOST" && error.message.includes("is lost: it was given up"))) throw e;
    throw error.code === "ERR_POD_BUSY" ? error : inDoubt(note, e);
  } finally {
    await talk?.close();
  }
}
