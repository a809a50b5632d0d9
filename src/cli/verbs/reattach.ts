import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Command, Option } from "commander";
import { unpackImage } from "../../image/archive.js";
import { native } from "../../native.js";
import type { Forward } from "../../pod/forward.js";
import { imagesDirectory } from "../../pod/paths.js";
import { planReattach, type ReattachOptions, type ReattachPlan, reattach } from "../../pod/reattach.js";
import { parseRemaps } from "../../remap/path.js";
import type { TcpPolicy } from "../../remap/tcp-policy.js";
import { parseRules } from "../../rules/rules.js";
import { exitWith } from "../execute.js";
import { collect, jsonOption, progressMode, verb, withProgress } from "../options.js";
import { ProgressReporter } from "../progress.js";
import { formatBytes, printable, printJson } from "../report.js";
import { catchSignals, standIn } from "../run-program.js";

interface Options {
  name?: string;
  detached?: boolean;
  remap?: string[];
  rule?: string[];
  allowChanged?: string[];
  tcp: TcpPolicy;
  forward: Forward;
  holder?: string;
  dryRun?: boolean;
  rm?: boolean;
  json?: boolean;
  progress: string;
  quiet?: boolean;
  detachKeys: string;
}

/** `virt-run reattach`: an image into a pod. */
export function command(): Command {
  const c = withProgress(
    verb(
      "reattach",
      "make a pod of an image again",
      "reattach cache.image -d",
      "reattach cache.image --remap path:/data=/mnt/data --dry-run",
    ),
  )
    .argument("<image>", "name (in the images directory) or path with a /; - for a tar on standard input")
    .option("--name <name>", "a name for the pod (default: the one it had)")
    .option("-d, --detached", "in the background; print the pod's id")
    .option("-i, --interactive", "accepted as docker's; standard input is always passed")
    .option("-t, --tty", "accepted as docker's; a pod keeps the terminal it had")
    .option(
      "--remap <rule>",
      "path:, port: or addr:OLD=NEW, fd:PID/FD=TARGET: what the pod knows as OLD is NEW here; repeatable",
      collect,
    )
    .option("--rule <file>", "other rules for its system calls, as JSON (docs/interposer.md); may be repeated", collect)
    .addOption(
      new Option(
        "--tcp <policy>",
        "connections to outside that nobody holds any more; repair: those with their state in the image are made though their address comes to this host later",
      )
        .choices(["hold", "close", "reconnect", "repair"])
        .default("hold"),
    )
    .addOption(
      new Option("--forward <what>", "what the old host leads here: connections, new clients too, or nothing")
        .choices(["established", "all", "none"])
        .default("established"),
    )
    .option(
      "--holder <address[:port]>",
      "where this host reaches who holds the pod's connections, if not where the image says",
    )
    .option("--allow-changed <path>", "accept a file that is not as the program left it; '*' for all", collect)
    .option("--dry-run", "check everything and show the plan, change nothing")
    .option("--rm", "forget the pod and its log when it has ended (not when it was detached)")
    .option("--detach-keys <keys>", "keys that leave the terminal; the program runs on", "ctrl-],d")
    .addOption(jsonOption());
  return c.action(async (name: string, o: Options) => {
    const reporter = new ProgressReporter(progressMode(o));
    const options: ReattachOptions = {
      remap: parseRemaps(o.remap ?? []),
      ...(o.rule === undefined
        ? {}
        : { rules: o.rule.flatMap((file) => parseRules(readFileSync(file, "utf8"), file)) }),
      allowChanged: o.allowChanged ?? [],
      tcp: o.tcp,
      forward: o.forward,
      ...(o.holder === undefined ? {} : { holder: o.holder }),
      stdio: o.detached ? "log" : "inherit",
      removeAtEnd: o.rm ?? false,
      onProgress: reporter.onProgress,
      ...(o.name === undefined ? {} : { name: o.name }),
    };
    // A streamed image is needed only until the pod stands.
    const streamed =
      name === "-"
        ? await unpackImage(process.stdin, join(imagesDirectory(), `.stdin.partial-${native.randomHex(4)}`))
        : undefined;
    if (o.dryRun) {
      const plan = await planReattach(streamed ?? name, options).finally(() => streamed?.remove());
      if (o.json) printJson({ plan });
      else process.stdout.write(describePlan(plan));
      return;
    }
    const start = performance.now();
    // Until the pod runs a signal stops the reattach; from then on it is the pod's.
    const stop = new AbortController();
    const signals = catchSignals(() => stop.abort());
    let pod: Awaited<ReturnType<typeof reattach>>;
    try {
      pod = await reattach(streamed ?? name, { ...options, signal: stop.signal });
    } finally {
      streamed?.remove();
      reporter.end();
    }
    const elapsedMs = Math.round(performance.now() - start);
    for (const note of pod.notes) process.stderr.write(`virt-run: ${note}\n`);
    if (o.detached) {
      pod.disconnect();
      if (o.json) printJson({ pod: { id: pod.id, name: pod.name, notes: pod.notes, elapsedMs } });
      else process.stdout.write(`${pod.id}\n`);
      return;
    }
    const terminal = pod.record.stdio === "terminal" && process.stdin.isTTY === true;
    if (terminal) signals(); // a viewer leaves, as ever
    exitWith(c, await standIn(pod, terminal, { detachKeys: o.detachKeys, signals }));
  });
}

function describePlan(plan: Awaited<ReturnType<typeof planReattach>>): string {
  const lines = [
    `${plan.image} would become pod ${plan.name}:`,
    ...plan.remaps.map((r) => `  remap    ${r.to} is ${r.from}`),
    ...plan.descriptors.map((d) => `  remap    descriptor ${d.pid}/${d.fd} becomes ${printable(String(d.target))}`),
    ...plan.processes.map(
      (p) =>
        `  process  ${p.pid} ${p.command}: ${p.threads} threads, ${p.mappings} mappings, ${p.fds} descriptors, ${formatBytes(p.memoryBytes)}`,
    ),
    `  handles  ${Object.entries(plan.handles)
      .map(([kind, n]) => `${n} ${kind}`)
      .join(", ")}`,
    ...plan.held.map(describeTaken),
    `  memory   ${formatBytes(plan.memoryBytes)}`,
    ...describeFiles(plan.files),
    `  tree     ${plan.tree.steps.map((s) => (s.op === "fork" ? `fork ${s.pid} by ${s.by === 0 ? "the seed" : s.by}` : `${s.op} ${s.pid}`)).join(", ")}`,
  ];
  return `${lines.join("\n")}\n`;
}

function describeTaken({ kind, socket, from, pid, fd }: ReattachPlan["held"][number]): string {
  const use = pid === undefined ? "" : ` (pid ${pid}, fd ${fd})`;
  return `  held     ${kind} ${printable(socket)}${use}: taken ${from === "here" ? "from its holder here" : `over from its holder at ${from}`}`;
}

function describeFiles(files: ReattachPlan["files"]): string[] {
  const shown = (paths: string[], what: string) => paths.map((p) => `  file     ${printable(p)}: ${what}`);
  return [
    ...(files.host.length > 0 ? [`  files    ${files.host.length} are here as they were`] : []),
    ...shown(files.carried, "carried"),
    ...shown(files.replaced, "carried, this host has another"),
    ...shown(files.conflicts, "in conflict: the pod sees its own, this host's stays as it is"),
    ...files.overlays.map((p) => `  overlay  ${printable(p)}: what the pod writes there goes to its own directory`),
  ];
}
