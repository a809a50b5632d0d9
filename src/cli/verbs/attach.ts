import type { Command } from "commander";
import { VirtError } from "../../errors.js";
import { isRunning } from "../../pod/store.js";
import { exitWith } from "../execute.js";
import { followTo } from "../follow.js";
import { latestOption, podArgument, podNamed, recordNamed, verb } from "../options.js";
import { exitCodeOf } from "../run-program.js";

/** `virt-run attach`: joins a pod's terminal. */
export function command(): Command {
  const c = verb("attach", "join a pod's terminal", "attach editor", "attach -r --latest")
    .argument("[pod]", podArgument)
    .option("-r, --read-only", "only look: what is typed is not passed on")
    .option("--detach-keys <keys>", "keys that leave it without ending anything", "ctrl-],d")
    .addOption(latestOption());
  return c.action(async (name: string | undefined, o: { readOnly?: boolean; detachKeys: string; latest?: boolean }) => {
    const record = recordNamed(name, o.latest);
    const words = ["attach", ...(o.readOnly ? ["-r"] : []), "--detach-keys", o.detachKeys];
    const code = isRunning(record) ? undefined : await followTo(record, words, true);
    if (code !== undefined) return exitWith(c, code);
    const pod = await podNamed(name, o.latest);
    if (!pod.running) throw new VirtError("ERR_POD_GONE", `the pod ${pod.name} has ended`);
    const { view } = await import("../../terminal/viewer.js");
    const how = await view(pod.connection, {
      attach: true,
      redraw: true,
      readOnly: o.readOnly ?? false,
      detachKeys: o.detachKeys,
    });
    if (how === "left") process.stderr.write(`virt-run: left ${pod.name}, which runs on\n`);
    else exitWith(c, exitCodeOf(await pod.wait(), pod.name));
    pod.disconnect();
  });
}
