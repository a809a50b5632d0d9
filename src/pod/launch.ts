/**
 * Launching programs in pods.
 */
import { closeSync, openSync, readSync } from "node:fs";
import { resolve as absolute, join } from "node:path";
import { ControlConnection } from "../control/connection.js";
import type { StdioKind } from "../control/protocol.js";
import { toVirtError, VirtError } from "../errors.js";
import { initProgram, native } from "../native.js";
import { checkAddressRemap } from "../remap/address.js";
import type { Remap } from "../remap/path.js";
import { answerHooks, type HookOptions } from "../rules/hooks.js";
import { type Interposition, nativeInterposition, type Recording } from "../rules/interposition.js";
import { type CallName, kindsNamed, pathsOfRules, type Rule } from "../rules/rules.js";
import { furnishState, resolveMachineId } from "./identity.js";
import { type Isolation, resolveIsolation } from "./isolation.js";
import { Pod } from "./pod.js";
import {
  announceMaking,
  checkName,
  discardPod,
  newPod,
  type PathRemap,
  type PodRecord,
  saveRecord,
  withNamesLocked,
} from "./store.js";

/**
 * What launch() may be told; everything has a default.
 *
 * @example
 * const options: LaunchOptions = { name: "cache", env: { ...process.env, TZ: "UTC" }, cwd: "/srv", stdio: "log" };
 */
export interface LaunchOptions extends HookOptions {
  /** Unique among living pods: letters, digits, "_", ".", "-", at most 64. Default: the pod's id. */
  name?: string;
  /** The program's whole environment; undefined values are left out. Default: this process's. */
  env?: NodeJS.ProcessEnv;
  /** Working directory, as the pod sees it; a relative one starts at this process's. Default: this process's. */
  cwd?: string;
  /**
   * "pipe": pod.stdin, stdout and stderr. "inherit": this process's own. "terminal": a pty(7) kept by the pod, to be
   * joined with `virt-run attach`. "log": no input, output goes to the pod's log only. Default "pipe".
   */
  stdio?: "pipe" | "inherit" | "terminal" | "log";
  /** Height of the terminal in lines, with stdio "terminal". Default 24. */
  rows?: number;
  /** Width of the terminal in characters, with stdio "terminal". Default 80. */
  columns?: number;
  /** Host name inside the pod (uts_namespaces(7)), and what /etc/hostname says there, at most 64 bytes. Default: this host's. */
  hostname?: string;
  /**
   * What /etc/machine-id (machine-id(5)) says in the pod, and /var/lib/dbus/machine-id where that is a file of its own: 32
   * hexadecimal digits, or "random". Default: this host's.
   */
  machineId?: string;
  /** What the pod may not write, see or reach. Default: nothing that this user may. */
  isolate?: Isolation;
  /** Words to find it by, for list() and `virt-run ps --filter`; they go with it into images. Default {}. */
  labels?: Record<string, string>;
  /** What the pod knows under other names than this host. Default: nothing. */
  remap?: Remap;
  /** What becomes of its system calls; the first rule that matches decides. Default: none. */
  rules?: readonly Rule[];
  /** Calls that rules may be about which setRules() sets later, beside those that need interposing now. Default: none. */
  cover?: readonly CallName[];
  /**
   * Forget the pod, its log included, when it has ended (not when it was detached): at once if somebody is connected to
   * it then, else with the next list(). Default false.
   */
  removeAtEnd?: boolean;
  /**
   * What of the pod's side effects goes into its journal, for effects(): "default" files made, changed and removed, addresses
   * bound and talked to, programs executed; "all" also what is only read or looked at, and signals sent; "none" nothing.
   * Default "default".
   */
  record?: Recording;
  /** Called with the connection before anything of the program can come through it. @internal */
  view?: (connection: ControlConnection) => void;
  /** With "log": standard input stays open, empty, instead of being /dev/null. Default false. */
  keepInput?: boolean;
}

const stdioKinds: Record<NonNullable<LaunchOptions["stdio"]>, StdioKind> = {
  pipe: "streams",
  log: "streams",
  inherit: "inherit",
  terminal: "terminal",
};

/**
 * Launches a program in a new pod and resolves when it runs: in pid, mount, ipc and uts namespaces of its own
 * (namespaces(7)), and a user namespace unless this is root (user_namespaces(7)), with virt-init as pid 1. A name without "/" is looked for in the PATH that `env` has, as execvp(3) does. The pod does not end with this process;
 * the connection to it keeps Node alive until disconnect() or unref(). With stdio "pipe", the default, a program whose
 * output nobody reads waits, as with any pipe.
 *
 * Errors: ERR_NOT_FOUND, ERR_NOT_EXECUTABLE (execve(2)); ERR_LAUNCH (the host does not allow a pod, see `virt-run doctor`;
 * or `cwd`, `hostname` or the size of arguments and environment is at fault, and the message says so); ERR_REMAP;
 * ERR_ISOLATION, ERR_KERNEL_FEATURE (rules that cannot be, or not here); ERR_NAME_TAKEN; ERR_USAGE (no valid name or machine
 * id, a rule with a relative path); ERR_BAD_VALUE (a NUL byte in an argument or in the environment, rows or
 * columns that are no whole numbers); ERR_RULE; ERR_UNSAFE_PATH.
 *
 * @example
 * await using pod = await launch("redis-server", ["--port", "7000"], { name: "cache" });
 * pod.stdout?.pipe(process.stdout);
 * await pod.wait();
 */
export async function launch(command: string, args: readonly string[] = [], options: LaunchOptions = {}): Promise<Pod> {
  const stdio = options.stdio ?? "pipe";
  const remaps = pathRemaps({ ...pathsOfRules(options.rules ?? []), ...options.remap?.path });
  if (Object.keys(options.remap?.fd ?? {}).length > 0)
    throw new VirtError("ERR_REMAP", "descriptors are remapped at reattach, or of a pod that runs");
  const isolate = resolveIsolation(options.isolate, remaps);
  const machineId = resolveMachineId(options.machineId);
  const { id, directory, socket } = newPod();
  const record: PodRecord = {
    schemaVersion: 1,
    id,
    name: options.name ?? id,
    command: [command, ...args],
    cwd: absolute(options.cwd ?? ""),
    createdAt: new Date().toISOString(),
    stdio: stdioKinds[stdio],
    socket,
    labels: options.labels ?? {},
    remaps,
    removeAtEnd: options.removeAtEnd ?? false,
    ...interpositionOf(options),
    ...(options.hostname === undefined ? {} : { hostname: options.hostname }),
    ...(machineId === undefined ? {} : { machineId }),
    ...(isolate === undefined ? {} : { isolate }),
  };
  let connection: ControlConnection | undefined;
  let made = () => {};
  try {
    const interposed = nativeInterposition(record);
    made = await claimName(record, options.name);
    connection = new ControlConnection(
      native.launch({
        init: initProgram,
        socket,
        stateDir: directory,
        stdio: record.stdio,
        rows: options.rows ?? 24,
        columns: options.columns ?? 80,
        keepInput: options.keepInput ?? stdio === "pipe",
        viewed: stdio === "pipe" || options.view !== undefined,
        patient: stdio === "pipe",
        hostname: options.hostname ?? "",
        cwd: record.cwd,
        remaps: record.remaps,
        ...interposed,
        ...furnishState(record, directory),
        argv: record.command,
        env: environmentList(options.env ?? process.env),
      }),
    );
    const pod = new Pod(record, connection, { piped: stdio === "pipe", fromStart: true });
    if (interposed.hooked) answerHooks(pod, connection, options.hooks ?? {});
    options.view?.(connection);
    await started(connection);
    return pod;
  } catch (e) {
    connection?.close();
    discardPod(id, socket);
    throw naming(toVirtError(e), command, options.env ?? process.env);
  } finally {
    made();
  }
}

export const attachReadOnly = 1;
/** Output is never dropped for this viewer: the program waits instead. */
export const attachPatient = 2;
/** Make the foreground program draw itself again. */
export const attachRedraw = 4;

/**
 * Writes the record; with a name of the user's choice, only if no living pod has it. Call the function it gives when the
 * pod is made, or cannot be. @internal
 */
export async function claimName(record: PodRecord, name: string | undefined): Promise<() => void> {
  if (name === undefined) {
    saveRecord(record);
    return () => {};
  }
  return withNamesLocked(() => {
    checkName(name);
    const made = announceMaking(record.id);
    saveRecord(record);
    return made;
  });
}

/** What a record says of what launch(), or reattach(), was told. Errors: ERR_REMAP. @internal */
export function interpositionOf(
  options: Pick<LaunchOptions, "remap" | "rules" | "hooks" | "hookTimeoutMs" | "hookDefault" | "cover" | "record">,
): Interposition {
  const { ports, addresses } = checkAddressRemap(options.remap ?? {});
  kindsNamed(Object.keys(options.hooks ?? {}) as CallName[], "'hooks'");
  const hooks = Object.keys(options.hooks ?? {}).map(
    (name): Rule => ({
      on: name as CallName,
      ask: true,
      ...(options.hookTimeoutMs === undefined ? {} : { timeoutMs: options.hookTimeoutMs }),
      default: options.hookDefault ?? "pass",
    }),
  );
  const some = <T extends object>(value: T) => (Object.keys(value).length > 0 ? value : undefined);
  return {
    record: options.record ?? "default",
    rules: some([...(options.rules ?? [])]),
    ports: some(ports),
    addresses: some(addresses),
    cover: some([...(options.cover ?? [])]),
    hooks: some(hooks),
  };
}

/** @internal */
export function environmentList(env: NodeJS.ProcessEnv): string[] {
  return Object.entries(env).flatMap(([key, value]) => (value === undefined ? [] : [`${key}=${value}`]));
}

/** { OLD: NEW } as a user says it: the host's NEW appears at OLD. @internal */
export function pathRemaps(rules: Record<string, string> | undefined): PathRemap[] {
  return Object.entries(rules ?? {}).map(([to, from]) => {
    if (!to.startsWith("/") || !from.startsWith("/") || to === "/") {
      throw new VirtError("ERR_REMAP", `path:${to}=${from} needs two absolute paths, and not the root itself`);
    }
    return { from: strip(from), to: strip(to) };
  });
}

function strip(path: string): string {
  return path.length > 1 && path.endsWith("/") ? path.slice(0, -1) : path;
}

function started(connection: ControlConnection): Promise<void> {
  return new Promise((resolve, reject) => {
    connection.once("started", () => resolve());
    connection.once("failed", reject);
    connection.once("close", () =>
      reject(new VirtError("ERR_LAUNCH", "the pod's init ended before the program started")),
    );
  });
}

function naming(error: VirtError, command: string, env: NodeJS.ProcessEnv): VirtError {
  if (error.errnoName === "ENOEXEC" && is32Bit(command, env)) {
    const what = `${command} is a 32-bit program, whose calls cannot be interposed`;
    return new VirtError("ERR_32BIT", what, { path: command, errnoName: "ENOEXEC", syscall: "execve", cause: error });
  }
  if (error.code !== "ERR_NOT_FOUND" && error.code !== "ERR_NOT_EXECUTABLE") return error;
  const what = error.code === "ERR_NOT_FOUND" ? "not found" : `cannot be executed (${error.errnoName})`;
  return new VirtError(error.code, `${command}: ${what}`, {
    path: command,
    errnoName: error.errnoName,
    syscall: "execve",
    cause: error,
  });
}

/** By the ELF header (elf(5)): 80386, or x32. */
function is32Bit(command: string, env: NodeJS.ProcessEnv): boolean {
  const places = command.includes("/") ? [command] : (env["PATH"] ?? "").split(":").map((d) => join(d, command));
  const header = Buffer.alloc(20);
  for (const place of places) {
    try {
      const fd = openSync(place, "r");
      readSync(fd, header);
      closeSync(fd);
      break;
    } catch {
      // not this one
    }
  }
  const machine = header.readUInt16LE(18);
  return header.toString("latin1", 0, 4) === "\x7fELF" && (machine === 3 || (machine === 62 && header[4] === 1));
}
