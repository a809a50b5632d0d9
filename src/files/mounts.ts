/**
 * What is mounted where on this host, as a pod with these rules would see it.
 */
import { readFileSync } from "node:fs";
import type { PathRemap } from "../pod/store.js";

/** True if `path` lies below `directory`, and is not it. */
export function isBelow(path: string, directory: string): boolean {
  return directory === "/" ? path !== "/" : path.startsWith(`${directory}/`);
}

/** Every mount point (proc_pid_mountinfo(5)), those that come with a rule's source and those of the rules themselves. */
export function mountPoints(remaps: readonly PathRemap[]): string[] {
  const here = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .flatMap((line) => {
      const point = line.split(" ")[4];
      return point === undefined
        ? []
        : [point.replace(/\\([0-7]{3})/g, (_, n: string) => String.fromCharCode(Number.parseInt(n, 8)))];
    });
  const brought = remaps.flatMap(({ from, to }) =>
    here.filter((p) => isBelow(p, from)).map((p) => to + p.slice(from.length)),
  );
  return [...here, ...brought, ...remaps.map((r) => r.to)];
}
