/**
 * The kernel's rules about a tree of processes, as far as pids, parents, sessions and groups go: fork(2), clone(2) with
 * CLONE_PARENT, setsid(2), setpgid(2), _exit(2), wait(2), and PR_SET_CHILD_SUBREAPER. Whatever the kernel refuses throws.
 */
import type { TreeProcess, TreeStep } from "../../src/image/tree.js";

export interface SimulatedProcess {
  pid: number;
  parent: number;
  session: number;
  group: number;
  subreaper: boolean;
  /** Undefined while it lives. */
  status: number | undefined;
  /** Threads but the first; their numbers are taken. */
  tids: number[];
}

const init = 1;

export class SimulatedKernel {
  readonly processes = new Map<number, SimulatedProcess>();
  readonly #mostPid: number;
  #lastPid = init;

  /** `mostPid`: a small one makes numbers come round again, as kernel.pid_max does. */
  constructor(mostPid = 4_194_303) {
    this.#mostPid = mostPid;
    // init's session and group are outside its pid namespace: 0 as seen from within.
    this.processes.set(init, {
      pid: init,
      parent: 0,
      session: 0,
      group: 0,
      subreaper: false,
      status: undefined,
      tids: [],
    });
  }

  /** Everybody but init. */
  all(): SimulatedProcess[] {
    return [...this.processes.values()].filter((p) => p.pid !== init);
  }

  alive(pid: number): SimulatedProcess {
    const p = this.processes.get(pid);
    if (p === undefined || p.status !== undefined) throw new Error(`ESRCH: ${pid} does not live`);
    return p;
  }

  /** A number stays taken while anybody has it as pid, tid, group or session (free_pid() in the kernel). */
  isTaken(pid: number): boolean {
    for (const p of this.processes.values())
      if (p.pid === pid || p.session === pid || p.group === pid || p.tids.includes(pid)) return true;
    return false;
  }

  nextPid(): number {
    for (let tries = 0; tries <= this.#mostPid; tries++) {
      this.#lastPid = this.#lastPid >= this.#mostPid ? init + 1 : this.#lastPid + 1;
      if (!this.isTaken(this.#lastPid)) return this.#lastPid;
    }
    throw new Error("EAGAIN: no pid is free");
  }

  fork(by: number, pid: number = this.nextPid(), sibling = false): SimulatedProcess {
    const maker = this.alive(by);
    if (this.isTaken(pid)) throw new Error(`EEXIST: pid ${pid}`);
    if (sibling && by === init) throw new Error("EINVAL: init has no siblings");
    const child: SimulatedProcess = {
      pid,
      parent: sibling ? maker.parent : by,
      session: maker.session,
      group: maker.group,
      subreaper: false,
      status: undefined,
      tids: [],
    };
    this.processes.set(pid, child);
    return child;
  }

  thread(of: number): void {
    this.alive(of).tids.push(this.nextPid());
  }

  setsid(pid: number): void {
    const p = this.alive(pid);
    if (p.session === pid) throw new Error(`EPERM: setsid by ${pid}, which leads a session`);
    if (this.#membersOf(pid).length > 0) throw new Error(`EPERM: setsid by ${pid}, whose number a group has`);
    p.session = pid;
    p.group = pid;
  }

  /** `by` is the process itself or its parent. */
  setpgid(pid: number, group: number, by: number = pid): void {
    const p = this.processes.get(pid);
    const caller = this.alive(by);
    if (p === undefined || (p !== caller && p.parent !== by)) throw new Error(`ESRCH: setpgid of ${pid} by ${by}`);
    if (p.session !== caller.session) throw new Error(`EPERM: setpgid of ${pid}, which is in another session`);
    if (p.session === pid) throw new Error(`EPERM: setpgid of session leader ${pid}`);
    if (group !== pid && !this.#membersOf(group).some((member) => member.session === p.session))
      throw new Error(`EPERM: setpgid of ${pid} to ${group}, which is no group of its session`);
    p.group = group;
  }

  exit(pid: number, status: number): void {
    const p = this.alive(pid);
    const reaper = this.#reaperFor(p);
    p.status = status;
    p.tids = [];
    for (const child of this.processes.values()) if (child.parent === pid) child.parent = reaper;
    for (const zombie of [...this.processes.values()])
      if (zombie.parent === init && zombie.status !== undefined) this.processes.delete(zombie.pid); // init waits
  }

  reap(by: number, pid: number): void {
    this.alive(by);
    const p = this.processes.get(pid);
    if (p?.parent !== by) throw new Error(`ECHILD: ${pid} is no child of ${by}`);
    if (p.status === undefined) throw new Error(`${by} waits for ${pid}, which lives, for ever`);
    this.processes.delete(pid);
  }

  /** Carries out one step of a plan. `seedPid`: who the plan's 0 is. */
  step(step: TreeStep, seedPid: number): void {
    switch (step.op) {
      case "fork":
        this.fork(step.by === 0 ? seedPid : step.by, step.pid, step.sibling ?? false);
        break;
      case "setsid":
        this.setsid(step.pid);
        break;
      case "setpgid":
        this.setpgid(step.pid, step.group);
        break;
      case "subreaper":
        this.alive(step.pid).subreaper = step.on;
        break;
      case "name":
        this.alive(step.pid);
        break;
      case "exit":
        this.exit(step.pid, step.status);
        break;
      case "reap":
        this.reap(step.by, step.pid);
        break;
    }
  }

  #membersOf(group: number): SimulatedProcess[] {
    return [...this.processes.values()].filter((p) => p.group === group);
  }

  /** find_new_reaper(): the nearest living ancestor that is a subreaper, or init. */
  #reaperFor(father: SimulatedProcess): number {
    for (let at = this.processes.get(father.parent); at !== undefined; at = this.processes.get(at.parent))
      if (at.subreaper && at.status === undefined) return at.pid;
    return init;
  }
}

/** What a capture would say of the processes. */
export function captured(kernel: SimulatedKernel): TreeProcess[] {
  return kernel
    .all()
    .sort((a, b) => a.pid - b.pid)
    .map((p) => ({
      pid: p.pid,
      ppid: p.parent,
      group: p.group,
      session: p.session,
      ...(p.status === undefined
        ? { subreaper: p.subreaper, tids: [p.pid, ...p.tids] }
        : { zombie: true, exitStatus: p.status }),
    }));
}

/** One line a process, for comparing and for showing. */
export function describeTree(processes: readonly TreeProcess[]): string[] {
  return processes
    .map(
      (p) =>
        `${p.pid} of ${p.ppid}, session ${p.session}, group ${p.group}` +
        `${p.zombie ? `, zombie ${p.exitStatus ?? 0}` : ""}${p.subreaper ? ", subreaper" : ""}`,
    )
    .sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10));
}
