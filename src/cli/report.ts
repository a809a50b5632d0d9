/**
 * How the command line speaks: errors with code and cure, blockers one by one, sizes and times for people.
 */
import { type Blocker, toVirtError, type VirtError } from "../errors.js";
import type { ProcessInfo } from "../pod/inspect.js";

export interface ReportOptions {
  json: boolean;
  /** A program was to be launched: 125, 126, 127 instead of 1 and 2. */
  launching: boolean;
}

/** Prints an error; gives the exit code for it. */
export function reportError(thrown: unknown, { json, launching }: ReportOptions): number {
  const error = toVirtError(thrown);
  if (json) {
    printJson({ error: error.toJSON() });
  } else {
    const lines = [`virt-run: ${printable(oneLine(error))} (${error.code})`];
    for (const blocker of error.blockers ?? []) lines.push(...describeBlocker(blocker));
    if (
      error.hint !== "" &&
      (error.blockers === undefined || error.blockers.length === 0 || error.code === "ERR_BLOCKED")
    )
      lines.push(`  ${error.hint}`);
    for (const more of error.attached ?? []) lines.push(`  also: ${more}`);
    process.stderr.write(`${lines.join("\n")}\n`);
    if (process.env["VIRT_RUN_LOG"]?.includes("debug")) process.stderr.write(`${error.stack}\n`);
  }
  if (error.code === "ERR_USAGE") return launching ? 125 : 2;
  if (!launching) return 1;
  return error.code === "ERR_NOT_FOUND" ? 127 : error.code === "ERR_NOT_EXECUTABLE" ? 126 : 125;
}

function oneLine(error: VirtError): string {
  // Blockers are listed below: their text need not be in the heading as well.
  if (error.blockers && error.blockers.length > 0) return error.message.split(": ")[0] as string;
  return error.message;
}

/** "  pid 7, fd 3 (pipe): what it is" and the cure below it. */
export function describeBlocker(b: Blocker): string[] {
  const where = [b.pid === undefined ? "" : `pid ${b.pid}`, b.fd === undefined ? "" : `fd ${b.fd}`]
    .filter(Boolean)
    .join(", ");
  const kind = b.kind ? ` (${b.kind})` : "";
  const path = b.path && !b.message.includes(b.path) ? `, ${b.path}` : "";
  const lines = [`  ${where}${kind}${where || kind ? ": " : ""}${printable(b.message + path)} [${b.code}]`];
  if (b.hint) lines.push(`      ${printable(b.hint)}`);
  return lines;
}

/** One JSON document on standard output. */
export function printJson(document: Record<string, unknown>): void {
  process.stdout.write(`${JSON.stringify({ schemaVersion: 1, ...document }, null, 2)}\n`);
}

/** Text from outside on its way to a terminal: control characters are shown, not sent (terminals obey them). */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it is about
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let n = bytes;
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit++;
  }
  return `${unit === 0 ? n : n.toFixed(1)} ${units[unit]}`;
}

export function formatAge(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86400)}d`;
}

/** A table with a heading; columns as wide as they need to be. */
export function table(heading: string[], rows: string[][]): string {
  const widths = heading.map((h, i) => Math.max(h.length, ...rows.map((r) => (r[i] ?? "").length)));
  return [heading, ...rows]
    .map((row) =>
      row
        .map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i] ?? 0)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** Processes of a pod with both their pids. */
export function processTable(processes: readonly ProcessInfo[]): string {
  return table(
    ["PID", "HOST PID", "PARENT", "STATE", "THREADS", "MEMORY", "COMMAND"],
    processes.map((p) => [
      String(p.pid),
      String(p.hostPid),
      String(p.ppid),
      p.state,
      String(p.threads),
      formatBytes(p.residentBytes),
      formatCommand(p.command),
    ]),
  );
}

/** A command as a shell would take it, cut at `most` characters. */
export function formatCommand(command: readonly string[], most = 60): string {
  const text = command.map((w) => (/^[\w@%+=:,./-]+$/.test(w) ? w : `'${w.replaceAll("'", "'\\''")}'`)).join(" ");
  return cut(printable(text), most);
}

function cut(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** The answer of a check of a pod or image. */
export function tellBlockers(what: string, blockers: readonly Blocker[], json = false): void {
  if (json) printJson({ ok: blockers.length === 0, blockers });
  else if (blockers.length === 0) process.stdout.write(`${what}: nothing stands in the way\n`);
  else process.stdout.write(`${[`${what}: in the way:`, ...blockers.flatMap(describeBlocker)].join("\n")}\n`);
}
