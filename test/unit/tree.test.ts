/**
 * The plan that grows a process tree: trees as random histories leave them behind are planned, the plan is carried out by
 * a simulation of the kernel, and the same tree must stand there.
 */
import t from "tap";
import { ImpossibleTree, planTree, type TreeProcess } from "../../src/image/tree.js";
import { captured, describeTree, SimulatedKernel } from "../support/process-tree.js";
import { Random, seeds } from "../support/random.js";

interface Habits {
  steps: number;
  /** How often somebody becomes a subreaper, and stops being one. */
  subreapers: number;
  subreapersStop: number;
  mostPid: number;
}

/** Processes that do what they like, within the kernel's rules. */
function live(random: Random, habits: Habits): SimulatedKernel {
  const kernel = new SimulatedKernel(habits.mostPid);
  const first = kernel.fork(1).pid; // as init starts a program: in a session of its own
  kernel.setsid(first);
  for (let i = 0; i < habits.steps; i++) {
    const living = kernel.all().filter((p) => p.status === undefined);
    if (living.length === 0) break;
    const one = random.pick(living);
    const what = random.fraction();
    try {
      if (what < 0.4) {
        if (living.length < 24) kernel.fork(one.pid);
      } else if (what < 0.47) kernel.setsid(one.pid);
      else if (what < 0.62) setGroup(kernel, random, one.pid);
      else if (what < 0.8) {
        if (living.length > 2) kernel.exit(one.pid, random.chance(0.3) ? 9 : random.below(256) << 8);
      } else if (what < 0.88) reapOne(kernel, random, one.pid);
      else if (what < 0.92) kernel.thread(one.pid);
      else if (what < 0.94)
        kernel.setsid(kernel.fork(1).pid); // virt-run exec
      else if (random.chance(habits.subreapers)) one.subreaper = true;
      else if (random.chance(habits.subreapersStop)) one.subreaper = false;
    } catch (e) {
      if (!/^(EPERM|ECHILD|ESRCH|EAGAIN)/.test((e as Error).message)) throw e; // else the program is told so
    }
  }
  return kernel;
}

/** What shells do (a group of one's own, or of another in the session), by the process or its parent. */
function setGroup(kernel: SimulatedKernel, random: Random, pid: number): void {
  const caller = kernel.alive(pid);
  const targets = [caller, ...kernel.all().filter((p) => p.parent === pid)];
  const target = random.pick(targets);
  const groups = kernel.all().filter((p) => p.session === target.session);
  kernel.setpgid(target.pid, random.chance(0.5) ? target.pid : random.pick(groups).group, pid);
}

function reapOne(kernel: SimulatedKernel, random: Random, pid: number): void {
  const dead = kernel.all().filter((p) => p.parent === pid && p.status !== undefined);
  if (dead.length > 0) kernel.reap(pid, random.pick(dead).pid);
}

/** Grows a tree by its plan, from init and the seed alone; throws what the kernel would refuse. */
function grow(processes: readonly TreeProcess[]): TreeProcess[] {
  const plan = planTree(processes);
  const kernel = new SimulatedKernel();
  kernel.fork(1, plan.seedPid);
  for (const step of plan.steps) {
    try {
      kernel.step(step, plan.seedPid);
    } catch (e) {
      throw new Error(`${JSON.stringify(step)}: ${(e as Error).message}, in ${JSON.stringify(plan.steps)}`);
    }
  }
  kernel.exit(plan.seedPid, 0);
  return captured(kernel);
}

/** Subreapers are made again with the rest of a process's state, not by the plan. */
function withoutSubreapers(processes: readonly TreeProcess[]): string[] {
  return describeTree(processes.map((p) => ({ ...p, subreaper: false })));
}

/** Plans and grows the trees of many histories. Gives how many no plan was found for, by the reason. */
function growMany(count: number, habits: Habits): { grown: number; refused: Map<string, number>; largest: number } {
  const refused = new Map<string, number>();
  let grown = 0;
  let largest = 0;
  for (const seed of seeds(count)) {
    const wanted = captured(live(new Random(seed), habits));
    const shown = () => `VIRT_RUN_SEED=${seed}:\n${describeTree(wanted).join("\n")}`;
    let got: TreeProcess[];
    try {
      got = grow(wanted);
    } catch (e) {
      if (!(e instanceof ImpossibleTree)) throw new Error(`${shown()}\n${(e as Error).message}`);
      const reason = e.message.replace(/\d+/g, "N");
      refused.set(reason, (refused.get(reason) ?? 0) + 1);
      if (process.env["VIRT_RUN_SEED"] !== undefined) throw new Error(`${shown()}\n${e.message}`);
      continue;
    }
    const [a, b] = [withoutSubreapers(wanted).join("\n"), withoutSubreapers(got).join("\n")];
    if (a !== b) throw new Error(`${shown()}\nwas made as\n${b}`);
    grown++;
    largest = Math.max(largest, wanted.length);
  }
  return { grown, refused, largest };
}

/** What is known not to be planned: who was adopted by a subreaper into a session that stretches beyond it. */
const knownRefusals = [
  "session N is spread over the tree",
  "session N has a member that was adopted by a process outside it",
  "the children of pid N belong to several sessions it never was in",
  "pid N would have to exist before itself",
];

for (const [name, count, habits] of [
  ["few processes", 4000, { steps: 12, subreapers: 0, subreapersStop: 0, mostPid: 1000 }],
  ["many processes", 1500, { steps: 120, subreapers: 0, subreapersStop: 0, mostPid: 1000 }],
  ["pids that come round again", 1500, { steps: 150, subreapers: 0, subreapersStop: 0, mostPid: 40 }],
  ["subreapers", 3000, { steps: 60, subreapers: 0.7, subreapersStop: 0, mostPid: 1000 }],
  ["subreapers that stop being some", 3000, { steps: 60, subreapers: 0.7, subreapersStop: 0.7, mostPid: 1000 }],
] as [string, number, Habits][]) {
  t.test(name, async (t) => {
    const { grown, refused, largest } = growMany(count, habits);
    for (const [reason, n] of refused) t.comment(`${n} refused: ${reason}`);
    t.ok(grown > 0, `${grown} trees, the largest of ${largest} processes`);
    if (habits.subreapers === 0) t.equal(refused.size, 0, "without subreapers every tree can be grown");
    else
      t.same(
        [...refused.keys()].filter((reason) => !knownRefusals.includes(reason)),
        [],
      );
  });
}

function isRefused(processes: readonly TreeProcess[]): boolean {
  try {
    planTree(processes);
    return false;
  } catch (e) {
    if (e instanceof ImpossibleTree) return true;
    throw e;
  }
}

t.test("what is no tree is refused, and nothing else is thrown", async (t) => {
  const place = { ppid: 1, group: 2, session: 2 };
  for (const [what, processes] of [
    [
      "a pid twice",
      [
        { pid: 2, ...place },
        { pid: 2, ...place },
      ],
    ],
    ["init", [{ pid: 1, ppid: 1, group: 1, session: 1 }]],
    ["a parent that is not there", [{ pid: 2, ppid: 9, group: 2, session: 2 }]],
    ["a session outside", [{ pid: 2, ppid: 1, group: 2, session: 1 }]],
    ["a leader outside its group", [{ pid: 2, ppid: 1, group: 3, session: 2 }]],
    ["its own parent", [{ pid: 2, ppid: 2, group: 3, session: 3 }]],
    [
      "a circle of parents",
      [
        { pid: 2, ppid: 3, group: 2, session: 2 },
        { pid: 3, ppid: 2, group: 2, session: 2 },
      ],
    ],
    [
      "a circle of leaders",
      [
        { pid: 2, ppid: 3, group: 2, session: 2 },
        { pid: 3, ppid: 2, group: 3, session: 3 },
      ],
    ],
  ] as [string, TreeProcess[]][])
    t.ok(isRefused(processes), what);
});

t.test("random numbers for pids never do worse than being refused", async (t) => {
  let planned = 0;
  for (const seed of seeds(20000)) {
    const random = new Random(seed);
    const processes = Array.from({ length: 1 + random.below(6) }, () => ({
      pid: 1 + random.below(8),
      ppid: 1 + random.below(8),
      group: 1 + random.below(8),
      session: 1 + random.below(8),
      zombie: random.chance(0.2),
      subreaper: random.chance(0.2),
    }));
    try {
      planTree(processes);
      planned++;
    } catch (e) {
      if (e instanceof ImpossibleTree) continue;
      throw new Error(`VIRT_RUN_SEED=${seed}:\n${describeTree(processes).join("\n")}\n${(e as Error).stack}`);
    }
  }
  t.ok(planned > 0, `${planned} had a plan`);
});
