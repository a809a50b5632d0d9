import type { Command } from "commander";
import { processesOf } from "../../pod/inspect.js";
import { jsonOption, latestOption, podArgument, podNamed, verb } from "../options.js";
import { printJson, processTable } from "../report.js";

/** `virt-run top`: the processes of a pod, with both pids. */
export function command(): Command {
  return verb("top", "show the processes of a pod, with their pids in the pod and on the host", "top cache")
    .argument("[pod]", podArgument)
    .addOption(latestOption())
    .addOption(jsonOption())
    .action(async (name: string | undefined, o: { latest?: boolean; json?: boolean }) => {
      const pod = await podNamed(name, o.latest);
      const { ControlConnection } = await import("../../control/connection.js");
      const connection = ControlConnection.connect(pod.record.socket);
      const processes = processesOf(connection.initPid);
      connection.close();
      pod.disconnect();
      if (o.json) printJson({ processes });
      else {
        process.stdout.write(`${processTable(processes)}\n`);
      }
    });
}
