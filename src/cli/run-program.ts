/**
 * `virt-run PROGRAM`: launches it in a pod and stands in for it: streams, terminal, signals, window size, exit code.
 */

import { VirtError } from "../errors.js";
import { native } from "../native.js";
import { type LaunchOptions, launch } from "../pod/launch.js";
import type { Pod } from "../pod/pod.js";
import { type Exit, loadRecord } from "../pod/store.js";
import { printable } from "./report.js";

export interface RunOptions extends Omit<LaunchOptions, "stdio"> {
  background?: boolean;
  terminal?: boolean;
  interactive?: boolean;
  detachKeys?: string;
  statusFd?: number;
}

/** Launches and waits; gives the program's exit code, 128+n for a signal, 125 if the pod was taken away. */
export async function runProgram(words: string[], options: RunOptions): Promise<number> {
  const [command, ...args] = words;
  if (command === undefined) throw new VirtError("ERR_USAGE", "which program?");
  // Not process.stdin.isTTY: making the streams takes longer than looking.
  const onTerminal = native.isTerminal(0) && native.isTerminal(1);
  const terminal = options.terminal ?? (onTerminal && !options.background);
  const { background, terminal: _t, interactive, detachKeys, statusFd, ...rest } = options;
  // From before the program runs: what is sent to us from then on is for it.
  const signals = terminal || background ? undefined : catchSignals();
  // A program may be done before a module is loaded: what it shows must find its viewer.
  const viewer = terminal ? await import("../terminal/viewer.js") : undefined;
  let viewing: Promise<"ended" | "left"> | undefined;
  const pod = await launch(command, args, {
    ...rest,
    stdio: terminal ? "terminal" : background ? "log" : "inherit",
    keepInput: interactive ?? false,
    ...(viewer
      ? {
          view: (connection) => {
            viewing = viewer.view(connection, { detachKeys, attach: false });
            viewing.catch(() => {}); // told below, unless the launch itself fails
          },
        }
      : {}),
    ...(terminal ? { rows: process.stdout.rows ?? 24, columns: process.stdout.columns ?? 80 } : {}),
  });
  await reportStatus(statusFd, { event: "started", id: pod.id, name: pod.name });
  if (background) {
    pod.disconnect();
    process.stdout.write(`${pod.id}\n`);
    return 0;
  }
  return standIn(pod, terminal, { detachKeys, statusFd, signals, viewing });
}

/** Waits for a pod in the foreground, with its terminal shown here if it has one. */
export async function standIn(
  pod: Pod,
  terminal: boolean,
  {
    detachKeys,
    statusFd,
    signals,
    viewing,
  }: {
    detachKeys?: string | undefined;
    statusFd?: number | undefined;
    signals?: ReturnType<typeof catchSignals> | undefined;
    viewing?: Promise<"ended" | "left"> | undefined;
  },
): Promise<number> {
  let left = false;
  if (terminal) {
    const { view } = await import("../terminal/viewer.js");
    // One that was there before has drawn its screen, and must do so again.
    viewing ??= pod.running ? view(pod.connection, { detachKeys, attach: true, redraw: true }) : undefined;
    left = (await viewing) === "left";
  } else {
    (signals ?? catchSignals())(pod);
  }
  if (left) {
    process.stderr.write(`virt-run: left ${pod.name}, which runs on (virt-run attach ${pod.name})\n`);
    pod.disconnect();
    return 0;
  }
  const exit = await pod.wait();
  if (exit.detached) {
    const movedTo = loadRecord(pod.id)?.movedTo;
    const event = movedTo ? { event: "moved", id: pod.id, target: movedTo.target } : { event: "detached", id: pod.id };
    await reportStatus(statusFd, event);
  } else {
    await reportStatus(statusFd, { event: "exited", id: pod.id, code: exit.code, signal: exit.signal });
  }
  // Others of its processes may live on; nobody waits for them here.
  if (pod.record.removeAtEnd) await pod.ended();
  pod.disconnect();
  return exitCodeOf(exit, pod.name, loadRecord(pod.id)?.movedTo?.target);
}

export function exitCodeOf(exit: Exit, name: string, movedTo?: string): number {
  if (exit.code !== null) return exit.code;
  if (exit.signal !== null) return 128 + (process.getBuiltinModule("node:os").constants.signals[exit.signal] ?? 0);
  process.stderr.write(
    movedTo !== undefined
      ? `virt-run: the pod ${name} was moved to ${printable(movedTo)}, and runs there\n`
      : exit.detached
        ? `virt-run: the pod ${name} was detached; \`virt-run reattach\` brings it back\n`
        : `virt-run: the pod ${name} is gone, and nobody wrote down how it ended\n`,
  );
  return 125;
}

/**
 * Without a terminal of its own the program is in another session than we are: what the user's terminal or shell sends
 * to us is meant for it. Interrupts go to its whole process group, as a terminal's would. What comes before there is a
 * pod is told to `onEarly` and waits for the function that this gives; without a pod that one stops catching.
 */
export function catchSignals(onEarly: () => void = () => {}): (pod?: Pod) => void {
  const toGroup: NodeJS.Signals[] = ["SIGINT", "SIGQUIT"];
  const toProgram: NodeJS.Signals[] = ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGALRM"];
  const early: (() => void)[] = [];
  let pod: Pod | undefined;
  const pass = (signal: NodeJS.Signals, group: boolean) => {
    if (pod) void pod.kill(signal, { group }).catch(() => {});
    else {
      early.push(() => pass(signal, group));
      onEarly();
    }
  };
  const handlers = new Map<NodeJS.Signals, () => void>();
  for (const signal of toGroup) handlers.set(signal, () => pass(signal, true));
  for (const signal of toProgram) handlers.set(signal, () => pass(signal, false));
  for (const [signal, handler] of handlers) process.on(signal, handler);
  return (launched) => {
    pod = launched;
    if (!pod) for (const [signal, handler] of handlers) process.off(signal, handler);
    for (const again of early) again();
  };
}

async function reportStatus(fd: number | undefined, event: Record<string, unknown>): Promise<void> {
  if (fd === undefined) return;
  const { writeSync } = process.getBuiltinModule("node:fs");
  writeSync(fd, `${JSON.stringify({ ...event, time: new Date().toISOString() })}\n`);
}
