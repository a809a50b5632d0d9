/**
 * Everything there is to know of a pod while it runs, read from outside without stopping it.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { Pod } from "./pod.js";

/** A process of a pod. */
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
export async function inspectPod(pod: Pod): Promise<Record<string, unknown>> {
  const { record } = pod;
  const base = {
    schemaVersion: 1,
    id: record.id,
    name: record.name,
    command: record.command,
    cwd: record.cwd,
    createdAt: record.createdAt,
    stdio: record.stdio,
    labels: record.labels,
    remaps: record.remaps,
    image: record.image ?? null,
    detachedTo: record.detachedTo ?? null,
  };
  if (!pod.running)
    return { ...base, state: (await pod.ended()).detached ? "detached" : "exited", exit: await pod.ended() };
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
