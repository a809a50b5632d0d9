import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { podFromRecord } from "../../pod/pod.js";
import { parseRules, type Rule } from "../../rules/rules.js";
import { collect, jsonOption, latestOption, podArgument, recordNamed, verb } from "../options.js";
import { printable, printJson } from "../report.js";

/** `virt-run rules`: shows a pod's rules, or gives it others. */
export function command(): Command {
  return verb(
    "rules",
    "show what becomes of a pod's system calls, or change it while it runs",
    "rules cache",
    "rules cache --set rules.json",
  )
    .argument("[pod]", podArgument)
    .option("--set <file>", "these rules in place of the pod's own (docs/interposer.md); may be repeated", collect)
    .option("--clear", "no rules of the user's own any more")
    .addOption(latestOption())
    .addOption(jsonOption())
    .action(
      async (name: string | undefined, o: { set?: string[]; clear?: boolean; latest?: boolean; json?: boolean }) => {
        const record = recordNamed(name, o.latest);
        let rules: readonly Rule[] = record.rules ?? [];
        if (o.set || o.clear) {
          const pod = await podFromRecord(record);
          rules = (o.set ?? []).flatMap((file) => parseRules(readFileSync(file, "utf8"), file));
          try {
            await pod.setRules(rules);
          } finally {
            pod.disconnect();
          }
        }
        const { ports = {}, addresses = {} } = record;
        if (o.json) printJson({ rules, ports, addresses });
        else process.stdout.write(`${describe(rules, ports, addresses).join("\n")}\n`);
      },
    );
}

function describe(rules: readonly Rule[], ports: Record<string, number>, addresses: Record<string, string>): string[] {
  const lines = [
    ...rules.map((rule, i) => `${String(i + 1).padEnd(3)} ${printable(JSON.stringify(rule))}`),
    ...Object.entries(ports).map(([old, now]) => `port ${old} is ${now} here`),
    ...Object.entries(addresses).map(([old, now]) => `address ${old} is ${now} here`),
  ];
  return lines.length > 0 ? lines : ["no rules"];
}
