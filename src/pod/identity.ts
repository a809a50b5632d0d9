/**
 * Who a pod says it is, beside what namespaces say: /etc/hostname and /etc/machine-id (machine-id(5)) as files of its own.
 */
import { chmodSync, lstatSync, mkdirSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { VirtError } from "../errors.js";
import { native } from "../native.js";
import type { IsolationRecord, MountPlan } from "./isolation.js";
import { planMounts } from "./isolation.js";
import type { PodRecord } from "./store.js";

/** A machine id as a user says it: 32 hexadecimal digits, or "random". Errors: ERR_USAGE. */
export function resolveMachineId(given: string | undefined): string | undefined {
  if (given === undefined) return undefined;
  if (given === "random") return native.randomHex(16);
  if (/^[0-9a-f]{32}$/.test(given)) return given;
  throw new VirtError("ERR_USAGE", `'${given}' is no machine id`, {
    hint: "it has 32 digits 0-9 and a-f, in small letters; or say random",
  });
}

/** The mounts of a pod that is being made; the files and directories of its own that are mounted lie in its directory. */
export function furnishState(
  record: Pick<PodRecord, "cwd" | "remaps" | "hostname" | "machineId"> & { isolate?: IsolationRecord },
  directory: string,
): MountPlan {
  const stateDirectory = realpathSync(directory);
  const identity = new Map<string, string>();
  const say = (name: string, text: string | undefined, paths: string[]) => {
    if (text === undefined || text === "") return;
    const source = join(stateDirectory, name);
    writeFileSync(source, `${text}\n`, { mode: 0o444 });
    chmodSync(source, 0o444);
    for (const path of paths) identity.set(real(path), source);
  };
  say("hostname", record.hostname, ["/etc/hostname"]);
  const dbus = "/var/lib/dbus/machine-id";
  say("machine-id", record.machineId, ["/etc/machine-id", ...(isFile(dbus) ? [dbus] : [])]);
  const plan = planMounts(record.isolate, { stateDirectory, cwd: record.cwd, remaps: record.remaps, identity });
  for (const { operation, source } of plan.mounts) {
    if (operation !== "own" || source === undefined) continue;
    mkdirSync(source, { recursive: true });
    chmodSync(source, 0o1777);
  }
  return plan;
}

function real(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

function isFile(path: string): boolean {
  try {
    return lstatSync(path).isFile();
  } catch {
    return false;
  }
}
