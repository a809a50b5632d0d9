/**
 * A shell in a pod that does what it is told, line by line, before and after it moved.
 */
import { type Image, type LaunchOptions, launch, type Pod, type ReattachOptions, reattach } from "virt-run";
import { sandbox } from "./env.js";
import { logged } from "./pods.js";

let mark = 0;

/** A shell that waits for lines on its standard input. */
export async function shellPod(cwd: string, options: LaunchOptions = {}): Promise<Pod> {
  const env = { PATH: "/usr/bin:/bin:/usr/sbin:/sbin", HOME: sandbox, LC_ALL: "C.UTF-8" };
  const pod = await launch("/bin/sh", [], { cwd, env, stdio: "pipe", record: "default", ...options });
  return listening(pod);
}

function listening(pod: Pod): Pod {
  pod.stdout?.resume();
  pod.stderr?.resume();
  return pod;
}

export async function again(image: Image, options: ReattachOptions = {}): Promise<Pod> {
  return listening(await reattach(image, { stdio: "pipe", ...options }));
}

/** Lets the shell run a line and gives what that printed; fails unless it succeeds. */
export async function tell(pod: Pod, line: string): Promise<string> {
  const n = ++mark;
  pod.stdin?.write(`echo "<"${n}">"; ${line}\necho "<"$?/${n}">"\n`);
  const log = await logged(pod, `/${n}>\n`);
  const said = log.slice(log.lastIndexOf(`<${n}>\n`) + `<${n}>\n`.length);
  const end = said.lastIndexOf("<");
  const status = said.slice(end + 1, said.indexOf("/", end));
  if (status !== "0") throw new Error(`'${line}' ended with ${status}: ${said.slice(0, end)}`);
  return said.slice(0, end).trimEnd();
}
