/**
 * How to grow a process tree so that every process ends up with its old pid, parent, session and process group: an
 * order of forks, setsids and setpgids, with helpers where those who made it that way are gone (setsid(2),
 * setpgid(2), credentials(7)). Pure: the native side carries the steps out one by one.
 *
 * The kernel's rules behind it: a child is born into its parent's session and group; setsid makes one's own and only
 * one's own; an orphan goes to the nearest ancestor that is a subreaper, or to PID 1; a group or session keeps its
 * number after its leader is gone.
 */

/** A process as far as its place in the tree goes. Pids are the pod's. */
export interface TreeProcess {
  pid: number;
  /** 1: init. */
  ppid: number;
  group: number;
  session: number;
  /** What its parent is sent when it ends (clone(2)); undefined: SIGCHLD. An orphan's is always that. */
  exitSignal?: number | undefined;
  subreaper?: boolean | undefined;
  zombie?: boolean | undefined;
  /** As wait(2) gives it, of a zombie. */
  exitStatus?: number | undefined;
  /** Of a zombie. */
  comm?: Buffer | undefined;
  tids?: readonly number[] | undefined;
}

export type TreeStep =
  /** `by` 0 is the seed; `sibling`: the new process gets the maker's own parent (CLONE_PARENT). */
  | { op: "fork"; by: number; pid: number; sibling?: boolean; exitSignal?: number }
  | { op: "setsid"; pid: number }
  | { op: "setpgid"; pid: number; group: number }
  | { op: "subreaper"; pid: number; on: boolean }
  | { op: "name"; pid: number; comm: Buffer }
  | { op: "exit"; pid: number; status: number }
  | { op: "reap"; by: number; pid: number };

export interface TreePlan {
  steps: TreeStep[];
  /** The seed's pid in the pod: one that nobody uses. */
  seedPid: number;
}

/** A tree that no order of steps can make. */
export class ImpossibleTree extends Error {}

const init = 1;
const seed = 0;

/** Plans the growth of a tree; throws ImpossibleTree. */
export function planTree(processes: readonly TreeProcess[]): TreePlan {
  return new Planner(processes).plan();
}

function addTo<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}

class Planner {
  readonly #all = new Map<number, TreeProcess>();
  readonly #children = new Map<number, TreeProcess[]>();
  readonly #used = new Set<number>([init]);
  readonly #steps: TreeStep[] = [];
  /** Live processes and helpers: pid → real parent at this moment. */
  readonly #parent = new Map<number, number>();
  readonly #session = new Map<number, number>();
  readonly #making = new Set<number>();
  readonly #bornMemo = new Map<number, number | undefined>();
  /** Stand-ins for session leaders that are gone, to be ended when the groups stand. */
  readonly #ghosts: { pid: number; reaper: number }[] = [];
  #nextFree = 2;

  constructor(processes: readonly TreeProcess[]) {
    for (const p of processes) {
      if (this.#all.has(p.pid) || p.pid <= init) throw new ImpossibleTree(`pid ${p.pid} occurs twice, or is init's`);
      this.#all.set(p.pid, p);
    }
    for (const p of processes) {
      for (const n of [p.pid, p.group, p.session, ...(p.tids ?? [])]) this.#used.add(n);
      if (p.ppid !== init && !this.#all.has(p.ppid))
        throw new ImpossibleTree(`pid ${p.pid} has a parent that is not in the pod`);
      if (p.session <= init || p.group <= init)
        throw new ImpossibleTree(`pid ${p.pid} belongs to a session or group outside the pod`);
      if (p.session === p.pid && p.group !== p.pid)
        throw new ImpossibleTree(`session leader ${p.pid} is not in its own group`);
      addTo(this.#children, p.ppid, p);
    }
  }

  plan(): TreePlan {
    const seedPid = this.#freePid();
    for (const p of this.#all.values()) this.#make(p);
    this.#makeGroups();
    for (const ghost of this.#ghosts.reverse()) this.#endHelper(ghost.pid, ghost.reaper);
    for (const p of this.#all.values()) {
      if (!p.zombie) continue;
      if (p.comm) this.#steps.push({ op: "name", pid: p.pid, comm: p.comm });
      this.#steps.push({ op: "exit", pid: p.pid, status: p.exitStatus ?? 0 });
    }
    return { steps: this.#steps, seedPid };
  }

  #freePid(): number {
    while (this.#used.has(this.#nextFree)) this.#nextFree++;
    this.#used.add(this.#nextFree);
    return this.#nextFree++;
  }

  #isLeader(p: TreeProcess): boolean {
    return p.session === p.pid;
  }

  /** Children that must be born before their parent makes its own session: they carry the one it was born into. */
  #earlyChildren(p: TreeProcess): TreeProcess[] {
    if (!this.#isLeader(p) || p.subreaper) return [];
    return (this.#children.get(p.pid) ?? []).filter((c) => {
      const born = this.#bornInto(c);
      return born !== undefined && born !== p.session;
    });
  }

  /** The session a process must be born into; undefined: any, it makes its own. */
  #bornInto(p: TreeProcess): number | undefined {
    if (!this.#isLeader(p)) return p.session;
    if (this.#bornMemo.has(p.pid)) return this.#bornMemo.get(p.pid);
    this.#bornMemo.set(p.pid, undefined); // a cycle of parents would be no tree
    const early = new Set(this.#earlyChildren(p).map((c) => this.#bornInto(c) as number));
    if (early.size > 1)
      throw new ImpossibleTree(`the children of pid ${p.pid} belong to several sessions it never was in`);
    const [born] = early;
    this.#bornMemo.set(p.pid, born);
    return born;
  }

  #make(p: TreeProcess): void {
    if (this.#parent.has(p.pid)) return;
    if (this.#making.has(p.pid)) throw new ImpossibleTree(`pid ${p.pid} would have to exist before itself`);
    this.#making.add(p.pid);
    const born = this.#bornInto(p);
    if (p.ppid === init) {
      if (born === undefined) this.#fork(seed, p.pid, true);
      else this.#adopt(p.pid, init, born);
    } else {
      const parent = this.#all.get(p.ppid) as TreeProcess;
      this.#make(parent); // may make us on the way, as an early child
      if (this.#parent.has(p.pid)) {
        this.#making.delete(p.pid);
        return;
      }
      if (born === undefined || this.#session.get(parent.pid) === born) this.#fork(parent.pid, p.pid);
      else this.#adopt(p.pid, parent.pid, born);
    }
    for (const child of this.#earlyChildren(p)) {
      this.#fork(p.pid, child.pid);
      this.#settle(child);
    }
    this.#settle(p);
    this.#making.delete(p.pid);
  }

  /** What a process does for itself once born: early children first, then its own session. */
  #settle(p: TreeProcess): void {
    if (!this.#isLeader(p) || this.#session.get(p.pid) === p.pid) return;
    for (const child of this.#earlyChildren(p)) {
      if (this.#parent.has(child.pid)) continue;
      this.#fork(p.pid, child.pid);
      this.#settle(child);
    }
    this.#steps.push({ op: "setsid", pid: p.pid });
    this.#session.set(p.pid, p.pid);
  }

  #fork(by: number, pid: number, sibling = false): void {
    const exitSignal = this.#all.get(pid)?.exitSignal;
    this.#steps.push({
      op: "fork",
      by,
      pid,
      ...(sibling && { sibling }),
      ...(!sibling && exitSignal !== undefined && { exitSignal }),
    });
    this.#parent.set(pid, sibling ? (by === seed ? init : (this.#parent.get(by) as number)) : by);
    this.#session.set(pid, by === seed ? 0 : (this.#session.get(by) as number));
  }

  #isBelow(pid: number, ancestor: number): boolean {
    let at: number | undefined = pid;
    while (at !== undefined && at !== init) {
      at = this.#parent.get(at);
      if (at === ancestor) return true;
    }
    return ancestor === init;
  }

  /** Makes `pid` a child of `reaper`, born into a session `reaper` is not in: an orphan, as it once became one. */
  #adopt(pid: number, reaper: number, session: number): void {
    const maker = this.#memberOf(session, reaper);
    if (reaper === init && this.#parent.get(maker) === init) {
      this.#fork(maker, pid, true);
      return;
    }
    // A sibling takes over the maker's exit signal, too.
    if (this.#parent.get(maker) === reaper && this.#all.get(maker)?.exitSignal === undefined) {
      this.#fork(maker, pid, true); // its parent is the very one
      return;
    }
    const helper = this.#freePid();
    this.#fork(maker, helper);
    this.#fork(helper, pid);
    if (reaper !== init) this.#steps.push({ op: "subreaper", pid: reaper, on: true });
    this.#endHelper(helper, maker);
    if (reaper !== init) this.#steps.push({ op: "subreaper", pid: reaper, on: false });
    this.#parent.set(pid, reaper);
  }

  /** Somebody alive in the session and below `reaper`; a stand-in for its leader if there is nobody. */
  #memberOf(session: number, reaper: number): number {
    const leader = this.#all.get(session);
    if (leader && this.#isLeader(leader)) {
      // Being made right now means: further up in this very call, born but not yet in its session.
      this.#make(leader);
      if (this.#isBelow(session, reaper)) return session;
      throw new ImpossibleTree(`session ${session} has a member that was adopted by a process outside it`);
    }
    for (const [pid, of] of this.#session) {
      if (of === session && this.#isBelow(pid, reaper)) return pid;
    }
    if (this.#parent.has(session)) throw new ImpossibleTree(`session ${session} is spread over the tree`);
    this.#fork(reaper === init ? seed : reaper, session, reaper === init);
    this.#steps.push({ op: "setsid", pid: session });
    this.#session.set(session, session);
    this.#ghosts.push({ pid: session, reaper });
    return session;
  }

  #endHelper(pid: number, parent: number): void {
    this.#steps.push({ op: "exit", pid, status: 0 });
    if (parent !== init) this.#steps.push({ op: "reap", by: parent, pid });
    this.#parent.delete(pid);
    this.#session.delete(pid);
  }

  /** Founds every group, then lets everybody join theirs, also those founders that belong to another one now. */
  #makeGroups(): void {
    const members = new Map<number, TreeProcess[]>();
    for (const p of this.#all.values()) addTo(members, p.group, p);
    const helpers: { pid: number; parent: number }[] = [];
    for (const [group, list] of members) {
      const founder = this.#all.get(group);
      if (founder) {
        if (!this.#isLeader(founder)) this.#steps.push({ op: "setpgid", pid: group, group });
        if (founder.group !== group) {
          // Somebody must stay in the group until all who belong there have come.
          const helper = this.#freePid();
          this.#fork(group, helper);
          helpers.push({ pid: helper, parent: group });
        }
      } else if (!this.#parent.has(group)) {
        // The group outlived its leader: a stand-in founds it again and goes.
        const maker = list[0] as TreeProcess;
        this.#fork(maker.pid, group);
        this.#steps.push({ op: "setpgid", pid: group, group });
        helpers.push({ pid: group, parent: maker.pid });
      }
    }
    for (const p of this.#all.values())
      if (p.pid !== p.group) this.#steps.push({ op: "setpgid", pid: p.pid, group: p.group });
    for (const { pid, parent } of helpers) this.#endHelper(pid, parent);
  }
}
