/**
 * One error class. Codes are permanent, texts may change. An error says what failed and to what, and how to go on.
 */

/**
 * Something that keeps a pod from being detached, or an image from being reattached here; all of them are told at once.
 *
 * @example
 * for (const b of await pod.check()) console.log(b.pid, b.fd, b.kind, b.message, b.hint);
 */
export interface Blocker {
  /** One of ErrorCode: ERR_CONNECTION, ERR_MISSING_FILE, … */
  code: string;
  /** What it is, in words; may change between versions. */
  message: string;
  /** What to do about it. */
  hint?: string;
  /** The process, as it sees itself inside its pod. */
  pid?: number;
  /** The descriptor's number in that process. */
  fd?: number;
  /** The kind of handle ("pipe", "unix-socket", …), or of another thing ("mapping", "cwd", …); `drop` takes the former. */
  kind?: string;
  /** A path on this host, or "address:port". */
  path?: string;
}

/** What a VirtError may say beside code and message; see its members. */
export interface VirtErrorDetails {
  syscall?: string | undefined;
  errno?: number | undefined;
  errnoName?: string | undefined;
  /** As the program sees it, inside its pod. */
  pid?: number | undefined;
  fd?: number | undefined;
  kind?: string | undefined;
  path?: string | undefined;
  phase?: string | undefined;
  hint?: string | undefined;
  blockers?: Blocker[] | undefined;
  /** Failures of the clean-up after this one. */
  attached?: string[] | undefined;
  cause?: unknown;
}

/**
 * Every code, and what to do about it where the error itself does not say ("" if there is nothing general to say). Codes
 * are permanent; these texts are not.
 *
 * @example
 * console.log(Object.keys(errorHints).length, errorHints.ERR_PORT_IN_USE);
 */
export const errorHints = {
  ERR_32BIT: "launch it with --record none and without rules; it cannot be moved",
  ERR_ABORTED: "it was stopped on request; the source runs on",
  ERR_AGENT: "report this with the program's name; the pod runs on",
  ERR_AUTHENTICATION: "log in there with ssh first; what works by hand works here",
  ERR_BACKLOG: "try again when the program has accepted the waiting connections",
  ERR_BAD_VALUE: "the image is damaged or was changed by hand",
  ERR_BLOCKED: "each line above says what to do; --drop KIND accepts a loss",
  ERR_BUG: "please report this",
  ERR_CHANGED_FILE: "restore the file, or accept what it is now with --allow-changed PATH",
  ERR_CONNECTION: "end the connection first, or let it be reset with --tcp close",
  ERR_CPU_FEATURE: "reattach on a machine whose CPU has the feature",
  ERR_EPOLL_TARGET: "let the program remove it from the epoll",
  ERR_ENROLL: "`virt-run serve --enroll` there prints a new code",
  ERR_EXEC_STREAM: "end the command that was started with exec",
  ERR_FAULT: "a fault point was set with VIRT_RUN_FAULT",
  ERR_FD_IN_FLIGHT: "try again when the program has received it",
  ERR_FILES_LIMIT: "raise --files-limit, or carry less with --with-files",
  ERR_FILE_REPLACED: "put the file back under its name",
  ERR_FILE_UNREACHABLE: "let the program close or unmap it",
  ERR_FREEZE_TIMEOUT: "try again; a thread was in a call that cannot be interrupted",
  ERR_HOST_KEY: "somebody else may answer there; if its key was changed on purpose, enroll it again",
  ERR_HOLDING: "reattach its image, or let go of them with `virt-run rm -f`",
  ERR_IMAGE_DAMAGED: "run `virt-run verify` on it; only a whole copy can be reattached",
  ERR_IMAGE_EXISTS: "choose another name with -o, or remove the old image",
  ERR_IMAGE_NOT_FOUND: "`virt-run images` lists what there is",
  ERR_IMAGE_VERSION: "use the version of virt-run that wrote it, or a newer one",
  ERR_IMAGE_WRITE: "check space and permissions where the image is written; the source runs on",
  ERR_IPC_ID: "",
  ERR_KERNEL_FEATURE: "`virt-run doctor` says what this host lacks",
  ERR_ISOLATION: "docs/isolation.md says which rules there can be",
  ERR_JOURNAL: "the pod's journal is damaged; remove that line, or the pod",
  ERR_LAUNCH: "`virt-run doctor` says what this host lacks",
  ERR_LOCKED: "end the process that holds the file lock now",
  ERR_MISSING_FILE: "bring the file here, or say where it is with --remap path:OLD=NEW",
  ERR_MOVE_IN_DOUBT: "run `virt-run move --resume POD` where the pod came from, when the other host can be reached",
  ERR_MOVE_LOST: "try again when the other host can be reached",
  ERR_MOVE_PROTOCOL: "use the same version of virt-run on both hosts",
  ERR_MOVE_REFUSED: "each line above says what to do",
  ERR_NAME_TAKEN: "choose another with --name, or remove the pod that has it",
  ERR_NAMESPACE: "sandboxes inside a pod are not carried yet",
  ERR_NO_ROOM: "",
  ERR_NO_TERMINAL: "the pod was not started with a terminal (-t)",
  ERR_NO_VDSO: "",
  ERR_NOT_COVERED: "name the calls with `cover` at launch: a filter cannot be widened later",
  ERR_NOT_ENROLLED: "`virt-run serve --enroll` there prints a code for `virt-run enroll tls://HOST:PORT CODE` here",
  ERR_NOT_EXECUTABLE: "",
  ERR_NOT_FOUND: "",
  ERR_NOT_PERMITTED: "run virt-run as the user who launched the pod",
  ERR_NOT_RECORDED: "launch it with --record default",
  ERR_OUTSIDE_PIPE: "start both programs inside the pod",
  ERR_PACKET_PIPE: "let the reader catch up first",
  ERR_PID_TAKEN: "",
  ERR_POD_BUSY: "wait for the other command to end",
  ERR_POD_GONE: "`virt-run ps -a` shows what became of it",
  ERR_POD_NOT_FOUND: "`virt-run ps -a` lists all pods",
  ERR_POD_RUNNING: "stop it first, or use -f",
  ERR_POD_VERSION: "this pod was launched by another version of virt-run",
  ERR_PORT_IN_USE: "end the program that uses it",
  ERR_PROCESS_GONE: "try again",
  ERR_REMAP: "rules are path:OLD=NEW (absolute, NEW exists), port:OLD=NEW, addr:OLD=NEW and fd:PID/FD=TARGET",
  ERR_REMOTE_MISSING:
    "install virt-run there where a shell without login finds it, or say where it is with --remote-command or VIRT_RUN_REMOTE_COMMAND",
  ERR_REMOTE_VERSION: "bring both hosts to the same version of virt-run",
  ERR_RULE: "docs/interposer.md says what rules look like",
  ERR_SYSCALL: "",
  ERR_TERMINAL_GONE: "",
  ERR_TERMINAL_UNREAD: "",
  ERR_TIMER_ID: "",
  ERR_TOO_MANY_FILES: "raise the limit of open files (ulimit -n)",
  ERR_TRACED: "end the debugger first",
  ERR_TRANSPORT: "try again when the way to the other host is back",
  ERR_TREE: "",
  ERR_UDP_QUEUE: "try again when the datagrams are read",
  ERR_UNREACHABLE: "check its name and port, and that it is up",
  ERR_UNSAFE_PATH: "remove the directory; virt-run makes its own with the right owner and mode",
  ERR_UNSUPPORTED: "",
  ERR_USAGE: "`virt-run help` shows how",
  ERR_VDSO_BUSY: "try again",
} as const;

/**
 * The code of a VirtError or a Blocker.
 *
 * @example
 * const retry: ErrorCode[] = ["ERR_POD_BUSY", "ERR_FREEZE_TIMEOUT"];
 */
export type ErrorCode = keyof typeof errorHints;

/**
 * The only class virt-run throws on purpose. (Node's own errors may come through where a directory of virt-run's cannot
 * be made or written.)
 *
 * @example
 * try {
 *   await pod.detach();
 * } catch (e) {
 *   if (e instanceof VirtError && e.code === "ERR_BLOCKED") console.error(e.blockers);
 *   else throw e;
 * }
 */
export class VirtError extends Error {
  /** One of ErrorCode. */
  readonly code: string;
  /** The system call that failed: "execve". */
  declare readonly syscall?: string;
  /** errno(3) as a number, not negated as Node's is. */
  declare readonly errno?: number;
  /** errno(3) by name: "ENOSPC". */
  declare readonly errnoName?: string;
  /** The process, as it sees itself inside its pod. */
  declare readonly pid?: number;
  /** The descriptor's number in that process. */
  declare readonly fd?: number;
  /** What it is about: a kind of handle ("pipe"), "mapping", … */
  declare readonly kind?: string;
  /** What it is about: a path on this host, or "address:port". */
  declare readonly path?: string;
  /** During what it happened: "freeze", "survey", "read", "rebuild: memory", … */
  declare readonly phase?: string;
  /** What to do about it; "" if there is nothing to say. */
  readonly hint: string;
  /** Everything that stood in the way, when that is why. */
  declare readonly blockers?: Blocker[];
  /** Failures of the clean-up after this one. */
  declare readonly attached?: string[];

  constructor(code: string, message: string, details: VirtErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "VirtError";
    this.code = code;
    const { cause: _, hint, ...rest } = details;
    for (const [key, value] of Object.entries(rest)) if (value !== undefined) Object.assign(this, { [key]: value });
    this.hint = hint ?? (errorHints as Record<string, string>)[code] ?? "";
  }

  /** Plain data for JSON.stringify(), as `--json` prints it: all but the stack, `errno`, `attached` and `cause`. */
  toJSON(): Record<string, unknown> {
    const out: Record<string, unknown> = { code: this.code, message: this.message };
    for (const key of ["syscall", "errnoName", "pid", "fd", "kind", "path", "phase", "hint", "blockers"] as const) {
      const value = this[key];
      if (value !== undefined && value !== "") out[key] = value;
    }
    return out;
  }
}

/** Makes a VirtError of whatever was thrown; errors of ours pass unchanged. */
export function toVirtError(thrown: unknown): VirtError {
  if (thrown instanceof VirtError) return thrown;
  if (!(thrown instanceof Error)) return new VirtError("ERR_BUG", String(thrown));
  const e = thrown as Error & VirtErrorDetails & { code?: string };
  if (typeof e.code === "string" && e.code.startsWith("ERR_")) {
    const { syscall, errno, errnoName, pid, fd, kind, path, phase, attached } = e;
    return new VirtError(e.code, e.message, {
      syscall,
      errno,
      errnoName,
      pid,
      fd,
      kind,
      path,
      phase,
      attached,
      hint: hintFor(e.code, errnoName, syscall, e.message),
      cause: e,
    });
  }
  if (typeof e.code === "string" && e.syscall !== undefined) {
    return new VirtError("ERR_SYSCALL", e.message, { syscall: e.syscall, errnoName: e.code, path: e.path, cause: e });
  }
  return new VirtError("ERR_BUG", e.message, { cause: e });
}

function hintFor(code: string, errnoName?: string, syscall?: string, message = ""): string | undefined {
  if (code === "ERR_LAUNCH" && message.includes("overlay"))
    return "overlays need Linux 5.11 and a store on a disk of this host: set XDG_STATE_HOME to a directory on one";
  if (code === "ERR_LAUNCH" && (errnoName === "EPERM" || errnoName === "ENOSPC" || errnoName === "EINVAL")) {
    return "this host does not let users make user namespaces; `virt-run doctor` says what to change";
  }
  if (errnoName === "ENOSPC") return "free some space there";
  if (errnoName === "EMFILE") return "raise the limit of open files (ulimit -n)";
  if (code === "ERR_SYSCALL" && syscall === "ptrace") return errorHints.ERR_NOT_PERMITTED;
  return undefined;
}
