import type { Command } from "commander";
import { latestOption, podArgument, podsNamed, verb } from "../options.js";

/** `virt-run rm`: forgets pods that have ended. */
export function command(): Command {
  return verb("rm", "forget pods that have ended: their record and log", "rm cache", "rm -f --latest")
    .argument("[pods...]", podArgument)
    .option("-f, --force", "kill what still runs first")
    .addOption(latestOption())
    .action(async (names: string[], o: { force?: boolean; latest?: boolean }) => {
      for (const pod of await podsNamed(names, o.latest)) {
        if (o.force) await pod.destroy();
        pod.disconnect();
        pod.remove();
        process.stdout.write(`${pod.name}\n`);
      }
    });
}
