/**
 * The side of a move that takes a pod (`virt-run receive`): hello, offer, data, prepare, commit; or the source's question how a
 * cut move stands. Until *prepared* is written down every failure leaves nothing here; from then on the image stays until the
 * source has said which of the two it is to be, and runs at most once.
 */
import { type Blocker, toVirtError, VirtError } from "../errors.js";
import { version } from "../version.js";
import { type About, Conversation, checkAbout, Interruption } from "./conversation.js";
import type { IncomingNote, Ledger } from "./ledger.js";
import { chooseVersion, fittingBlockers, type MessageOf, protocolError, spokenVersions } from "./messages.js";
import type { MoveSettings, MoveWire, Offer, ParkedPod, TargetPods } from "./parts.js";

/** What receiveMove() may be told; what is not required has a default. */
export interface ReceiveOptions extends MoveSettings {
  ledger: Ledger;
  pods: TargetPods;
  /** How long another process may still be at work on the same pod, in milliseconds. Default twice `silenceMs`. */
  lockMs?: number;
}

/** What came of it. */
export type Received =
  /** The pod runs here: it came now, or had come and was asked after. */
  | { state: "runs"; pod: { id: string; name: string }; notes: string[] }
  /** Nothing of it is here, as the source wants it or because this side did not take it. */
  | { state: "nothing"; why: string };

/**
 * Serves one connection, whose wire is closed at the end. A pod that runs goes on whatever happens to the wire.
 *
 * Errors: ERR_MOVE_LOST, ERR_MOVE_PROTOCOL and those of the build, with nothing left here; ERR_MOVE_IN_DOUBT: the image is kept
 * until the source settles it.
 *
 * @example
 * const received = await receiveMove(wire, { ledger, pods });
 * if (received.state === "runs") console.log(received.pod.name);
 */
export async function receiveMove(wire: MoveWire, options: ReceiveOptions): Promise<Received> {
  const talk = new Conversation(wire, options);
  try {
    return await new Arrival(wire, talk, options).run();
  } catch (e) {
    const error = toVirtError(e instanceof Interruption ? protocolError(`'${e.said.type}' out of turn`) : e);
    const message = error.message.length > 1000 ? `${error.message.slice(0, 999)}…` : error.message;
    // The error is thrown whether or not the other side hears of it.
    await talk.send({ type: "failed", code: error.code, message }).catch(() => {});
    throw error;
  } finally {
    await talk.close();
  }
}

/**
 * Removes what processes that died in the middle of a move have left; what a move in doubt needs stays.
 *
 * @example
 * await sweepMoves(ledger, pods);
 */
export async function sweepMoves(ledger: Ledger, pods: TargetPods): Promise<void> {
  for (const { lineage } of await ledger.allIncoming()) {
    const unlock = await ledger.lockIncoming(lineage);
    if (!unlock) continue;
    try {
      const note = await ledger.incoming(lineage); // as it is under the lock
      if (note?.state !== "receiving" && !(note?.state === "committed" && note.image)) continue;
      await pods.discard(note.move);
      const state = note.state === "receiving" ? "dropped" : note.state;
      await ledger.putIncoming({ ...note, state, image: false, at: new Date().toISOString() });
    } finally {
      unlock();
    }
  }
}

/** One connection, from the target's side. */
class Arrival {
  #note: IncomingNote | undefined;
  #unlock = () => {};

  constructor(
    private readonly wire: MoveWire,
    private readonly talk: Conversation,
    private readonly options: ReceiveOptions,
  ) {}

  async run(): Promise<Received> {
    const { talk, options } = this;
    const hello = await talk.expect(["hello"]);
    const { features = [], host = {} } = options;
    const version_ = chooseVersion(spokenVersions, hello);
    await talk.send({ type: "welcome", version: version_, virtRun: version, features: [...features], host });
    talk.passed("hello");
    try {
      await talk.during(sweepMoves(options.ledger, options.pods), false);
      const first = await talk.expect(["offer", "resume"]);
      if (first.type === "resume") return await this.#settle(first);
      const parked = await this.#take(first);
      return "state" in parked ? parked : await this.#hearTheWord(parked);
    } finally {
      this.#unlock();
    }
  }

  /** Up to a pod that is parked and written down; or nothing is left of it. */
  async #take(offered: MessageOf<"offer">): Promise<ParkedPod | Received> {
    const { talk, options } = this;
    const { ledger, pods } = options;
    let draft = "";
    while (draft.length < offered.draftLength) draft += (await talk.expect(["draft"])).text;
    if (draft.length > offered.draftLength) throw protocolError("more of a draft than it said");
    const { move, lineage, epoch, pod, totalBytes } = offered;
    const offer: Offer = { move, lineage, epoch, pod, draft, totalBytes };
    if (!(await this.#lock(lineage))) return this.#refuse(offer, [busy]);
    const stale = await this.#staleness(offer);
    if (stale) return this.#refuse(offer, [stale]);
    let prepared = false;
    try {
      const before = await ledger.incoming(lineage);
      if (before?.image) await pods.discard(before.move);
      const { blockers, facts } = await talk.during(pods.check(offer));
      if (blockers.length > 0) {
        await this.#drop(offer);
        return await this.#refuse(offer, blockers);
      }
      await this.#write({ ...this.#fresh(offer), state: "receiving", image: true });
      const { directoryFd } = await pods.receive(move);
      this.wire.receiveInto(directoryFd);
      await talk.send({ type: "accept", move, epoch, facts });
      talk.passed("offer", "draft");
      const word = await talk.expect(["prepare", "abort"], offer);
      if (word.type === "abort") return await this.#abandon(offer);
      talk.passed("prepare");
      const parked = await talk.during(pods.build(move, lineage, epoch));
      try {
        await this.#write({ ...this.#known(), state: "prepared" });
      } catch (e) {
        await parked.close();
        throw e;
      }
      prepared = true;
      return parked;
    } catch (e) {
      if (e instanceof Interruption && e.said.type === "abort") {
        checkAbout(e.said, offer);
        return await this.#abandon(offer);
      }
      if (!prepared) await this.#drop(offer).catch(() => {}); // the next sweep does it
      throw e;
    }
  }

  /** The pod is parked and the image kept: only the source's word decides, and without it nothing. */
  async #hearTheWord(parked: ParkedPod): Promise<Received> {
    const { talk } = this;
    const note = this.#known();
    try {
      await talk.send({ type: "prepared", move: note.move, epoch: note.epoch });
      const word = await talk.expect(["commit", "abort"], note);
      if (word.type === "commit") return await this.#activate(parked);
      await parked.close();
      return await this.#abandon(note);
    } catch (e) {
      throw this.#kept(e);
    } finally {
      await parked.close();
    }
  }

  /** The source has no copy any more: this one runs. A note is written before and after. */
  async #activate(parked: ParkedPod): Promise<Received> {
    const { talk, options } = this;
    const here = { id: parked.id, name: parked.name };
    const notes = parked.notes.slice(0, 100).map((n) => n.slice(0, 1000));
    await this.#write({ ...this.#known(), state: "activating", here, notes });
    try {
      await talk.during(parked.commit(), false);
    } catch (e) {
      if (!(await options.pods.ran(here.id))) throw e;
    }
    return await this.#committed();
  }

  /** It runs. Says so, and says so again to whoever asks again. */
  async #committed(): Promise<Received> {
    const { talk, options } = this;
    let note = this.#known();
    if (note.state !== "committed") {
      await this.#write({ ...note, state: "committed" });
      note = this.#known();
    }
    const { move, epoch, here: pod, notes = [] } = note;
    if (!pod) throw new VirtError("ERR_BUG", `move ${move} is committed and has no pod`);
    const answer = { type: "committed", move, epoch, pod, notes } as const;
    try {
      await talk.send(answer);
      if (note.image) {
        await options.pods.discard(move);
        await this.#write({ ...note, image: false });
      }
      this.#unlock();
      for (;;) {
        await talk.expect(["commit"], note);
        await talk.send(answer);
      }
    } catch {
      // The pod runs whether or not the source hears it; what was not removed the next sweep removes.
    }
    return { state: "runs", pod, notes };
  }

  /** How a move stands whose connection was cut; and goes on with it. */
  async #settle(asked: MessageOf<"resume">): Promise<Received> {
    const { talk, options } = this;
    const about: About = { move: asked.move, epoch: asked.epoch };
    const nothing = async (type: "abandoned" | "unknown"): Promise<Received> => {
      await talk.send({ type, ...about });
      return { state: "nothing", why: "the source has settled the move" };
    };
    if (!(await this.#lock(asked.lineage))) {
      await talk.send({ type: "busy", ...about });
      return { state: "nothing", why: busy.message };
    }
    const note = await options.ledger.incoming(asked.lineage);
    if (!note || note.epoch < asked.epoch) {
      if (asked.committing) return await nothing("unknown");
      // What of that move still comes, late, is not taken any more.
      if (note?.image) await options.pods.discard(note.move);
      await this.#write({ ...this.#fresh({ ...asked, pod: { name: note?.name ?? "" } }), state: "dropped" });
      return await nothing("abandoned");
    }
    if (note.epoch > asked.epoch) {
      if (!asked.committing) return await nothing("abandoned");
      await talk.send({ type: "superseded", ...about, newer: note.epoch });
      return { state: "nothing", why: "the pod has gone on since" };
    }
    if (note.move !== asked.move) return await nothing(asked.committing ? "unknown" : "abandoned");
    this.#note = note;
    if (note.state === "committed") return await this.#committed();
    if (note.state === "activating" && note.here && (await options.pods.ran(note.here.id)))
      return await this.#committed();
    if (!asked.committing) {
      // Only a source's commit makes it activating, and that source never says this.
      if (note.state === "activating") throw protocolError("that it never committed, which it had");
      return note.state === "dropped" ? await nothing("abandoned") : await this.#abandon(note);
    }
    if (note.state === "receiving" || note.state === "dropped") return await nothing("unknown");
    try {
      const parked = await talk.during(options.pods.build(note.move, note.lineage, note.epoch), false);
      try {
        return await this.#activate(parked);
      } finally {
        await parked.close();
      }
    } catch (e) {
      throw this.#kept(e);
    }
  }

  /** Why an offer is not to be looked at: an echo of the past, or of a pod that is here. */
  async #staleness({ lineage, epoch, move }: Offer): Promise<Blocker | undefined> {
    const { ledger, pods } = this.options;
    const note = await ledger.incoming(lineage);
    if (!note) return undefined;
    if (note.epoch >= epoch)
      return { code: "ERR_MOVE_REFUSED", message: `a newer move of this pod is known here (epoch ${note.epoch})` };
    if (!note.here) return undefined;
    if (note.state === "activating" && !(await pods.ran(note.here.id)))
      return {
        code: "ERR_MOVE_IN_DOUBT",
        message: `an earlier move of this pod to here (epoch ${note.epoch}) is not settled`,
      };
    // A host may move a pod to itself.
    if ((await pods.runs(note.here.id)) && (await ledger.outgoing(note.here.id))?.move !== move)
      return { code: "ERR_MOVE_REFUSED", message: `the pod runs here already, as ${note.here.name}` };
    return undefined;
  }

  async #abandon(about: About & { lineage: string }): Promise<Received> {
    await this.#drop(about);
    await this.talk.send({ type: "abandoned", move: about.move, epoch: about.epoch });
    return { state: "nothing", why: "the source goes on" };
  }

  /** First the image, then the note: one that says "prepared" without an image can only be dropped. */
  async #drop(about: About & { lineage: string }): Promise<void> {
    await this.options.pods.discard(about.move);
    await this.#write({ ...(this.#note ?? this.#fresh(about)), state: "dropped", image: false });
  }

  async #refuse(about: About, blockers: Blocker[]): Promise<Received> {
    const why = blockers.map((b) => b.message).join("; ");
    const message = why.length > 500 ? `${why.slice(0, 499)}…` : why;
    const { move, epoch } = about;
    await this.talk.send({ type: "refuse", move, epoch, message, blockers: fittingBlockers(blockers) });
    return { state: "nothing", why: message };
  }

  async #lock(lineage: string): Promise<boolean> {
    const { talk, options } = this;
    const until = talk.now + (options.lockMs ?? 2 * talk.silenceMs);
    const attempt = async (): Promise<boolean> => {
      for (;;) {
        const unlock = await options.ledger.lockIncoming(lineage);
        if (unlock) {
          let locked = true;
          this.#unlock = () => {
            if (locked) unlock();
            locked = false;
          };
          return true;
        }
        if (talk.now >= until) return false;
        await talk.sleep(100);
      }
    };
    return await talk.during(attempt(), false);
  }

  #fresh(about: About & { lineage: string; pod?: { name: string } }): Omit<IncomingNote, "state"> {
    const { move, epoch, lineage } = about;
    return { schemaVersion: 1, move, lineage, epoch, at: "", name: about.pod?.name ?? "", image: false };
  }

  #known(): IncomingNote {
    if (!this.#note) throw new VirtError("ERR_BUG", "a move without a note");
    return this.#note;
  }

  async #write(note: IncomingNote): Promise<void> {
    const written = { ...note, at: new Date().toISOString() };
    await this.options.ledger.putIncoming(written);
    this.#note = written;
  }

  #kept(thrown: unknown): VirtError {
    const { name, move, state } = this.#known();
    if (state === "dropped") return toVirtError(thrown);
    const why = toVirtError(thrown instanceof Interruption ? protocolError("a word out of turn") : thrown);
    return new VirtError(
      "ERR_MOVE_IN_DOUBT",
      `a whole copy of the pod ${name} is kept here and is not let run (${why.message}): move ${move}`,
      { cause: thrown },
    );
  }
}

const busy: Blocker = { code: "ERR_POD_BUSY", message: "another process here is still at work on this pod" };
