import type { Command } from "commander";
import { type Effect, followJournal, lostLines, readJournal, summarize } from "../../journal/journal.js";
import { podFromRecord } from "../../pod/pod.js";
import { podDirectory } from "../../pod/store.js";
import { latestOption, podArgument, recordNamed, verb } from "../options.js";
import { printable, printJson } from "../report.js";

/** `virt-run effects`: what a pod has done to the world outside it. */
export function command(): Command {
  return verb(
    "effects",
    "show what a pod has done outside: files, addresses, programs (unless launched with --record none)",
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
          if (!o.summary && !o.json) process.stdout.write("TIME          PID    HOST PID KIND     WHAT\n");
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
  const pids = `${String(e.pid).padEnd(6)} ${String(e.hostPid ?? "-").padEnd(8)}`;
  const asked = e.asked === undefined ? "" : ` (asked for ${e.asked})`;
  const result = e.result === "ok" || e.kind === "lost" ? "" : `: ${e.result}`;
  return `${e.time.slice(11, 23)}  ${pids} ${e.kind.padEnd(8)} ${object(e)}${asked}${result}`;
}

function object(e: Effect): string {
  if (e.kind === "kill") return `${e.target} signal ${e.signal}`;
  if (e.kind === "socket") return "";
  if (e.kind === "lost") return lostLines(e);
  if ("address" in e) return `${e.address} port ${e.port}`;
  switch (e.kind) {
    case "rename":
      return `${e.path} -> ${e.to}`;
    case "mode":
      return `${e.path} ${e.mode}`;
    case "owner":
      return `${e.path} ${e.uid}:${e.gid}`;
    case "truncate":
      return `${e.path} ${e.sizeBytes} bytes`;
    default:
      return e.path;
  }
}

function describeSummary(summary: ReturnType<typeof summarize>): string {
  const blocks = Object.entries(summary)
    .filter(([, list]) => list.length > 0)
    .map(([name, list]) => `${name}:\n${(list as string[]).map((item) => `  ${printable(item)}`).join("\n")}\n`);
  return blocks.length === 0 ? "nothing is recorded\n" : blocks.join("");
}
