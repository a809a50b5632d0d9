import type { Command } from "commander";
import { type Effect, followJournal, readJournal, summarize } from "../../journal/journal.js";
import { podFromRecord } from "../../pod/pod.js";
import { podDirectory } from "../../pod/store.js";
import { latestOption, podArgument, recordNamed, verb } from "../options.js";
import { printable, printJson } from "../report.js";

/** `virt-run effects`: what a pod has done to the world outside it. */
export function command(): Command {
  return verb(
    "effects",
    "show what a pod that was launched with --record default has done outside: files, addresses, programs",
    "effects cache",
    "effects -f --json --latest",
    "effects --summary cache",
  )
    .argument("[pod]", podArgument)
    .option("-f, --follow", "go on as more comes, until the pod ends")
    .option("--summary", "each thing once: created, changed, removed, servers, ports, programs")
    .addOption(latestOption())
    .option("--json", "JSON lines; with --summary one document")
    .action(
      async (
        name: string | undefined,
        o: { latest?: boolean; follow?: boolean; summary?: boolean; json?: boolean },
      ) => {
        const pod = await podFromRecord(recordNamed(name, o.latest));
        const directory = podDirectory(pod.id);
        const show = (e: Effect) => process.stdout.write(`${o.json ? JSON.stringify(e) : printable(describe(e))}\n`);
        try {
          if (o.summary) {
            const summary = summarize(readJournal(directory));
            if (o.json) printJson({ summary });
            else process.stdout.write(describeSummary(summary));
          } else if (o.follow && pod.running) {
            for await (const e of followJournal(directory, pod.ended())) show(e);
          } else {
            readJournal(directory).forEach(show);
          }
        } finally {
          pod.disconnect();
        }
      },
    );
}

function describe(e: Effect): string {
  const what =
    e.kind === "rename"
      ? `${e.path} -> ${e.to}`
      : "address" in e
        ? `${e.address} port ${e.port}`
        : `${e.path}${e.kind === "mode" ? ` ${e.mode}` : e.kind === "owner" ? ` ${e.uid}:${e.gid}` : e.kind === "truncate" ? ` ${e.sizeBytes} bytes` : ""}`;
  return `${e.time.slice(11, 23)}  ${String(e.pid).padEnd(6)} ${e.kind.padEnd(8)} ${what}`;
}

function describeSummary(summary: ReturnType<typeof summarize>): string {
  const blocks = Object.entries(summary)
    .filter(([, list]) => list.length > 0)
    .map(([name, list]) => `${name}:\n${(list as string[]).map((item) => `  ${printable(item)}`).join("\n")}\n`);
  return blocks.length === 0 ? "nothing is recorded (virt-run run --record default records)\n" : blocks.join("");
}
