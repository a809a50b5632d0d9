/**
 * The pods of this user, as every supervisor sees them: one directory a pod with `pod.json` (written by the
 * supervisor that made it), `log` and `exit` (written by its init), and a control socket while it lives.
 */
import {
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { ControlConnection } from "../control/connection.js";
import type { StdioKind } from "../control/protocol.js";
import { VirtError } from "../errors.js";
import { native } from "../native.js";
import type { Interposition } from "../rules/interposition.js";
import type { IsolationRecord } from "./isolation.js";
import { movesDirectory, podsDirectory, socketDirectory } from "./paths.js";

/** A rule that what is at `from` on the host appears at `to` in the pod. Both absolute. */
export interface PathRemap {
  from: string;
  to: string;
}

/** Files that only this pod sees; they lie in `files/` of its directory. */
export interface PodFiles {
  /** Where an overlay lies, and the directory in `files/` that has its upper and work directories. */
  overlays: { at: string; directory: string }[];
  /** Files that stand in place of the host's, by their names in `files/bound/`. */
  bound: { at: string; name: string }[];
  /** Paths in overlays that the pod did not write: programs, libraries. */
  used: string[];
}

/** What is known of a pod without asking it. */
export interface PodRecord extends Interposition {
  schemaVersion: 1;
  id: string;
  name: string;
  command: string[];
  cwd: string;
  /** RFC 3339. */
  createdAt: string;
  stdio: StdioKind;
  socket: string;
  hostname?: string;
  /** What /etc/machine-id says in it. */
  machineId?: string;
  /** What it may not write, see or reach. */
  isolate?: IsolationRecord;
  labels: Record<string, string>;
  remaps: PathRemap[];
  /** Removed from the store when it ends. */
  removeAtEnd: boolean;
  /** What of its image lies in its own directory. */
  files?: PodFiles;
  /** The image it was reattached from. */
  image?: string;
  /** The image it was detached to. */
  detachedTo?: string;
  /** Of a pod that came by a move: what stays the same through all its moves (the id of the first), and their number. */
  lineage?: string;
  epoch?: number;
  /** Where it was moved to, as it was told to `move`, and what it is there. Not settled: the target has not said yet that it runs. */
  movedTo?: { target: string; settled?: boolean; pod?: { id: string; name: string } };
}

/**
 * "running": its init answers; "moving": a command is moving it, or was and did not hear the end (`movedTo` is set then); "moved":
 * it runs on another host; "detached": it went into an image; "exited": it ended in any other way.
 *
 * @example
 * const running = (await list({ all: true })).filter((p) => p.state === "running");
 */
export type PodState = "running" | "moving" | "moved" | "exited" | "detached";

/**
 * How a program or pod ended, as wait(2) tells it. Exactly one holds: `code`, `signal`, `detached`, `lost`.
 *
 * @example
 * const { code, signal } = await pod.wait();
 * if (code !== 0) console.error("ended with", code ?? signal);
 */
export interface Exit {
  /** The program's exit code, 0 to 255; null if it did not end by itself. */
  code: number | null;
  /** The signal that ended it, or null. */
  signal: NodeJS.Signals | null;
  /** Not the program's end: the pod went into an image. */
  detached: boolean;
  /**
   * Nobody wrote down how it ended: init was killed, or the host went down. Also what a Pod says after disconnect(), and
   * an ExecSession when the pod ended under it.
   */
  lost: boolean;
}

export function podDirectory(id: string): string {
  return join(podsDirectory(), id);
}

/** The pod's own files: see PodFiles. */
export function podFilesDirectory(id: string): string {
  return join(podDirectory(id), "files");
}

/** A file that stands in place of the host's, without links on the way. */
export function boundFile(id: string, name: string): string {
  return join(realpathSync(podFilesDirectory(id)), "bound", name);
}

/** What a pod has written below one of its overlays. */
export function overlayUpper(id: string, directory: string): string {
  return join(podFilesDirectory(id), directory, "upper");
}

/** Name of a holder's socket in the directory of control sockets. */
export function holderName(id: string): string {
  return `${id}.hold`;
}

/** A new pod's id, directory and socket path. The record is written by saveRecord(). */
export function newPod(): { id: string; directory: string; socket: string } {
  const id = native.randomHex(6);
  const directory = podDirectory(id);
  mkdirSync(directory, { mode: 0o700 });
  return { id, directory, socket: join(socketDirectory(), `${id}.sock`) };
}

export function saveRecord(record: PodRecord): void {
  const path = join(podDirectory(record.id), "pod.json");
  writeFileSync(`${path}.new`, JSON.stringify(record), { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

export function loadRecord(id: string): PodRecord | undefined {
  try {
    const record = JSON.parse(readFileSync(join(podDirectory(id), "pod.json"), "utf8")) as PodRecord;
    return record.schemaVersion === 1 && record.id === id ? record : undefined;
  } catch {
    return undefined; // being made, being removed, or no pod at all
  }
}

export function loadRecords(): PodRecord[] {
  const records: PodRecord[] = [];
  for (const id of readdirSync(podsDirectory())) {
    const record = /^[0-9a-f]{12}$/.test(id) ? loadRecord(id) : undefined;
    if (record) records.push(record);
  }
  return records.sort((a, b) => a.createdAt.localeCompare(b.createdAt));
}

/** Forgets a pod that has ended. */
export function removePod(record: PodRecord): void {
  rmSync(record.socket, { force: true });
  rmSync(join(dirname(record.socket), holderName(record.id)), { force: true }); // of one that was killed
  removeTree(podDirectory(record.id));
}

/** Removes a directory in which a program may have made directories that nobody may look into. */
export function removeTree(directory: string): void {
  try {
    rmSync(directory, { recursive: true, force: true });
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== "EACCES") throw e;
    openAll(Buffer.from(directory));
    rmSync(directory, { recursive: true, force: true });
  }
}

function openAll(directory: Buffer): void {
  chmodSync(directory, 0o700);
  // Names are bytes, not always text.
  for (const entry of readdirSync(directory, { withFileTypes: true, encoding: "buffer" }))
    if (entry.isDirectory()) openAll(Buffer.concat([directory, Buffer.from("/"), entry.name]));
}

/**
 * Takes away what was made for a pod that did not come to be. Throws nothing: there is an error already that says why.
 * @internal
 */
export function discardPod(id: string, socket: string): void {
  rmSync(socket, { force: true });
  // Its init may be writing its last word there; rmSync's own retries would not look for new files.
  for (let tries = 0; tries < 10; tries++) {
    try {
      removeTree(podDirectory(id));
      return;
    } catch {
      // once more
    }
  }
}

/**
 * Removes a pod that was to be forgotten at its end, if nobody held it then. True if it is gone. init's word is asked for,
 * not its socket: a pod that is being made does not answer yet. @internal
 */
export function forgetIfEnded(record: PodRecord): boolean {
  if (!record.removeAtEnd || readExit(record.id)?.detached !== false || isRunning(record)) return false;
  removePod(record);
  return true;
}

/**
 * Removes sockets that nobody listens on: a supervisor that was killed while it launched leaves one. Young ones are left
 * alone, they may be about to be listened on. @internal
 */
export function sweepSockets(): void {
  const youngMs = 3000;
  for (const name of readdirSync(socketDirectory())) {
    const path = join(socketDirectory(), name);
    try {
      if (!/^[0-9a-f]{12}\.(sock|hold)$/.test(name) || Date.now() - statSync(path).ctimeMs < youngMs) continue;
      if (!isListening(path)) rmSync(path, { force: true });
    } catch {
      // removed meanwhile, or of one who can answer nobody now
    }
  }
}

/** A connection to the pod or holder whose socket this is, or nothing if it has ended. */
export function tryConnect(socket: string): ControlConnection | undefined {
  try {
    return ControlConnection.connect(socket);
  } catch (e) {
    if ((e as { code?: string }).code === "ERR_POD_GONE") return undefined;
    throw e;
  }
}

/** Whether a pod or holder lives whose socket this is. */
export function isListening(socket: string): boolean {
  const connection = tryConnect(socket);
  connection?.close();
  return connection !== undefined;
}

export function isRunning(record: PodRecord): boolean {
  return isListening(record.socket);
}

export function stateOf(record: PodRecord): PodState {
  if (isRunning(record)) return isLocked(moveLock(record.id)) ? "moving" : "running";
  if (!readExit(record.id)?.detached) return "exited";
  return record.movedTo === undefined ? "detached" : record.movedTo.settled ? "moved" : "moving";
}

/** Throws ERR_MOVE_IN_DOUBT for a pod that was let go of here, and nobody knows yet that it runs elsewhere. */
export function refuseIfInDoubt(record: PodRecord): void {
  if (!isInDoubt(record)) return;
  throw new VirtError(
    "ERR_MOVE_IN_DOUBT",
    `the pod ${record.name} was being moved to ${record.movedTo?.target}, which has not said that it runs there`,
    { hint: `run \`virt-run move --resume ${record.name}\` first` },
  );
}

/** Whether what is written here of a pod is needed to settle its move. */
export function isInDoubt(record: PodRecord): boolean {
  return record.movedTo?.settled === false && readExit(record.id)?.detached === true;
}

/** The lock of whoever moves the pod away. */
export function moveLock(id: string): string {
  return join(movesDirectory(), `out-${id}.lock`);
}

const signalNames = new Map<number, NodeJS.Signals>();

/** Turns what wait(2) gives into code or signal. */
export function exitFromWaitStatus(status: number): Exit {
  const signal = status & 0x7f;
  return {
    code: signal === 0 ? (status >> 8) & 0xff : null,
    signal: signal === 0 ? null : signalName(signal),
    detached: false,
    lost: false,
  };
}

export function signalName(number: number): NodeJS.Signals {
  if (signalNames.size === 0) {
    // Lazily: node:os is not needed for a program that ends by itself.
    const { constants } = process.getBuiltinModule("node:os");
    for (const [name, value] of Object.entries(constants.signals)) {
      if (!signalNames.has(value)) signalNames.set(value, name as NodeJS.Signals);
    }
  }
  return signalNames.get(number) ?? (`SIG${number}` as NodeJS.Signals);
}

export function signalNumber(name: string | number): number {
  const { constants } = process.getBuiltinModule("node:os");
  const signals = constants.signals as Record<string, number>;
  const n = /^\d+$/.test(String(name)) ? Number(name) : (signals[String(name)] ?? signals[`SIG${String(name)}`]);
  if (n === undefined || n > 64) throw new VirtError("ERR_USAGE", `there is no signal '${name}'`);
  return n;
}

/** What init wrote down, or nothing while the pod lives. */
export function readExit(id: string): Exit | undefined {
  let text: string;
  try {
    text = readFileSync(join(podDirectory(id), "exit"), "utf8");
  } catch {
    return undefined;
  }
  const [what, number] = text.trim().split(" ");
  if (what === "status") return exitFromWaitStatus(Number(number));
  return { code: null, signal: null, detached: what === "detached", lost: what !== "detached" };
}

/** Runs `f` while nobody else gives names to pods. */
export async function withNamesLocked<T>(f: () => T | Promise<T>): Promise<T> {
  const fd = openSync(join(podsDirectory(), ".names"), "a", 0o600);
  try {
    while (!native.tryLock(fd)) await new Promise((resolve) => setTimeout(resolve, 5));
    return await f();
  } finally {
    closeSync(fd);
  }
}

function makingFile(id: string): string {
  return join(podDirectory(id), "making");
}

/**
 * Shows others that the pod is being made: its name is taken although nobody answers for it yet. Holds until the function
 * it gives is called, or this process dies. @internal
 */
export function announceMaking(id: string): () => void {
  const fd = openSync(makingFile(id), "w", 0o600);
  native.tryLock(fd);
  return () => {
    rmSync(makingFile(id), { force: true });
    closeSync(fd);
  };
}

function isBeingMade(id: string): boolean {
  return isLocked(makingFile(id));
}

/** Whether a living process has the lock that this file is. */
function isLocked(path: string): boolean {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch {
    return false;
  }
  try {
    return !native.tryLock(fd);
  } finally {
    closeSync(fd);
  }
}

/** Throws ERR_NAME_TAKEN if a living pod, or one that is being made, has the name. */
export function checkName(name: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(name)) {
    throw new VirtError("ERR_USAGE", `'${name}' is no pod name: letters, digits, '_', '.', '-', at most 64`);
  }
  for (const record of loadRecords()) {
    if (record.name !== name) continue;
    // In this order: one that is being made now may live a moment later.
    if (isBeingMade(record.id) || isRunning(record))
      throw new VirtError("ERR_NAME_TAKEN", `the pod ${record.id} has the name '${name}'`);
  }
}

/** The pod with this name, id or unique prefix of either. Of several with one name the living, then the latest. */
export function findRecord(wanted: string): PodRecord {
  const records = loadRecords();
  const exact = records.filter((r) => r.name === wanted || r.id === wanted);
  const found = exact.length > 0 ? exact : records.filter((r) => r.name.startsWith(wanted) || r.id.startsWith(wanted));
  if (found.length > 1 && exact.length === 0) {
    const running = found.filter(isRunning);
    if (running.length === 1) return running[0] as PodRecord;
    throw new VirtError("ERR_POD_NOT_FOUND", `'${wanted}' could be ${found.map((r) => r.name).join(", ")}`);
  }
  const one = found.findLast(isRunning) ?? found.at(-1);
  if (!one) throw new VirtError("ERR_POD_NOT_FOUND", `there is no pod '${wanted}'`);
  return one;
}

/** The pod that was made last. */
export function latestRecord(): PodRecord {
  const record = loadRecords().at(-1);
  if (!record) throw new VirtError("ERR_POD_NOT_FOUND", "there is no pod");
  return record;
}
