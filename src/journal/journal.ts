/**
 * The journal of a pod: its effects on the world outside it, in the order in which they were seen, as virt-init writes
 * them down (JSON lines) whether or not a supervisor is there.
 */
import { closeSync, openSync, readFileSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { VirtError } from "../errors.js";

/**
 * What every effect says.
 *
 * @example
 * const when: EffectBase = { time: "2026-01-31T12:00:00.000Z", pid: 2, program: "/usr/bin/git", call: "openat", result: "ok" };
 */
export interface EffectBase {
  /** When the call was made, RFC 3339. */
  time: string;
  /** The process, as the pod sees it. */
  pid: number;
  /** As the host sees it; absent where that could not be told. */
  hostPid?: number;
  /** Its program, absolute. */
  program: string;
  /** The system call, section 2 of the manual. */
  call: string;
  /** "ok"; of a call that a rule or a hook refused, or sent elsewhere in vain, the error: "EACCES". */
  result: string;
  /** What the program asked for, where a rule or a hook put another path or address in its place. */
  asked?: string;
}

/**
 * One side effect, by kind. Paths are absolute, without symbolic links before the last part, as the pod sees them; bytes
 * that are no UTF-8 are shown as U+FFFD.
 *
 * @example
 * for (const e of pod.effects()) if (e.kind === "create") console.log(e.path);
 */
export type Effect = EffectBase &
  (
    | { kind: "create" | "write" | "remove" | "make" | "execute" | "read" | "look"; path: string }
    | { kind: "kill"; target: number; signal: number }
    | { kind: "socket" }
    /** The journal itself: here lines are missing, `lines` where they could be counted. Its disk was full, or it grew too large. */
    | { kind: "lost"; lines?: number }
    | { kind: "rename"; path: string; to: string }
    | { kind: "mode"; path: string; mode: string }
    | { kind: "owner"; path: string; uid: number; gid: number }
    | { kind: "truncate"; path: string; sizeBytes: number }
    | ({ kind: "bind" | "connect" | "listen" | "send"; socket: "stream" | "datagram" | "other" } & (
        | { address: string; port: number }
        | { path: string }
      ))
  );

/**
 * All that is in the journal of a directory of the store; [] if nothing was recorded.
 *
 * @throws VirtError ERR_JOURNAL with the path and the number of the line.
 */
export function readJournal(directory: string): Effect[] {
  return [...readPart(directory, "journal.1"), ...readPart(directory, "journal")];
}

function readPart(directory: string, name: string): Effect[] {
  const path = join(directory, name);
  try {
    return parse(readFileSync(path, "utf8"), path);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw e;
  }
}

function parse(text: string, path: string, firstLine = 1): Effect[] {
  return text.split("\n").flatMap((line, i) => {
    if (line === "") return [];
    let effect: Effect | undefined;
    try {
      effect = JSON.parse(line);
    } catch {
      // said below
    }
    if (typeof effect?.kind === "string") return [effect];
    throw new VirtError("ERR_JOURNAL", `${path}: line ${firstLine + i} is no effect`, { path });
  });
}

/** What is in the journal, then what comes, until `until` resolves. */
export async function* followJournal(directory: string, until: Promise<unknown>): AsyncGenerator<Effect> {
  const pollMs = 100;
  let over = false;
  void until.then(() => {
    over = true;
  });
  const path = join(directory, "journal");
  yield* readPart(directory, "journal.1");
  let fd: number | undefined;
  let rest = "";
  let seen = 0; // lines of this file
  const buffer = Buffer.alloc(1 << 16);
  try {
    for (;;) {
      const last = over; // before the look: what is written after it belongs to the next
      fd ??= tryOpen(path);
      for (;;) {
        const n = fd === undefined ? 0 : readSync(fd, buffer);
        if (n === 0) break;
        const lines = (rest + buffer.toString("latin1", 0, n)).split("\n");
        rest = lines.pop() ?? "";
        yield* parse(Buffer.from(lines.join("\n"), "latin1").toString("utf8"), path, seen + 1);
        seen += lines.length;
      }
      if (fd !== undefined && statSync(path, { throwIfNoEntry: false })?.ino !== inode(fd)) {
        closeSync(fd); // it has grown too large, and another begins
        fd = undefined;
        rest = "";
        seen = 0;
        continue;
      }
      if (last) return;
      await Promise.race([until, new Promise((resolve) => setTimeout(resolve, pollMs))]);
    }
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function tryOpen(path: string): number | undefined {
  try {
    return openSync(path, "r");
  } catch {
    return undefined;
  }
}

function inode(fd: number): number {
  return statSync(`/proc/self/fd/${fd}`).ino;
}

/**
 * What a person wants to know: each thing once, in the order of its first mention.
 *
 * @example
 * const { created, servers } = summarize(pod.effects());
 */
export interface EffectSummary {
  /** Files, directories and links made that are still there as far as the journal tells. */
  created: string[];
  /** Files that were there before, written, truncated, or given another mode or owner. */
  changed: string[];
  /** What was there before and is gone, moved away included. */
  removed: string[];
  /** Whom it talked to: "address:port", or the path of a unix socket. */
  servers: string[];
  /** Where it can be talked to. */
  ports: string[];
  programs: string[];
  /** Where the journal does not tell everything: why, and how many lines. */
  lost: string[];
}

/** The summary of a list of effects. */
export function summarize(effects: Iterable<Effect>): EffectSummary {
  const created = new Set<string>();
  const changed = new Set<string>();
  const removed = new Set<string>();
  const servers = new Set<string>();
  const ports = new Set<string>();
  const programs = new Set<string>();
  const lost: string[] = [];
  const appear = (path: string) => {
    if (removed.delete(path)) changed.add(path);
    else created.add(path);
  };
  const vanish = (path: string) => {
    if (!created.delete(path)) removed.add(path);
    changed.delete(path);
  };
  const where = (e: { address: string; port: number } | { path: string }) =>
    "path" in e ? e.path : e.address.includes(":") ? `[${e.address}]:${e.port}` : `${e.address}:${e.port}`;
  for (const e of effects) {
    if (e.kind === "lost") lost.push(lostLines(e));
    if (e.result !== "ok") continue;
    switch (e.kind) {
      case "create":
      case "make":
        appear(e.path);
        break;
      case "write":
      case "mode":
      case "owner":
      case "truncate":
        if (!created.has(e.path)) changed.add(e.path);
        break;
      case "remove":
        vanish(e.path);
        break;
      case "rename": {
        const replaced = removed.has(e.to) || changed.has(e.to);
        vanish(e.path);
        if (replaced) changed.add(e.to);
        else appear(e.to);
        break;
      }
      case "connect":
      case "send":
        servers.add(where(e));
        break;
      case "bind":
        if ("path" in e || e.socket === "datagram") ports.add(where(e));
        break;
      case "listen":
        ports.add(where(e));
        break;
      case "execute":
        programs.add(e.path);
        break;
    }
  }
  const list = (set: Set<string>) => [...set];
  return {
    created: list(created),
    changed: list(changed),
    removed: list(removed),
    servers: list(servers),
    ports: list(ports),
    programs: list(programs),
    lost,
  };
}

/** What is missing, in words. @internal */
export function lostLines(e: Effect & { kind: "lost" }): string {
  const why = e.result === "ENOSPC" ? "its disk was full" : "it grew too large";
  return `${e.lines ?? "some"} ${e.lines === 1 ? "line" : "lines"} of the journal (${why})`;
}
