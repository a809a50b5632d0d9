/**
 * Options that several verbs share.
 */
import { Command, InvalidArgumentError, Option } from "commander";
import { VirtError } from "../errors.js";
import { connect, connectLatest } from "../pod/list.js";
import type { Pod } from "../pod/pod.js";
import { findRecord, latestRecord, type PodRecord } from "../pod/store.js";
import type { ProgressMode } from "./progress.js";

/** A verb's command, with what all have in common. The examples come last in its help. */
export function verb(name: string, summary: string, ...examples: string[]): Command {
  return new Command(`virt-run ${name}`)
    .description(summary)
    .helpOption("-h, --help", "show this")
    .addHelpText("after", `\nExamples:\n${examples.map((e) => `  virt-run ${e}`).join("\n")}`)
    .allowExcessArguments(false);
}

/** What stands for a pod on the command line. */
export const podArgument = "name, id or unique prefix of either";

export const jsonOption = () => new Option("--json", "one JSON document on standard output");
export const latestOption = () => new Option("-l, --latest", "the pod that was made last, instead of a name");

export function withProgress(command: Command): Command {
  return command
    .addOption(
      new Option("--progress <mode>", "how to show progress: auto is a line on a terminal, plain elsewhere")
        .choices(["auto", "plain", "json", "none"])
        .default("auto"),
    )
    .option("-q, --quiet", "show no progress and no summary");
}

export function progressMode(options: { progress?: string; quiet?: boolean }): ProgressMode {
  return options.quiet ? "none" : ((options.progress ?? "auto") as ProgressMode);
}

/** The pod named on the command line, or the latest with -l. */
export function podNamed(name: string | undefined, latest: boolean | undefined): Promise<Pod> {
  if (name !== undefined && latest) throw new VirtError("ERR_USAGE", "name a pod or say --latest, not both");
  if (name === undefined && !latest) throw new VirtError("ERR_USAGE", "which pod? name one, or say --latest");
  return name === undefined ? connectLatest() : connect(name);
}

export function recordNamed(name: string | undefined, latest: boolean | undefined): PodRecord {
  if (name === undefined && !latest) throw new VirtError("ERR_USAGE", "which pod? name one, or say --latest");
  return name === undefined ? latestRecord() : findRecord(name);
}

/** Pods of a verb that takes several. */
export async function podsNamed(names: string[], latest: boolean | undefined): Promise<Pod[]> {
  if (names.length === 0) return [await podNamed(undefined, latest)];
  return Promise.all(names.map((name) => connect(name)));
}

export function collect(value: string, before: string[] | undefined): string[] {
  return [...(before ?? []), value];
}

export function seconds(value: string): number {
  const n = Number(value);
  if (!Number.isFinite(n) || n < 0) throw new InvalidArgumentError("expected a number of seconds");
  return n;
}
