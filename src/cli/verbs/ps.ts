import type { Command } from "commander";
import { VirtError } from "../../errors.js";
import { describeHolding } from "../../pod/holder.js";
import { processesOf } from "../../pod/inspect.js";
import { list, type PodSummary } from "../../pod/list.js";
import { loadRecord, tryConnect } from "../../pod/store.js";
import { collect, jsonOption, verb } from "../options.js";
import { formatAge, formatCommand, printable, printJson, table } from "../report.js";

/** `virt-run ps`: pods. */
export function command(): Command {
  return verb("ps", "list pods", "ps -a", "ps --filter state=exited -aq")
    .option("-a, --all", "also those that have ended")
    .option("-q, --quiet", "ids only")
    .option(
      "--filter <key=value>",
      "only pods whose name, state or label KEY is VALUE; may be repeated, all must hold",
      collect,
    )
    .addOption(jsonOption())
    .action(async (o: { all?: boolean; quiet?: boolean; filter?: string[]; json?: boolean }) => {
      const pods = (await list({ all: o.all ?? false })).filter((p) => (o.filter ?? []).every((f) => matches(p, f)));
      if (o.quiet) {
        for (const p of pods) process.stdout.write(`${p.id}\n`);
        return;
      }
      const rows = pods.map((p) => ({
        ...p,
        processes: countProcesses(p),
        ageMs: Date.now() - Date.parse(p.createdAt),
      }));
      if (o.json) {
        printJson({ pods: rows });
        return;
      }
      process.stdout.write(
        `${table(
          ["ID", "NAME", "STATE", "COMMAND", "PROCESSES", "AGE"],
          rows.map((p) => [
            p.id,
            p.name,
            stateText(p),
            formatCommand(p.command, 40),
            String(p.processes),
            formatAge(p.ageMs),
          ]),
        )}\n`,
      );
    });
}

function stateText({ state, movedTo, holding }: PodSummary): string {
  const doubt = state === "moving" && movedTo !== undefined ? ", in doubt" : "";
  const where = movedTo === undefined ? state : `${state} to ${printable(movedTo)}${doubt}`;
  return holding ? `${where}, ${describeHolding(holding)}` : where;
}

function countProcesses(p: PodSummary): number {
  const record = p.state === "running" || p.state === "moving" ? loadRecord(p.id) : undefined;
  const connection = record && tryConnect(record.socket);
  if (!connection) return 0;
  const count = processesOf(connection.initPid).length;
  connection.close();
  return count;
}

function matches(p: PodSummary, filter: string): boolean {
  const [key, ...rest] = filter.split("=");
  const value = rest.join("=");
  if (key === undefined || rest.length === 0) throw new VirtError("ERR_USAGE", `'${filter}' is no filter: KEY=VALUE`);
  return key === "name" ? p.name === value : key === "state" ? p.state === value : p.labels[key] === value;
}
