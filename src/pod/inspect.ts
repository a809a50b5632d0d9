/**
 * Everything there is to know of a pod while it runs, read from outside without stopping it.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { Recording } from "../rules/interposition.js";
import type { Rule } from "../rules/rules.js";
import { type Holding, holdingOf } from "./holder.js";
import type { IsolationRecord } from "./isolation.js";
import type { Pod } from "./pod.js";
import { type Exit, type PathRemap, type PodRecord, type PodState, stateOf } from "./store.js";

/**
 * What Pod.inspect() tells, and `virt-run inspect --json` prints. The last group of members is there while the pod runs,
 * `exit` when it does not, and `holding` while something is held for its image.
 *
 * @example
 * const info: PodInfo = await pod.inspect();
 * for (const p of info.processes ?? []) console.log(p.pid, p.hostPid, p.command.join(" "));
 */
export interface PodInfo {
  schemaVersion: 1;
  id: string;
  name: string;
  state: PodState;
  /** Program and arguments of the first process. */
  command: readonly string[];
  cwd: string;
  /** RFC 3339. */
  createdAt: string;
  /** What the first program's streams are. */
  stdio: PodRecord["stdio"];
  labels: Readonly<Record<string, string>>;
  remaps: readonly PathRemap[];
  /** Ports and addresses of the pod and what they are on this host. */
  ports: Readonly<Record<string, number>>;
  addresses: Readonly<Record<string, string>>;
  /** What goes into its journal. */
  record: Recording;
  rules: readonly Rule[];
  /** What /etc/hostname and the uts namespace say, if it has a name of its own. */
  hostname: string | null;
  machineId: string | null;
  /** Its rules, with paths that have no symbolic link in them. */
  isolate: Readonly<IsolationRecord> | null;
  /** Path of the image it was reattached from. */
  image: string | null;
  /** Path of the image it was detached to. */
  detachedTo: string | null;
  /** Where it was moved to: as `move` was told, and what it is there. */
  movedTo: Readonly<NonNullable<PodRecord["movedTo"]>> | null;
  exit?: Exit;
  /** Of a detached pod: what its init keeps for the image. */
  holding?: Holding;
  /** virt-init, as the host sees it. */
  initPid?: number;
  /** The first program, as the pod sees it. */
  firstPid?: number;
  firstEnded?: boolean;
  /** How many look at its terminal or streams. */
  viewers?: number;
  processes?: ProcessInfo[];
}

/**
 * A process of a pod, as proc(5) tells.
 *
 * @example
 * const [first] = (await pod.inspect()).processes ?? [];
 */
export interface ProcessInfo {
  /** As the pod sees it. */
  pid: number;
  /** As the host sees it. */
  hostPid: number;
  ppid: number;
  state: string;
  command: string[];
  threads: number;
  residentBytes: number;
  fds: { fd: number; target: string }[];
}

/** The processes of a pod, parents before children. Those that end meanwhile are left out. */
export function processesOf(initPid: number): ProcessInfo[] {
  const out: ProcessInfo[] = [];
  const pods = new Map<number, number>([[initPid, 1]]);
  const queue = [initPid];
  for (let at = queue.shift(); at !== undefined; at = queue.shift()) {
    for (const child of childrenOf(at)) {
      const info = tryInspect(child, pods.get(at) ?? 1);
      if (!info) continue;
      pods.set(child, info.pid);
      out.push(info);
      queue.push(child);
    }
  }
  return out;
}

function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((tid) =>
      readFileSync(`/proc/${pid}/task/${tid}/children`, "utf8").split(" ").filter(Boolean).map(Number),
    );
  } catch {
    return [];
  }
}

function tryInspect(hostPid: number, ppid: number): ProcessInfo | undefined {
  try {
    const status = readFileSync(`/proc/${hostPid}/status`, "utf8");
    const field = (key: string) => new RegExp(`^${key}:\\s*(.*)$`, "m").exec(status)?.[1] ?? "";
    const command = readFileSync(`/proc/${hostPid}/cmdline`, "utf8").split("\0").slice(0, -1);
    return {
      pid: Number(field("NSpid").split(/\s+/).at(-1)),
      hostPid,
      ppid,
      state: field("State"),
      command: command.length > 0 ? command : [`[${field("Name")}]`],
      threads: Number(field("Threads")),
      residentBytes: Number(field("VmRSS").split(" ")[0] || 0) * 1024,
      fds: readFds(hostPid),
    };
  } catch {
    return undefined;
  }
}

function readFds(hostPid: number): ProcessInfo["fds"] {
  try {
    return readdirSync(`/proc/${hostPid}/fd`)
      .map(Number)
      .sort((a, b) => a - b)
      .map((fd) => ({ fd, target: readlinkSync(`/proc/${hostPid}/fd/${fd}`) }));
  } catch {
    return []; // a zombie has none
  }
}

/** @internal */
export async function inspectPod(pod: Pod): Promise<PodInfo> {
  const { record } = pod;
  const base = {
    schemaVersion: 1 as const,
    id: record.id,
    name: record.name,
    command: record.command,
    cwd: record.cwd,
    createdAt: record.createdAt,
    stdio: record.stdio,
    labels: record.labels,
    remaps: record.remaps,
    ports: record.ports ?? {},
    addresses: record.addresses ?? {},
    record: record.record ?? "none",
    rules: record.rules ?? [],
    hostname: record.hostname ?? null,
    machineId: record.machineId ?? null,
    isolate: record.isolate ?? null,
    image: record.image ?? null,
    detachedTo: record.detachedTo ?? null,
    movedTo: record.movedTo ?? null,
  };
  if (!pod.running) {
    const exit = await pod.ended();
    const holding = exit.detached ? await holdingOf(record) : undefined;
    return { ...base, state: stateOf(record), exit, ...(holding && { holding }) };
  }
  const { ControlConnection } = await import("../control/connection.js");
  const connection = ControlConnection.connect(record.socket);
  try {
    const status = await connection.hello();
    const { initPid } = connection;
    return {
      ...base,
      state: "running",
      initPid,
      firstPid: status.firstPid,
      firstEnded: status.firstEnded,
      viewers: status.viewers,
      processes: processesOf(initPid),
    };
  } finally {
    connection.close();
  }
}
