import type { Command } from "commander";
import { jsonOption, latestOption, podArgument, podsNamed, seconds, verb } from "../options.js";
import { printJson } from "../report.js";

/** `virt-run stop`: SIGTERM, and after a time everything is killed. */
export function command(): Command {
  return verb(
    "stop",
    "end pods: SIGTERM to the first program, then everything is killed",
    "stop cache",
    "stop -t 2 cache web",
  )
    .argument("[pods...]", podArgument)
    .option("-t, --time <seconds>", "how long to wait before killing, in seconds", seconds, 10)
    .addOption(latestOption())
    .addOption(jsonOption())
    .action(async (names: string[], o: { time: number; latest?: boolean; json?: boolean }) => {
      const pods = await podsNamed(names, o.latest);
      const exits = await Promise.all(pods.map((pod) => pod.stop({ timeoutMs: o.time * 1000 })));
      if (o.json) printJson({ pods: pods.map((pod, i) => ({ id: pod.id, name: pod.name, exit: exits[i] })) });
      else for (const pod of pods) process.stdout.write(`${pod.name}\n`);
    });
}
