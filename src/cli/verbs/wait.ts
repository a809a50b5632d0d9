import type { Command } from "commander";
import { jsonOption, latestOption, podArgument, podsNamed, verb } from "../options.js";
import { printJson } from "../report.js";
import { exitCodeOf } from "../run-program.js";

/** `virt-run wait`: waits for pods' first programs and prints their exit codes. */
export function command(): Command {
  return verb("wait", "wait for pods' first programs to end and print their exit codes, a line each", "wait cache")
    .argument("[pods...]", podArgument)
    .addOption(latestOption())
    .addOption(jsonOption())
    .action(async (names: string[], o: { latest?: boolean; json?: boolean }) => {
      const pods: object[] = [];
      for (const pod of await podsNamed(names, o.latest)) {
        const exit = await pod.wait();
        if (o.json) pods.push({ id: pod.id, name: pod.name, exit });
        else process.stdout.write(`${exitCodeOf(exit, pod.name, pod.record.movedTo?.target)}\n`);
        pod.disconnect();
      }
      if (o.json) printJson({ pods });
    });
}
