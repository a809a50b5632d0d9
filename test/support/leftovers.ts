/**
 * What must not be left behind: processes of a pod that was detached, and anything of a test that has ended.
 */
import { closeSync, fstatSync, openSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { join } from "node:path";
import { sandbox } from "./env.js";

function processes(): string[] {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name));
}

function tryRead<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined; // it ended, or is another user's
  }
}

/** It has ended; that the host's own PID 1 has not waited for it yet says nothing about the pod. */
function isZombie(pid: string): boolean {
  return tryRead(() => /^State:\s*[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"))) ?? true;
}

/**
 * Takes hold of the pid namespace that a process is in. The function it gives lists the host pids of whatever is alive
 * there: all of a pod's processes and its init, also those that were made since. The namespace's number cannot be given
 * to another one before `close` is called.
 */
export function watchNamespace(hostPid: number): { alive(): number[]; close(): void } {
  const fd = openSync(`/proc/${hostPid}/ns/pid`, "r");
  const { ino } = fstatSync(fd);
  return {
    alive: () =>
      processes()
        .filter((pid) => tryRead(() => statSync(`/proc/${pid}/ns/pid`).ino) === ino && !isZombie(pid))
        .map(Number),
    close: () => closeSync(fd),
  };
}

/** Processes (other than this one) and mounts that have to do with the sandbox: pods, their inits, clients. */
export function leftovers(): string[] {
  const found: string[] = [];
  for (const pid of processes()) {
    if (Number(pid) === process.pid) continue;
    const links = ["cwd", "exe", ...(tryRead(() => readdirSync(`/proc/${pid}/fd`)) ?? []).map((fd) => `fd/${fd}`)];
    const texts = [
      ...links.map((link) => tryRead(() => readlinkSync(`/proc/${pid}/${link}`))),
      ...["cmdline", "environ"].map((file) => tryRead(() => readFileSync(`/proc/${pid}/${file}`, "utf8"))),
    ];
    if (texts.some((text) => text?.includes(sandbox))) {
      const command = tryRead(() => readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim());
      found.push(`process ${pid}: ${command || "(its command is gone)"}`);
    }
  }
  for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n"))
    if (line.includes(sandbox)) found.push(`mount: ${line}`);
  const sockets = tryRead(() => readdirSync(join(sandbox, "run", "virt-run"))) ?? [];
  return [...found, ...sockets.map((name) => `socket: ${name}`)];
}
