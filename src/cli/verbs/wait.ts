import type { Command } from "commander";
import { latestOption, podArgument, podsNamed, verb } from "../options.js";
import { exitCodeOf } from "../run-program.js";

/** `virt-run wait`: waits for pods' first programs and prints their exit codes. */
export function command(): Command {
  return verb("wait", "wait for pods' first programs to end and print their exit codes, a line each", "wait cache")
    .argument("[pods...]", podArgument)
    .addOption(latestOption())
    .action(async (names: string[], o: { latest?: boolean }) => {
      for (const pod of await podsNamed(names, o.latest)) {
        process.stdout.write(`${exitCodeOf(await pod.wait(), pod.name)}\n`);
        pod.disconnect();
      }
    });
}
