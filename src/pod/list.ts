/**
 * Finding pods.
 */
import { type Holding, holdingOf, isHolding, ofAnotherVersion } from "./holder.js";
import { type Pod, podFromRecord } from "./pod.js";
import { findRecord, forgetIfEnded, latestRecord, loadRecords, type PodState, stateOf, sweepSockets } from "./store.js";

/**
 * A pod as `virt-run ps` shows it.
 *
 * @example
 * const [first]: PodSummary[] = await list();
 */
export interface PodSummary {
  /** 12 hexadecimal digits. */
  id: string;
  /** The id, if no name was given. */
  name: string;
  state: PodState;
  /** Program and arguments of its first process. */
  command: string[];
  /** When it was launched or reattached: RFC 3339, UTC. */
  createdAt: string;
  /** What `labels` said; {} if nothing. */
  labels: Record<string, string>;
  /** Where it was moved to, as `move` was told. */
  movedTo?: string;
  /** Of a detached or moved pod: what its init keeps for it, if it speaks our version of the protocol. */
  holding?: Holding;
}

/**
 * All living pods of this user, whoever launched them, and detached ones that hold something, oldest first; with `all` (default
 * false), also those that have ended.
 *
 * Errors: ERR_UNSAFE_PATH if the directory of pods or of sockets is not this user's alone; ERR_SYSCALL.
 *
 * @example
 * for (const { name, state } of await list({ all: true })) console.log(name, state);
 */
export async function list(options: { all?: boolean } = {}): Promise<PodSummary[]> {
  sweepSockets();
  const pods: PodSummary[] = [];
  for (const record of loadRecords()) {
    if (forgetIfEnded(record)) continue;
    const state = stateOf(record);
    const holds = (state === "detached" || record.movedTo !== undefined) && isHolding(record);
    if (state !== "running" && state !== "moving" && !holds && !options.all) continue;
    // One that we cannot ask is shown like the others, which are not to be hidden by it.
    const holding = holds ? await holdingOf(record).catch(ofAnotherVersion) : undefined;
    const { id, name, command, createdAt, labels } = record;
    const movedTo =
      record.movedTo && state !== "running" && state !== "exited" ? { movedTo: record.movedTo.target } : {};
    pods.push({ id, name, state, command, createdAt, labels, ...movedTo, ...(holding && { holding }) });
  }
  return pods;
}

/**
 * The pod with this name, id or unique prefix of either. Of several with one name the living one, else the latest. A pod
 * that has ended can be asked how: `running` is false and wait() tells. The connection keeps Node alive until
 * disconnect() or unref().
 *
 * Errors: ERR_POD_NOT_FOUND (or the prefix is not unique), ERR_POD_GONE if it ends just now, ERR_UNSAFE_PATH.
 *
 * @example
 * const pod = await connect("cache");
 * console.log(pod.id, pod.running);
 * pod.disconnect();
 */
export async function connect(nameOrId: string): Promise<Pod> {
  return podFromRecord(findRecord(nameOrId));
}

/**
 * The pod that was made last, running or not. Errors: ERR_POD_NOT_FOUND if there is none, ERR_POD_GONE, ERR_UNSAFE_PATH.
 *
 * @example
 * const pod = await connectLatest();
 */
export async function connectLatest(): Promise<Pod> {
  return podFromRecord(latestRecord());
}
