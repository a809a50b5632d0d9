import type { Command } from "commander";
import { podFromRecord } from "../../pod/pod.js";
import { parseRemaps } from "../../remap/path.js";
import { jsonOption, podArgument, recordNamed, verb } from "../options.js";
import { printJson } from "../report.js";

/** `virt-run remap`: what a running pod has is something else from now on. */
export function command(): Command {
  return verb(
    "remap",
    "give a running pod another file, port, address or directory in place of one that it has",
    "remap cache fd:2/1=/var/log/cache.log",
    "remap cache 'fd:*/0=/dev/null' port:5432=15432",
  )
    .argument("<pod>", podArgument)
    .argument("<rules...>", "path:OLD=NEW, port:OLD=NEW, addr:OLD=NEW, fd:PID/FD=TARGET (docs/interposer.md)")
    .addOption(jsonOption())
    .action(async (name: string, rules: string[], o: { json?: boolean }) => {
      const remap = parseRemaps(rules);
      const pod = await podFromRecord(recordNamed(name, undefined));
      try {
        await pod.remap(remap);
      } finally {
        pod.disconnect();
      }
      if (o.json) printJson({ pod: { id: pod.id, name: pod.name }, remap });
    });
}
