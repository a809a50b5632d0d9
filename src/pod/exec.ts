/**
 * Running further programs in a pod that lives.
 */
import { ControlConnection } from "../control/connection.js";
import { FrameType } from "../control/protocol.js";
import { native } from "../native.js";
import { environmentList } from "./launch.js";
import type { Pod } from "./pod.js";
import { type Exit, exitFromWaitStatus } from "./store.js";

/**
 * What Pod.exec() may be told.
 *
 * @example
 * const quiet: ExecOptions = { cwd: "/", stdio: [0, 1, 1] };
 */
export interface ExecOptions {
  /** The program's whole environment; undefined values are left out. Default: this process's. */
  env?: NodeJS.ProcessEnv;
  /** Working directory, absolute, as the pod sees it. Default: the pod's own. */
  cwd?: string;
  /**
   * "inherit": this process's own streams (default). Three numbers: descriptors of this process that become the program's
   * 0, 1 and 2. "terminal": a pty(7), viewed through the session's connection.
   */
  stdio?: "inherit" | "terminal" | [number, number, number];
  /** Height of the terminal in lines, with stdio "terminal". Default 24. */
  rows?: number;
  /** Width of the terminal in characters, with stdio "terminal". Default 80. */
  columns?: number;
  /** Called with the connection before anything of the program can come through it. @internal */
  view?: (connection: ControlConnection) => void;
}

/**
 * A program that was started in a pod beside the first. It keeps Node alive: close() it when done. While the program holds
 * the streams it was given, the pod cannot be detached (ERR_EXEC_STREAM).
 *
 * @example
 * const session = await pod.exec("ls", ["-l", "/"]);
 * const { code } = await session.wait();
 * session.close();
 */
export interface ExecSession {
  /** As the pod sees it. */
  readonly pid: number;
  /** Resolves when the program has ended; `lost` if the pod ended first or the connection was closed. Never rejects. */
  wait(): Promise<Exit>;
  /** Hears no more of the program, which runs on. */
  close(): void;
}

/** @internal */
export async function exec(
  pod: Pod,
  command: string,
  args: readonly string[],
  options: ExecOptions,
): Promise<ExecSession> {
  const connection = ControlConnection.connect(pod.record.socket);
  const terminal = options.stdio === "terminal";
  const payload = native.encodeExec({
    stdio: terminal ? "terminal" : "inherit",
    rows: options.rows ?? 24,
    columns: options.columns ?? 80,
    cwd: options.cwd ?? pod.record.cwd,
    argv: [command, ...args],
    env: environmentList(options.env ?? process.env),
  });
  const fds = terminal ? [] : Array.isArray(options.stdio) ? options.stdio : [0, 1, 2];
  // The program may end before the reply has been read here: remember every end from the start.
  const ends = new Map<number, Exit>();
  const waiting: { pid: number; resolve(exit: Exit): void }[] = [];
  connection.on("exited", (end) => {
    const exit = exitFromWaitStatus(end.waitStatus);
    ends.set(end.pid, exit);
    for (const w of waiting) if (w.pid === end.pid) w.resolve(exit);
  });
  const lost: Exit = { code: null, signal: null, detached: false, lost: true };
  connection.on("close", () => {
    for (const w of waiting) w.resolve(lost);
  });
  options.view?.(connection);
  try {
    const pid = (await connection.request(FrameType.exec, payload, fds)).readUInt32LE(0);
    return {
      pid,
      close: () => connection.close(),
      wait: () => {
        const known = ends.get(pid) ?? (connection.closed ? lost : undefined);
        return known ? Promise.resolve(known) : new Promise((resolve) => waiting.push({ pid, resolve }));
      },
    };
  } catch (e) {
    connection.close();
    throw e;
  }
}
