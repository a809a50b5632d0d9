import type { Command } from "commander";
import { connect } from "../../pod/list.js";
import { jsonOption, latestOption, podNamed, verb } from "../options.js";
import { printJson } from "../report.js";

/** `virt-run kill`: a signal to a pod's first program, or to POD:PID. */
export function command(): Command {
  return verb(
    "kill",
    "send a signal to a pod's first program, or to one of its processes",
    "kill cache",
    "kill -s HUP cache:7",
  )
    .argument("[pods...]", "POD, or POD:PID for one of its processes (the pod's own pid)")
    .option("-s, --signal <signal>", "its name or number", "KILL")
    .addOption(latestOption())
    .addOption(jsonOption())
    .action(async (names: string[], o: { signal: string; latest?: boolean; json?: boolean }) => {
      const pods: object[] = [];
      const targets = names.length > 0 ? names : [undefined];
      for (const target of targets) {
        const [, name, pid] = /^(.*?)(?::(\d+))?$/.exec(target ?? "") as unknown as [
          string,
          string,
          string | undefined,
        ];
        const pod = target === undefined ? await podNamed(undefined, o.latest) : await connect(name);
        await pod.kill(o.signal as NodeJS.Signals, pid === undefined ? {} : { pid: Number(pid) });
        pod.disconnect();
        pods.push({ id: pod.id, name: pod.name, signal: o.signal, ...(pid === undefined ? {} : { pid: Number(pid) }) });
      }
      if (o.json) printJson({ pods });
    });
}
