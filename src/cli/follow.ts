/**
 * Verbs of a pod that was moved away go on where it is: over ssh, by the other host's own virt-run.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { VirtError } from "../errors.js";
import { parseTarget } from "../move/transport/index.js";
import { remoteCommandOf, sshProgram } from "../move/transport/ssh.js";
import type { PodRecord } from "../pod/store.js";

/**
 * Runs `virt-run WORDS… POD` there if the pod was moved away, with our streams; gives its exit code, or undefined if the pod was not moved.
 * Errors: ERR_MOVE_IN_DOUBT; ERR_USAGE if it was not moved over ssh.
 */
export async function followTo(record: PodRecord, words: string[], terminal: boolean): Promise<number | undefined> {
  const { movedTo } = record;
  if (!movedTo) return undefined;
  const { target, pod } = movedTo;
  const to = parseTarget(target);
  if (!pod) throw new VirtError("ERR_MOVE_IN_DOUBT", `nobody has said yet what ${record.name} is at ${target}`);
  if (to.kind !== "ssh")
    throw new VirtError("ERR_USAGE", `the pod ${record.name} runs at ${target} as ${pod.id}: say it there`);
  process.stderr.write(`virt-run: ${record.name} was moved to ${target}\n`);
  const command = [remoteCommandOf({}), ...words, pod.id].join(" ");
  const child = spawn(
    sshProgram(),
    [
      terminal ? "-t" : "-T",
      ...(to.port === undefined ? [] : ["-p", String(to.port)]),
      ...(to.user === undefined ? [] : ["-l", to.user]),
      "--",
      to.host,
      command,
    ],
    { stdio: "inherit" },
  );
  const [code] = (await once(child, "close")) as [number | null];
  return code ?? 125;
}
