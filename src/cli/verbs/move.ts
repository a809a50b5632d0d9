import { type Command, InvalidArgumentError, Option } from "commander";
import { VirtError } from "../../errors.js";
import type { WithFiles } from "../../files/collect.js";
import { checkMove, type MoveOptions, resumeMove } from "../../move/move.js";
import type { MoveProgress } from "../../move/source.js";
import { parseRemaps } from "../../remap/path.js";
import { parseTcp } from "../../remap/tcp-policy.js";
import { exitWith } from "../execute.js";
import {
  collect,
  jsonOption,
  latestOption,
  podArgument,
  podNamed,
  progressMode,
  recordNamed,
  seconds,
  verb,
  withProgress,
} from "../options.js";
import { type ProgressMode, ProgressReporter } from "../progress.js";
import { formatBytes, printJson, tellBlockers } from "../report.js";

interface Options {
  live?: boolean;
  cold?: boolean;
  downtime?: number;
  bandwidth?: number;
  name?: string;
  remap?: string[];
  tcp?: string[];
  holdAt?: string;
  holder?: string;
  forward?: "established" | "all" | "none";
  cutLimit?: number;
  drop?: string[];
  withFiles?: WithFiles;
  allowChanged?: string[];
  remoteCommand?: string;
  resume?: boolean;
  dryRun?: boolean;
  latest?: boolean;
  json?: boolean;
  progress: string;
  quiet?: boolean;
}

/** `virt-run move`: a running pod to another host. */
export function command(): Command {
  const c = withProgress(
    verb(
      "move",
      "move a running pod to another host; it runs on here if anything fails",
      "move cache ssh://b",
      "move cache user@b: --cold --remap path:/data=/mnt/data",
      "move --resume cache",
    ),
  )
    .argument("[pod]", podArgument)
    .argument("[target]", "ssh://[user@]host[:port], [user@]host:, tls://host:port, or unix:PATH")
    .option("--cold", "stop it first, and copy then")
    .option("--downtime <ms>", "how long it may stand still, if what it writes allows it (default: 300)", wholeNumber)
    .option("--bandwidth <bytes>", "the most to be sent in a second", wholeNumber)
    .option("--name <name>", "a name for it there (default: the one it has)")
    .option("--remap <rule>", "path:, port: or addr:OLD=NEW: what it knows as OLD is NEW there; repeatable", collect)
    .option(
      "--tcp <policy>",
      "connections to outside: hold, close, or reconnect, as detach takes it; repeatable",
      collect,
    )
    .option(
      "--hold-at <address[:port]>",
      "where the target reaches this host, which keeps its connections (default: as it does now)",
    )
    .addOption(
      new Option(
        "--forward <which>",
        "what this host goes on doing for it: live connections, new clients too, or nothing",
      ).choices(["established", "all", "none"]),
    )
    .option("--holder <address:port>", "the same, as the target sees it")
    .option(
      "--cut-limit <seconds>",
      "how long the way between the two may be cut before connections are reset",
      seconds,
    )
    .option("--drop <kind>", "accept the loss of a kind of handle (as check names it); may be repeated", collect)
    .addOption(
      new Option("--with-files <which>", "files to carry beside those that are missing there").choices([
        "none",
        "written",
        "all",
      ]),
    )
    .option("--allow-changed <path>", "accept a file that is another one there; '*' for all", collect)
    .option("--remote-command <command>", "virt-run there, as its shell takes it (ssh://)")
    .option("--dry-run", "check everything here and there, change nothing; exit 1 if something stands in the way")
    .option("--resume", "settle a move that was cut: afterwards it runs there, or here")
    .addOption(latestOption())
    .addOption(jsonOption())
    .action(async (name: string | undefined, target: string | undefined, o: Options) => {
      if (o.resume) return await resume(name, o);
      exitWith(
        c,
        await move(
          o.latest && target === undefined ? undefined : name,
          o.latest && target === undefined ? name : target,
          o,
        ),
      );
    });
  return c;
}

function wholeNumber(value: string): number {
  const n = Number(value);
  if (!Number.isSafeInteger(n) || n <= 0) throw new InvalidArgumentError("expected a whole number");
  return n;
}

async function move(name: string | undefined, target: string | undefined, o: Options): Promise<number> {
  if (target === undefined) throw new VirtError("ERR_USAGE", "where to? say ssh://host, host:, or tls://host:port");
  const pod = await podNamed(name, o.latest);
  if (!pod.running) throw new VirtError("ERR_POD_GONE", `the pod ${pod.name} has ended`);
  const { fd, ...remap } = parseRemaps(o.remap ?? []);
  if (fd !== undefined && Object.keys(fd).length > 0)
    throw new VirtError(
      "ERR_USAGE",
      "fd: rules need the other host's descriptors: say them there, with `virt-run remap`",
    );
  const reporter = new MoveReporter(progressMode(o));
  const abort = new AbortController();
  process.once("SIGINT", () => abort.abort());
  process.once("SIGTERM", () => abort.abort());
  const options: MoveOptions = {
    ...parseTcp(o.tcp ?? []),
    drop: o.drop ?? [],
    live: !o.cold,
    signal: abort.signal,
    ...(o.downtime !== undefined && { downtimeMs: o.downtime }),
    ...(o.bandwidth !== undefined && { bandwidth: o.bandwidth }),
    ...(o.holdAt !== undefined && { holdAt: o.holdAt }),
    ...(o.cutLimit !== undefined && { cutLimitMs: Math.round(o.cutLimit * 1000) }),
    ...(o.withFiles !== undefined && { withFiles: o.withFiles }),
    ...(o.remoteCommand !== undefined && { remoteCommand: o.remoteCommand }),
    arrival: {
      ...(o.name !== undefined && { name: o.name }),
      ...(o.holder !== undefined && { holder: o.holder }),
      ...(o.forward !== undefined && { forward: o.forward }),
      ...(o.allowChanged && { allowChanged: o.allowChanged }),
      ...(Object.keys(remap).length > 0 && { remap: remap as NonNullable<MoveOptions["arrival"]>["remap"] & object }),
    },
    onProgress: reporter.onProgress,
  };
  if (o.dryRun) {
    const blockers = await checkMove(pod, target, options);
    pod.disconnect();
    tellBlockers(pod.name, blockers, o.json);
    return blockers.length === 0 ? 0 : 1;
  }
  const moved = await pod.move(target, options).finally(() => reporter.end());
  pod.disconnect();
  for (const note of moved.notes) if (!o.quiet) console.error(`virt-run: ${note}`);
  if (o.json) {
    printJson({
      pod: pod.id,
      name: pod.name,
      target: moved.target,
      there: moved.pod,
      epoch: moved.epoch,
      stoppedMs: Math.round(moved.stoppedMs ?? 0),
    });
  } else if (!o.quiet) {
    console.error(
      `virt-run: ${pod.name} runs at ${moved.target} as ${moved.pod?.id ?? "?"}; it stood still for ${Math.round(moved.stoppedMs ?? 0)} ms`,
    );
  }
  return 0;
}

/** A line for every phase and round, and what --progress says in between. */
class MoveReporter {
  readonly #mode: ProgressMode;
  readonly #reporter: ProgressReporter;
  #last = "";

  constructor(mode: ProgressMode) {
    this.#mode = mode;
    this.#reporter = new ProgressReporter(mode);
  }

  readonly onProgress = (progress: MoveProgress): void => {
    if (this.#mode === "none") return;
    if (this.#mode === "json") {
      process.stderr.write(`${JSON.stringify(progress)}\n`);
      return;
    }
    const { phase, round, sentBytes, roundBytes, totalBytes, dirtyBytes, bytesPerSecond, expectedStopMs } = progress;
    const line =
      phase !== "copy"
        ? phase
        : expectedStopMs === 0
          ? "copy"
          : `copy: ${dirtyBytes} ${bytesPerSecond} ${expectedStopMs}`;
    if (line === this.#last) {
      this.#reporter.onProgress({
        phase: `copy, round ${round}`,
        doneBytes: Math.min(roundBytes, totalBytes),
        totalBytes,
      });
      return;
    }
    this.#last = line;
    const summary = `copy: ${formatBytes(sentBytes)} sent, ${formatBytes(dirtyBytes)} written meanwhile, ${formatBytes(bytesPerSecond)}/s, a stop would take ${expectedStopMs} ms`;
    this.#reporter.end();
    process.stderr.write(`virt-run: ${line.includes(":") ? summary : line}\n`);
  };

  end(): void {
    this.#reporter.end();
  }
}

async function resume(name: string | undefined, o: Options): Promise<void> {
  const record = recordNamed(name, o.latest);
  const settled = await resumeMove(record.id, o.remoteCommand === undefined ? {} : { remoteCommand: o.remoteCommand });
  if (o.json) {
    printJson(
      settled.state === "moved"
        ? { state: "moved", target: settled.moved.target, there: settled.moved.pod }
        : { state: "abandoned", pod: settled.fate },
    );
  } else if (!o.quiet) {
    console.error(
      settled.state === "moved"
        ? `virt-run: ${record.name} runs at ${settled.moved.target}${settled.moved.pod ? ` as ${settled.moved.pod.id}` : ", or has gone on from there"}`
        : `virt-run: ${record.name} never left${settled.fate === "runs" ? "; it runs here" : ""}`,
    );
  }
}
