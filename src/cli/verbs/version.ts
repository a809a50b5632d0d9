import type { Command } from "commander";
import { version } from "../../version.js";
import { jsonOption, verb } from "../options.js";
import { printJson } from "../report.js";

/** `virt-run version`. */
export function command(): Command {
  return verb("version", "show the version", "version")
    .addOption(jsonOption())
    .action((o: { json?: boolean }) => {
      if (o.json) printJson({ version });
      else process.stdout.write(`virt-run ${version}\n`);
    });
}
