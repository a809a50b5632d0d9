/**
 * The pods of the model of a move: states that a process changes step by step, and an init that does what it was told whether
 * or not who told it still lives.
 */
import { VirtError } from "../../src/errors.js";
import type { ParkedPod, PodFate, SourcePod, TargetPods } from "../../src/move/parts.js";
import { type Connection, type Copy, never, type Process, type World } from "./move-world.js";

export function modelSource(process: Process, copy: Copy, epoch: number): SourcePod {
  const { world } = process;
  let stopped = false;
  const unlessStopped = () => {
    if (stopped) throw new VirtError("ERR_ABORTED", "the capture was stopped");
  };
  return {
    id: copy.id,
    name: "pod",
    lineage: "a00000000000",
    epoch,
    met: () => {},
    track: () =>
      process.step("track", async () => {
        await settled(world, copy);
        if (copy.state === "gone") throw new VirtError("ERR_POD_GONE", "the pod has ended");
        await world.sleep(5);
        return { manifest: "{}", blockers: [], totalBytes: 1 << 22 };
      }),
    copy: (wire) =>
      process.step("copy", async () => {
        for (let i = 0; i < 3; i++) {
          await world.sleep(10);
          unlessStopped();
          await (wire as Connection).data(1 << 20, false);
        }
        return { sentBytes: 3 << 20, dirtyBytes: world.random.below(2) << 20, tracked: true, ms: 30 };
      }),
    stop: (wire) =>
      process.step("stop", async () => {
        copy.owner = process;
        process.set(copy, "frozen");
        await world.sleep(10);
        if (!process.alive) return never;
        unlessStopped();
        await (wire as Connection).data(1 << 20, true);
      }),
    release: () =>
      process.step("release", () =>
        process.told(copy, 3, () => {
          copy.fate = "released";
          process.set(copy, "gone");
        }),
      ),
    thaw: () =>
      process.step("thaw", () => {
        stopped = true;
        if (copy.state === "frozen") process.set(copy, "running");
      }),
  };
}

/** init has done all it was told when it gives the lock. */
async function settled(world: World, copy: Copy): Promise<void> {
  while (copy.underWay > 0) await world.sleep(1);
}

export function modelFate(process: Process, id: string): Promise<PodFate> {
  const copy = process.world.copy(id);
  return process.step("fate", async () => {
    await settled(process.world, copy);
    return copy.fate;
  });
}

export function modelTarget(process: Process): TargetPods {
  const { world } = process;
  return {
    check: () =>
      process.step("check", async () => {
        await world.sleep(5);
        return { blockers: [], facts: {} };
      }),
    receive: (move) =>
      process.step("receive", () => {
        world.images.set(move, { complete: false });
        return { directoryFd: world.directories.push(move) - 1 };
      }),
    build: (move) =>
      process.step("build", async (): Promise<ParkedPod> => {
        await world.sleep(50);
        if (!process.alive) return never;
        if (!world.images.get(move)?.complete) throw new VirtError("ERR_IMAGE_DAMAGED", "the image is not whole");
        const id = `b${String(world.ids++).padStart(11, "0")}`;
        const copy: Copy = {
          id,
          host: "b",
          state: "parked",
          fate: "lost",
          owner: process,
          everRan: false,
          underWay: 0,
        };
        world.copies.push(copy);
        return {
          id,
          name: "pod",
          notes: [],
          commit: () =>
            process.step("commit", () =>
              process.told(copy, 3, () => {
                if (copy.state !== "parked") return;
                copy.owner = undefined;
                process.set(copy, "running");
              }),
            ),
          close: () =>
            process.step("close", () => {
              if (copy.state === "parked") process.set(copy, "gone");
            }),
        };
      }),
    ran: (id) =>
      process.step("ran", async () => {
        const copy = world.copy(id);
        // Of a living process the parked pod is its own, and it stays as it is.
        while (copy.underWay > 0 || (copy.state === "parked" && copy.owner && copy.owner !== process))
          await world.sleep(1);
        return copy.everRan;
      }),
    runs: (id) => process.step("runs", () => world.copies.some((c) => c.id === id && c.state === "running")),
    discard: (move) =>
      process.step("discard", () => {
        if (world.images.has(move)) world.log(`the image of ${move} is removed`);
        world.images.delete(move);
      }),
  };
}
