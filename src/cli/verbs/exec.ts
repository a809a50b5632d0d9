import type { Command } from "commander";
import { connect } from "../../pod/list.js";
import { exitWith } from "../execute.js";
import { collect, podArgument, verb } from "../options.js";
import { exitCodeOf } from "../run-program.js";
import { environment } from "./run.js";

/** `virt-run exec`: another program in a pod. */
export function command(): Command {
  const c = verb(
    "exec",
    "run another program in a pod",
    "exec cache redis-cli -p 7000 ping",
    "exec -e TERM=xterm cache bash",
  )
    .argument("<pod>", podArgument)
    .argument("<command...>", "the program and its arguments")
    .option("-i, --interactive", "accepted as docker's; standard input is always passed")
    .option("-t, --tty", "give it a terminal (automatic when standard input and output are one); ctrl-] d leaves it")
    .option("-e, --env <KEY[=VALUE]>", "set an environment variable; ours are passed on; may be repeated", collect)
    .option("-w, --workdir <dir>", "working directory, as the pod sees it (default: the pod's)")
    .passThroughOptions();
  return c.action(async (name: string, words: string[], o: { tty?: boolean; env?: string[]; workdir?: string }) => {
    const pod = await connect(name);
    const [program, ...args] = words as [string, ...string[]];
    const terminal = o.tty ?? (process.stdin.isTTY === true && process.stdout.isTTY === true);
    // What a program that is done at once shows, and its end, must find their viewer.
    const viewer = terminal ? await import("../../terminal/viewer.js") : undefined;
    let viewing: Promise<unknown> | undefined;
    let ended = () => {};
    const until = new Promise<void>((resolve) => {
      ended = resolve;
    });
    const session = await pod.exec(program, args, {
      env: environment(o.env),
      ...(o.workdir === undefined ? {} : { cwd: o.workdir }),
      ...(viewer
        ? {
            view: (connection) => {
              viewing = viewer.view(connection, { attach: false, until });
              viewing.catch(() => {}); // told below, unless the program cannot be started
            },
          }
        : {}),
      ...(terminal
        ? { stdio: "terminal", rows: process.stdout.rows ?? 24, columns: process.stdout.columns ?? 80 }
        : { stdio: "inherit" }),
    });
    if (terminal) {
      void session.wait().then(ended);
      if ((await viewing) === "left") {
        process.stderr.write(`virt-run: left pid ${session.pid} of ${pod.name}, which runs on
`);
        session.close();
        pod.disconnect();
        return;
      }
    } else {
      for (const signal of ["SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP"] as const) {
        process.on(signal, () => void pod.kill(signal, { pid: session.pid, group: true }).catch(() => {}));
      }
    }
    exitWith(c, exitCodeOf(await session.wait(), pod.name));
    session.close();
    pod.disconnect();
  });
}
