/**
 * A move under everything that can go wrong: never two running copies, never none. The protocol's own code, over a model of
 * two hosts in virtual time. Every single fault at every step and message, then faults by chance, with others while the
 * move is being settled. VIRT_RUN_SEED=n runs one seed alone; what fails prints its faults, and VIRT_RUN_FAULTS takes them.
 */
import t from "tap";
import { play, type ScenarioOptions } from "../support/move-scenario.js";
import type { Fault } from "../support/move-world.js";
import { Random, seeds } from "../support/random.js";

const stepKinds = ["kill-before", "kill-during", "kill-after", "fail-before", "fail-after", "abort"] as const;
const messageKinds = ["cut-before", "cut-after", "hang", "double", "echo"] as const;
const lateMs = [300, 1100, 2500, 6000];

function faultsAt(what: "step" | "message", n: number): Fault[] {
  if (what === "step") return stepKinds.map((kind) => ({ kind, step: n }));
  return [
    ...messageKinds.map((kind): Fault => ({ kind, message: n })),
    ...lateMs.map((ms): Fault => ({ kind: "late", message: n, ms })),
  ];
}

function randomFault(random: Random, steps: number, messages: number): Fault {
  return random.chance(0.5)
    ? random.pick(faultsAt("step", random.below(steps)))
    : random.pick(faultsAt("message", random.below(messages)));
}

const given = process.env["VIRT_RUN_FAULTS"];
if (given !== undefined) {
  // { "faults": […], "live": true, "seed": 1 }
  t.test("the faults that are given", async (t) => {
    const { faults, ...options } = JSON.parse(given) as { faults: Fault[] } & ScenarioOptions;
    t.comment(JSON.stringify(await play(faults, options)));
  });
}

for (const live of [true, false]) {
  t.test(`every single fault, ${live ? "live" : "cold"}`, async (t) => {
    const whole = await play([], { live, seed: 1 });
    t.equal(whole.first, "moved", "without a fault");
    const endings = new Map<string, number>();
    for (const anew of [false, true])
      for (const what of ["step", "message"] as const)
        for (let n = 0; n < (what === "step" ? whole.steps : whole.messages); n++)
          for (const fault of faultsAt(what, n)) {
            const { first } = await play([fault], { live, seed: 1, anew });
            endings.set(first, (endings.get(first) ?? 0) + 1);
          }
    t.comment([...endings].map(([code, times]) => `${code} ${times}`).join(", "));
    for (const code of ["moved", "killed", "ERR_MOVE_IN_DOUBT", "ERR_MOVE_LOST", "ERR_ABORTED"])
      t.ok(endings.has(code), `${code} was among the endings`);
  });
}

t.test("a fault, and one while it is settled", async () => {
  const { steps, messages } = await play([], { live: false, seed: 1 });
  for (let n = 0; n < steps; n++) {
    const random = new Random(n);
    for (const kind of ["kill-before", "kill-after"] as const)
      for (let later = 1; later < 45; later += 2) {
        const second = random.chance(0.5)
          ? random.pick(faultsAt("step", n + later))
          : random.pick(faultsAt("message", random.below(messages + 10)));
        await play([{ kind, step: n }, second], { live: false, seed: later });
      }
  }
});

t.test("an old connection's words come when a newer move is under way", async () => {
  const { steps, messages } = await play([], { live: false, seed: 1 });
  for (let message = 1; message < messages; message++)
    for (let step = 20; step < 20 + steps; step++)
      for (const ms of [1200, 2500]) {
        const faults: Fault[] = [
          { kind: "late", message, ms },
          { kind: step % 2 ? "kill-during" : "kill-after", step },
        ];
        for (const seed of [step, step + 1000]) await play(faults, { live: false, seed, anew: true });
      }
});

t.test("faults by chance", async () => {
  // Nothing of a model depends on who runs it.
  for (const seed of seeds(process.geteuid?.() === 0 ? 300 : 3000)) {
    const random = new Random(seed);
    const faults = Array.from({ length: 1 + random.below(5) }, () => randomFault(random, 160, 60));
    await play(faults, { live: random.chance(0.3), seed, anew: random.chance(0.3) });
  }
});
