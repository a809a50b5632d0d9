/**
 * The way over ssh: the user's own program with his configuration, keys, agents and jumps, and `virt-run receive` at its far
 * end. There is no shell in between on this side; on the other there is one, sshd's.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { VirtError } from "../../errors.js";
import { native } from "../../native.js";
import { showTarget, type Target } from "./target.js";
import { closeGraceMs, type OpenOptions, OwnedFds, settlesWithin, type Transport } from "./transport.js";

type SshTarget = Extract<Target, { kind: "ssh" }>;

const keptBytes = 2048;

/** As scp does it: nothing of the user's configuration that is meant for sessions of his own. */
const quiet = ["RemoteCommand=none", "ClearAllForwardings=yes", "ForwardAgent=no", "PermitLocalCommand=no"];

/** ssh(1), or what stands for it. */
export function sshProgram(): string {
  return process.env["VIRT_RUN_SSH"] || "ssh";
}

/** The command as it is run there. */
export function remoteCommandOf(options: OpenOptions): string {
  return options.remoteCommand ?? (process.env["VIRT_RUN_REMOTE_COMMAND"] || "virt-run");
}

/** What ssh is told. It asks for passwords and host keys on the terminal, so it must not when nobody sits there. */
export function sshWords(target: SshTarget, remoteCommand: string, interactive: boolean): string[] {
  const settings = interactive ? quiet : [...quiet, "BatchMode=yes"];
  return [
    "-T",
    "-x",
    ...settings.flatMap((setting) => ["-o", setting]),
    ...(target.port === undefined ? [] : ["-p", String(target.port)]),
    ...(target.user === undefined ? [] : ["-l", target.user]),
    "--",
    target.host,
    `${remoteCommand} receive`,
  ];
}

/** Starts ssh. What it cannot do it says later: `failure`. Errors: ERR_NOT_FOUND, ERR_NOT_EXECUTABLE, ERR_ABORTED. */
export async function openSsh(target: SshTarget, options: OpenOptions = {}): Promise<Transport> {
  const program = sshProgram();
  const remoteCommand = remoteCommandOf(options);
  const [readFd, output] = native.socketPair();
  const [writeFd, input] = native.socketPair();
  const fds = new OwnedFds(readFd, writeFd, output, input);
  let child: ChildProcess;
  try {
    child = spawn(program, sshWords(target, remoteCommand, native.isTerminal(0)), { stdio: [input, output, "pipe"] });
    fds.close(input, output);
    await once(child, "spawn");
  } catch (e) {
    fds.close();
    throw startFailure(program, e);
  }
  let said = Buffer.alloc(0);
  child.stderr?.on("data", (bytes: Buffer) => {
    said = Buffer.concat([said, bytes]).subarray(-keptBytes);
  });
  let closing = false;
  const failure = ended(child).then(() => {
    if (closing) return undefined;
    return explainSsh({ code: child.exitCode, signal: child.signalCode, said: said.toString() }, target, remoteCommand);
  });
  return {
    readFd,
    writeFd,
    failure,
    describe: () => showTarget(target),
    endWriting: () => fds.close(writeFd),
    async close() {
      closing = true;
      fds.close(readFd, writeFd);
      for (const signal of ["SIGTERM", "SIGKILL"] as const) {
        if (await settlesWithin(failure, closeGraceMs)) break;
        child.kill(signal);
      }
      await failure;
    },
  };
}

// Not its `close`: with ControlPersist a master of ssh's stays, and has its standard error.
async function ended(child: ChildProcess): Promise<void> {
  const spoken = child.stderr ? once(child.stderr, "end") : Promise.resolve();
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  await settlesWithin(spoken, 200);
  child.stderr?.destroy();
}

function startFailure(program: string, e: unknown): VirtError {
  const errnoName = (e as NodeJS.ErrnoException).code ?? "";
  const missing = errnoName === "ENOENT";
  return new VirtError(
    missing ? "ERR_NOT_FOUND" : "ERR_NOT_EXECUTABLE",
    missing ? `${program}: not found` : `${program}: cannot be run: ${errnoName}`,
    {
      errnoName,
      path: program,
      phase: "connect",
      hint: "install OpenSSH's client here, or name another with VIRT_RUN_SSH",
      cause: e,
    },
  );
}

/** Why ssh has ended, from what it leaves: 255 is its own failure (ssh(1)), anything else the command's there. */
export function explainSsh(
  end: { code: number | null; signal: NodeJS.Signals | null; said: string },
  target: SshTarget,
  remoteCommand: string,
): VirtError | undefined {
  if (end.code === 0) return undefined;
  const where = showTarget(target);
  const said = end.said
    .trim()
    .split(/[\r\n]+/)
    .join("; ");
  const because = (what: string) => (said === "" ? what : `${what}: ${said}`);
  const error = (code: string, what: string, hint?: string) =>
    new VirtError(code, because(what), { path: where, phase: "connect", hint });
  if (end.code === null) return error("ERR_TRANSPORT", `ssh to ${where} was ended by ${end.signal}`);
  if (end.code === 255) {
    if (/^ssh: (connect to host|Could not resolve)/m.test(end.said))
      return error("ERR_UNREACHABLE", `${where} cannot be reached`);
    if (/Host key verification failed|HOST IDENTIFICATION HAS CHANGED/.test(end.said))
      return error(
        "ERR_HOST_KEY",
        `the host key of ${where} is not a known one`,
        `log in there once with ssh: it asks`,
      );
    if (/Permission denied|Too many authentication failures|no.* authentication methods/i.test(end.said))
      return error("ERR_AUTHENTICATION", `${where} does not let this user in`);
    return error("ERR_TRANSPORT", `ssh to ${where} has failed`);
  }
  // A virt-run without this verb takes the word for a program.
  if (/\breceive: not found \(ERR_NOT_FOUND\)/.test(end.said))
    return error("ERR_REMOTE_VERSION", `virt-run on ${where} is too old to receive pods`);
  if (end.code === 127 || end.code === 126 || /command not found/i.test(end.said))
    return error("ERR_REMOTE_MISSING", `'${remoteCommand}' cannot be run on ${where}`);
  return error("ERR_TRANSPORT", `'${remoteCommand} receive' on ${where} has ended with ${end.code}`);
}
