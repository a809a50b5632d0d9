import type { Command } from "commander";
import { VirtError } from "../../errors.js";
import { verb } from "../options.js";
import { aliases, type Verb, verbs } from "../verbs.js";

/** `virt-run help`: all verbs, or one. */
export function command(): Command {
  return verb("help", "show how to use virt-run, or one of its verbs", "help reattach")
    .argument("[verb]", "the verb")
    .action(async (name?: string) => {
      if (name !== undefined) {
        const known = Object.hasOwn(verbs, name) ? (name as Verb) : aliases[name];
        if (known === undefined) throw new VirtError("ERR_USAGE", `there is no verb '${name}'`);
        (await verbs[known]()).command().outputHelp();
        return;
      }
      const lines = await Promise.all(
        Object.entries(verbs).map(async ([v, load]) => `  ${v.padEnd(12)}${(await load()).command().description()}`),
      );
      process.stdout.write(
        `virt-run makes running programs movable.

usage: virt-run [options] [--] command [args…]     launch a program in a pod
       virt-run VERB …

${lines.join("\n")}

A pod is named by its --name, its id, a unique prefix of either, or -l for the latest.
virt-run help VERB shows a verb's options.
`,
      );
    });
}
