/**
 * A pod on its way to another host, as a capture carries it there: the source's side of a move made of real pods.
 */
import { readdirSync, rmSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import { FrameType } from "../control/protocol.js";
import type { VirtError } from "../errors.js";
import { checkRecorded, isRecorded } from "../files/collect.js";
import { stringifyManifest } from "../image/manifest.js";
import { ImageWriter } from "../image/writer.js";
import type { NativeCapture, NativeWire } from "../native.js";
import { blocked, compose, describeImage, type Examined, examine, openCapture, type Survey } from "../pod/compose.js";
import type { DetachOptions } from "../pod/detach.js";
import { parseReach } from "../pod/holder.js";
import { ownSource } from "../pod/isolation.js";
import { movesDirectory } from "../pod/paths.js";
import type { Pod } from "../pod/pod.js";
import { loadRecord, podDirectory, readExit, removeTree, saveRecord, tryConnect } from "../pod/store.js";
import { type ArrivalOptions, encodeDraft } from "./draft.js";
import type { Draft, MoveWire, PodFate, SourcePod, SourcePods } from "./parts.js";
import type { CopyRound } from "./rounds.js";

/** What of a detach's options a move has as well. */
export type DepartureOptions = Pick<
  DetachOptions,
  "drop" | "tcp" | "tcpRules" | "holdAt" | "cutLimitMs" | "withFiles" | "filesLimitBytes" | "freezeTimeoutMs"
>;

/** A running pod and the one capture that takes it away. `wire` is the native one that the move's wire speaks over. */
export class Departing implements SourcePod {
  readonly id: string;
  readonly name: string;
  readonly lineage: string;
  readonly epoch: number;
  readonly #capture: NativeCapture;
  #writer: ImageWriter | undefined;
  #options: DepartureOptions;
  #own: { place: string }[] = [];
  #frozen = false;
  #totalBytes = 0;

  constructor(
    private readonly pod: Pod,
    wire: NativeWire,
    private readonly target: string,
    options: DepartureOptions,
    private readonly arrival: ArrivalOptions,
  ) {
    const { record } = pod;
    this.id = pod.id;
    this.name = pod.name;
    this.lineage = record.lineage ?? pod.id;
    this.epoch = record.epoch ?? 0;
    this.#options = { withFiles: isRecorded(record) ? "written" : "none", ...options };
    checkRecorded(record, this.#options.withFiles ?? "none");
    this.#capture = openCapture(pod, "move", this.#options, wire);
  }

  /** Connections are held at the address under which the target knows this host, if nothing else was said. */
  met({ peerAddress }: Record<string, unknown>): void {
    if (this.#options.holdAt !== undefined || typeof peerAddress !== "string" || isIP(peerAddress) === 0) return;
    this.#options = { ...this.#options, holdAt: isIP(peerAddress) === 6 ? `[${peerAddress}]` : peerAddress };
  }

  async track(): Promise<Draft> {
    const survey = (await this.#capture.track()) as unknown as Survey;
    const examined = await examine(this.pod, survey, this.#options);
    this.#totalBytes = this.#capture.progress().totalBytes;
    const draft = await describeImage(this.pod, withoutPages(survey), "detach");
    return {
      manifest: encodeDraft(
        stringifyManifest({
          ...draft,
          ...this.#promised(examined),
        }),
        this.arrival,
      ),
      blockers: examined.blockers,
      totalBytes: this.#totalBytes,
    };
  }

  /** Files that are going to be in the image stand in the draft without content yet, and so does who is to hold connections. */
  #promised({ found }: Examined) {
    const parts = new Map([["pages.sum", 0]]);
    const carriedFiles = found.entries.map(({ layer: _, at: __, ...e }, n) => {
      if (e.type !== "file") return e;
      const name = e.name ?? `files/${n.toString(16).padStart(64, "0")}`;
      parts.set(name, e.sizeBytes);
      return { ...e, name };
    });
    const { holdAt } = this.#options;
    const reach = holdAt === undefined ? undefined : parseReach(holdAt);
    return {
      parts: [...parts].map(([name, sizeBytes]) => ({ name, sizeBytes, sha256: none })),
      ...(carriedFiles.length > 0 ? { carriedFiles } : {}),
      // There is a key, and perhaps a port, when there is a holder.
      ...(reach && { holder: { key: none, reach } }),
    };
  }

  async copy(wire: MoveWire): Promise<CopyRound> {
    const before = wire.progress().sentBytes;
    const start = performance.now();
    const { dirtyBytes, watched } = await this.#capture.copy();
    return {
      sentBytes: wire.progress().sentBytes - before,
      dirtyBytes: watched > 0 ? dirtyBytes : this.#totalBytes,
      tracked: watched > 0,
      ms: performance.now() - start,
    };
  }

  async stop(wire: MoveWire, wanted: ReadonlySet<string>): Promise<void> {
    this.#frozen = true;
    const survey = (await this.#capture.survey()) as unknown as Survey;
    const examined = await examine(this.pod, survey, { ...this.#options, also: wanted });
    if (examined.blockers.length > 0) throw blocked(this.pod, examined.blockers);
    sweepDeparture(this.id);
    const writer = new ImageWriter(join(movesDirectory(), `${this.id}.going`), { synced: false });
    this.#writer = writer;
    const { manifest, own } = await compose(this.pod, this.#capture, examined, {
      writer,
      kind: "detach",
      elsewhere: true,
      options: this.#options,
    });
    this.#own = own;
    for (const name of await writer.seal(manifest)) await wire.sendFile(writer.fd, name);
  }

  async release(): Promise<void> {
    saveRecord({ ...this.pod.record, movedTo: { target: this.target, settled: false } });
    const ended = this.pod.ended();
    await this.#capture.release();
    await ended;
    for (const { place } of this.#own) removeTree(ownSource(podDirectory(this.id), place));
  }

  async thaw(): Promise<void> {
    this.#capture.stop();
    if (this.#frozen) await this.#capture.thaw().catch(() => {}); // closing it does so in any case
    await this.close();
  }

  /** Nothing of ours is left; the pod goes on unless it was released. */
  async close(): Promise<void> {
    await this.#capture.close().catch(() => {}); // it has ended already
    this.#writer?.discard();
  }
}

/** A hash that is not known yet. */
const none = "0".repeat(64);

/** Removes what a supervisor that was killed has left of an image here. Its pod's outgoing note has to be locked. */
export function sweepDeparture(id: string): void {
  const directory = movesDirectory();
  for (const name of readdirSync(directory))
    if (name.startsWith(`.${id}.going.`)) rmSync(join(directory, name), { recursive: true, force: true });
}

/** A survey says nothing of pages yet, and an image needs to. */
function withoutPages(survey: Survey): Survey {
  const processes = survey.processes.map((p) => ("threads" in p ? { ...p, pages: [] } : p));
  const memory = survey.memory.map((m) => ({ ...m, pages: [] }));
  return { ...survey, processes, memory, pagesInPart: [], carried: [] };
}

/** The pods that were moved away from here, or were to be. */
export const departed: SourcePods = {
  async fate(id: string): Promise<PodFate> {
    const record = loadRecord(id);
    if (!record) return "lost";
    const patienceMs = 10_000;
    for (const end = performance.now() + patienceMs; ; ) {
      const connection = tryConnect(record.socket);
      if (!connection) {
        const exit = readExit(id);
        return exit === undefined || exit.lost ? "lost" : exit.detached ? "released" : "ended";
      }
      try {
        await connection.request(FrameType.lock, Buffer.from("move"));
        return "runs";
      } catch (e) {
        const { code } = e as VirtError;
        if (code === "ERR_POD_GONE") continue;
        if (code !== "ERR_POD_BUSY" || performance.now() > end) throw e;
        await new Promise((resolve) => setTimeout(resolve, 50));
      } finally {
        connection.close();
      }
    }
  },
};
