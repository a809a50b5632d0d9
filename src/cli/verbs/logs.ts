import { closeSync, fstatSync, openSync, readSync, statSync, watch } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { podFromRecord } from "../../pod/pod.js";
import { isRunning, podDirectory } from "../../pod/store.js";
import { exitWith } from "../execute.js";
import { followTo } from "../follow.js";
import { latestOption, podArgument, recordNamed, verb } from "../options.js";

/** `virt-run logs`: what a pod's streams or terminal have shown. */
export function command(): Command {
  const c = verb(
    "logs",
    "show a pod's output: what its terminal or streams have shown",
    "logs cache",
    "logs -f --latest",
  )
    .argument("[pod]", podArgument)
    .option("-f, --follow", "go on as more comes, until the pod ends")
    .addOption(latestOption())
    .action(async (name: string | undefined, o: { latest?: boolean; follow?: boolean }) => {
      const record = recordNamed(name, o.latest);
      const code = isRunning(record) ? undefined : await followTo(record, ["logs", ...(o.follow ? ["-f"] : [])], false);
      if (code !== undefined) return exitWith(c, code);
      const pod = await podFromRecord(record);
      if (!o.follow || !pod.running) {
        pod.disconnect();
        process.stdout.write(pod.logs());
        return;
      }
      await follow(join(podDirectory(pod.id), "log"), pod.ended());
      pod.disconnect();
    });
  return c;
}

/** Copies a growing file to standard output; a log that was rotated is read to its end first. */
async function follow(path: string, until: Promise<unknown>): Promise<void> {
  let fd = openSync(path, "r");
  const buffer = Buffer.alloc(1 << 16);
  const copy = () => {
    for (;;) {
      const n = readSync(fd, buffer);
      if (n > 0) process.stdout.write(Buffer.from(buffer.subarray(0, n)));
      else if (statSync(path, { throwIfNoEntry: false })?.ino !== fstatSync(fd).ino) {
        closeSync(fd);
        fd = openSync(path, "r");
      } else return;
    }
  };
  copy();
  const watcher = watch(path, copy);
  const timer = setInterval(copy, 500); // a watch stays with the file that was rotated away
  await until;
  watcher.close();
  clearInterval(timer);
  copy();
  closeSync(fd);
}
