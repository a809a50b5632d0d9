/**
 * The command as a user has it: the built one, in a process of its own.
 */
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { sandbox } from "./env.js";
import { needs } from "./packages.js";

/** What the package's bin names. */
export const program: string = new URL("../../dist/cli/virt-run.cjs", import.meta.url).pathname;

/** Node without what tap adds to every child: it is slow, and makes the streams non-blocking that a pod inherits. */
const node = ["-u", "NODE_OPTIONS", process.execPath];

export interface Said {
  code: number | null;
  signal: NodeJS.Signals | null;
  out: string;
  err: string;
}

export interface Running {
  child: ChildProcess;
  /** What it has said so far. */
  said: Said;
  ended: Promise<Said>;
}

/** Starts `virt-run` with these words; `options.input` is all of its standard input, else that stays open. */
export function virtRunning(words: string[], options: SpawnOptions & { input?: string | Buffer } = {}): Running {
  return running("/usr/bin/env", [...node, program, ...words], options);
}

/** Runs `virt-run` with these words to its end. */
export function virtRun(words: string[], options: SpawnOptions & { input?: string | Buffer } = {}): Promise<Said> {
  return virtRunning(words, { input: "", ...options }).ended;
}

/**
 * Starts it with a terminal as standard input and output. `stdin` is typed, what the terminal shows is `out`; lines in
 * `before` are run by the shell before it (`stty rows 33`).
 */
export function virtRunOnTerminal(words: string[], before = ""): Running {
  const quoted = ["/usr/bin/env", ...node, program, ...words].map((word) => `'${word.replaceAll("'", "'\\''")}'`);
  const line = `${before}exec ${quoted.join(" ")}`;
  const script = ["--quiet", "--return", "--flush", "--command", line, "/dev/null"];
  return running(needs("script"), script, { env: { ...process.env, TERM: "xterm", SHELL: "/bin/sh" } });
}

/** Runs a line of shell to its end. */
export function shell(line: string): Promise<Said> {
  return running("/bin/sh", ["-c", line], { input: "" }).ended;
}

/** Launches in the background; gives the id. */
export async function background(...words: string[]): Promise<string> {
  const { code, out, err } = await virtRun(["run", "-d", ...words]);
  if (code !== 0) throw new Error(`run -d: ${err}`);
  return out.trim();
}

/** Runs a verb with --json; gives the document it printed. */
export async function json(...words: string[]): Promise<Record<string, unknown>> {
  const said = await virtRun([...words, "--json"]);
  const document = JSON.parse(said.out) as Record<string, unknown>;
  if (document["schemaVersion"] !== 1) throw new Error(`${words.join(" ")}: no schemaVersion: ${said.out}`);
  return document;
}

/** Starts any program, and keeps what it says; `options.input` is all of its standard input, else that stays open. */
export function running(
  command: string,
  words: readonly string[],
  options: SpawnOptions & { input?: string | Buffer } = {},
): Running {
  const { input, ...rest } = options;
  const child = spawn(command, words, { cwd: sandbox, stdio: "pipe", ...rest });
  const said: Said = { code: null, signal: null, out: "", err: "" };
  child.stdout?.on("data", (bytes: Buffer) => {
    said.out += bytes;
  });
  child.stderr?.on("data", (bytes: Buffer) => {
    said.err += bytes;
  });
  child.stdin?.on("error", () => {}); // it may end without reading
  if (input !== undefined) child.stdin?.end(input);
  const ended = new Promise<Said>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve(Object.assign(said, { code, signal })));
  });
  return { child, said, ended };
}
