import type { Command } from "commander";
import { jsonOption, latestOption, podArgument, podsNamed, verb } from "../options.js";
import { printJson } from "../report.js";

/** `virt-run rm`: forgets pods that have ended. */
export function command(): Command {
  return verb("rm", "forget pods that have ended: their record and log", "rm cache", "rm -f --latest")
    .argument("[pods...]", podArgument)
    .option("-f, --force", "kill what still runs first, and close what a detached pod holds")
    .addOption(latestOption())
    .addOption(jsonOption())
    .action(async (names: string[], o: { force?: boolean; latest?: boolean; json?: boolean }) => {
      const pods: object[] = [];
      for (const pod of await podsNamed(names, o.latest)) {
        if (o.force) await pod.destroy();
        pod.disconnect();
        pod.remove({ force: o.force ?? false });
        if (o.json) pods.push({ id: pod.id, name: pod.name });
        else process.stdout.write(`${pod.name}\n`);
      }
      if (o.json) printJson({ pods });
    });
}
