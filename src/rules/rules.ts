/**
 * Rules: what becomes of a pod's system calls. Plain data, from a JSON file or the SDK; checked here, decided by virt-init
 * (native/interpose/rules.cc) without any supervisor.
 */
import { isIP } from "node:net";
import { constants } from "node:os";
import { VirtError } from "../errors.js";

/**
 * Calls a rule or a hook is about, by what they do: `open` open(2), openat, openat2, creat; `unlink` also rmdir; `mkdir`
 * also mknod; `link` also symlink; `exec` execve and execveat; `stat` also access and readlink; `sendto` also sendmsg with an
 * address; `kill` also tkill, tgkill, rt_sigqueueinfo. docs/interposer.md lists them all.
 *
 * @example
 * const on: CallName[] = ["open", "connect"];
 */
export type CallName =
  | "open"
  | "stat"
  | "unlink"
  | "rename"
  | "mkdir"
  | "link"
  | "chmod"
  | "chown"
  | "truncate"
  | "exec"
  | "socket"
  | "bind"
  | "connect"
  | "listen"
  | "sendto"
  | "kill";

/** An errno(3) by name: "EACCES". */
export type ErrnoName = keyof typeof constants.errno;

/**
 * One rule: which calls, and what becomes of them. The first rule that matches decides. All conditions must hold; exactly
 * one of pass, deny, redirect, remap, record, ask says what is done.
 *
 * @example
 * const rules: Rule[] = [
 *   { on: "open", path: "/etc/secret", deny: "EACCES" },
 *   { on: "connect", address: "10.0.0.0/8", port: 5432, redirect: { host: "127.0.0.1", port: 15432 } },
 *   { on: "bind", port: 8080, remap: 9090 },
 * ];
 */
export interface Rule {
  /** Which calls; several or one. A `remap` of a path needs none: it is a mount, and holds for every call. */
  on?: CallName | CallName[];
  /**
   * Of files and unix sockets, as the pod sees them, after symbolic links: a path means that and all below it; with "*", "?"
   * or "[…]" it is a pattern (glob(7)), in which "**" goes across directories.
   */
  path?: string;
  /** Of `open`: only those for reading, or only those that may write or create. Default: both. */
  access?: "read" | "write";
  /** An IP address or network: "10.0.0.7", "10.0.0.0/8", "fd00::/8". */
  address?: string;
  /** A port, or "FROM-TO". */
  port?: number | string;
  /** The program that makes the call: path or pattern, as `path`. */
  program?: string;
  /** Of `socket`: the address family (socket(2)). */
  family?: "unix" | "inet" | "inet6" | "netlink" | "packet";

  /** The kernel makes the call, whatever later rules say. */
  pass?: true;
  /** The call fails with this error. */
  deny?: ErrnoName;
  /**
   * The call is made with another path (open, unlink, mkdir, chmod, chown, truncate, and unix sockets' bind and connect), or
   * with another address or port (bind, connect, sendto). The program is told the address it asked for.
   */
  redirect?: string | { host?: string; port?: number };
  /**
   * A port or address of `bind`, `connect` or `sendto`, as `redirect`; or, of a rule with `path` alone, where on the host that
   * path is: a bind mount, as `remap: { path }` of LaunchOptions.
   */
  remap?: number | string;
  /** The call is made, and goes into the journal or not, whatever the pod's recording says. */
  record?: boolean;
  /** A hook decides (LaunchOptions.hooks); if none answers in time, `default` is done. */
  ask?: true;
  /** Of `ask`, in milliseconds. Default 5000. */
  timeoutMs?: number;
  /** Of `ask`. Default "pass". */
  default?: "pass" | { deny: ErrnoName };
}

/** A rule as it is kept: checked, numbers instead of words. @internal */
export interface CompiledRule {
  kinds: number;
  path: string;
  program: string;
  address: Buffer;
  prefix: number;
  portFrom: number;
  portTo: number;
  family: number;
  verdict: number;
  errno: number;
  toPath: string;
  toAddress: Buffer;
  toPort: number;
  timeoutMs: number;
  fallback: number;
  fallbackErrno: number;
}

const bit = (kind: number) => 1 << kind;
const openForWriting = bit(0);
const openForReading = bit(14);

/** Bits of native/interpose/calls.h. */
export const kindsOf: Record<CallName, number> = {
  open: openForWriting | openForReading,
  unlink: bit(1),
  rename: bit(2),
  mkdir: bit(3),
  link: bit(4),
  chmod: bit(5),
  chown: bit(6),
  truncate: bit(7),
  bind: bit(8),
  connect: bit(9),
  listen: bit(10),
  sendto: bit(11) | bit(19),
  exec: bit(12),
  stat: bit(15),
  kill: bit(16),
  socket: bit(17),
};

/** Native numbers of kinds, by bit, as names. @internal */
export function callNameOf(kind: number): CallName {
  const found = Object.entries(kindsOf).find(([, bits]) => (bits & bit(kind)) !== 0);
  if (!found) throw new VirtError("ERR_BAD_VALUE", `the pod's init speaks of calls of kind ${kind}`);
  return found[0] as CallName;
}

/** Kinds of calls by name, as bits. Errors: ERR_RULE, which begins with `what`. @internal */
export function kindsNamed(calls: readonly CallName[], what: string): number {
  return calls.reduce((all, call) => {
    if (!Object.hasOwn(kindsOf, call))
      throw new VirtError("ERR_RULE", `${what} has '${String(call)}'; there are ${names()}`);
    return all | kindsOf[call];
  }, 0);
}

const verdicts = { pass: 0, deny: 1, redirect: 2, ask: 3, record: 4, silent: 5 } as const;
const families = { unix: 1, inet: 2, inet6: 10, netlink: 16, packet: 17 } as const;
const fields = new Set([
  ...["on", "path", "access", "address", "port", "program", "family"],
  ...["pass", "deny", "redirect", "remap", "record", "ask", "timeoutMs", "default"],
]);
const redirectsPath: CallName[] = ["open", "unlink", "mkdir", "chmod", "chown", "truncate", "bind", "connect"];
const redirectsAddress: CallName[] = ["bind", "connect", "sendto"];
const mostRules = 4096;
const mostPathBytes = 4095;

/**
 * The rules of a JSON file: a list, or { "rules": [...] }.
 *
 * @throws VirtError ERR_RULE: it is no JSON, or no list.
 */
export function parseRules(text: string, path: string): Rule[] {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (cause) {
    throw new VirtError("ERR_RULE", `${path}: ${(cause as Error).message}`, { path, cause });
  }
  const list = Array.isArray(data) ? data : (data as { rules?: unknown } | null)?.rules;
  if (!Array.isArray(list)) throw new VirtError("ERR_RULE", `${path}: a list of rules is expected`, { path });
  return list as Rule[];
}

/** Rules that are mounts, as { OLD: NEW }; the others are compileRules()'s. @internal */
export function pathsOfRules(rules: readonly Rule[]): Record<string, string> {
  const remaps: Record<string, string> = {};
  for (const [i, rule] of rules.entries()) {
    if (!isMount(rule)) continue;
    if (typeof rule.remap !== "string" || rule.path === undefined) throw wrong(i, "remap", "is a path of the host");
    remaps[rule.path] = rule.remap;
  }
  return remaps;
}

function isMount(rule: Rule): boolean {
  return rule?.remap !== undefined && rule.on === undefined;
}

/**
 * Checks rules and turns them into what virt-init takes.
 *
 * @throws VirtError ERR_RULE: says which rule, which member, and what is expected.
 */
export function compileRules(rules: readonly Rule[]): CompiledRule[] {
  if (rules.length > mostRules) throw new VirtError("ERR_RULE", `at most ${mostRules} rules`);
  return rules.flatMap((rule, i) => {
    if (typeof rule !== "object" || rule === null) throw wrong(i, "", "is an object");
    for (const name of Object.keys(rule)) {
      if (!fields.has(name)) throw wrong(i, name, `is unknown; there are ${[...fields].join(", ")}`);
    }
    return isMount(rule) ? [] : [compileRule(rule, i)];
  });
}

function wrong(index: number, name: string, what: string): VirtError {
  return new VirtError("ERR_RULE", `rule ${index + 1}: ${name === "" ? "it" : `'${name}'`} ${what}`);
}

function compileRule(rule: Rule, i: number): CompiledRule {
  const calls = [rule.on ?? []].flat();
  if (calls.length === 0) throw wrong(i, "on", `says which calls: one of, or a list of, ${names()}`);
  let kinds = kindsNamed(calls, `rule ${i + 1}: 'on'`);
  const given = (["pass", "deny", "redirect", "remap", "record", "ask"] as const).filter((v) => rule[v] !== undefined);
  const [does, ...others] = given;
  if (does === undefined || others.length > 0)
    throw wrong(i, "", "says exactly one of pass, deny, redirect, remap, record, ask");
  if (rule.access !== undefined) {
    if (rule.access !== "read" && rule.access !== "write") throw wrong(i, "access", "is 'read' or 'write'");
    kinds &= ~(rule.access === "read" ? openForWriting : openForReading);
    if (kinds === 0 || !calls.includes("open")) throw wrong(i, "access", "is about 'open'");
  }
  const network = rule.address === undefined ? { bytes: Buffer.alloc(0), prefix: 0 } : parseNetwork(rule.address, i);
  const [portFrom, portTo] = rule.port === undefined ? [0, 65535] : parsePorts(rule.port, i);
  const compiled: CompiledRule = {
    kinds,
    path: rule.path === undefined ? "" : checkPath(rule.path, i, "path"),
    program: rule.program === undefined ? "" : checkPath(rule.program, i, "program"),
    address: network.bytes,
    prefix: network.prefix,
    portFrom,
    portTo,
    family: rule.family === undefined ? 0 : familyOf(rule.family, calls, i),
    verdict: verdicts.pass,
    errno: 0,
    toPath: "",
    toAddress: Buffer.alloc(0),
    toPort: -1,
    timeoutMs: 0,
    fallback: verdicts.pass,
    fallbackErrno: 0,
  };
  if (does !== "ask" && (rule.timeoutMs !== undefined || rule.default !== undefined))
    throw wrong(i, rule.default === undefined ? "timeoutMs" : "default", "belongs to 'ask'");
  switch (does) {
    case "pass":
    case "ask":
      if (rule[does] !== true) throw wrong(i, does, "is true");
      compiled.verdict = verdicts[does];
      if (does === "ask") compileAsk(rule, compiled, i);
      break;
    case "record":
      if (typeof rule.record !== "boolean") throw wrong(i, "record", "is true or false");
      compiled.verdict = rule.record ? verdicts.record : verdicts.silent;
      break;
    case "deny":
      compiled.verdict = verdicts.deny;
      compiled.errno = errnoOf(rule.deny, i, "deny");
      break;
    default:
      compiled.verdict = verdicts.redirect;
      compileRedirect(rule, does, calls, compiled, i);
  }
  return compiled;
}

const names = () => Object.keys(kindsOf).join(", ");

function compileAsk(rule: Rule, compiled: CompiledRule, i: number): void {
  if (rule.timeoutMs !== undefined) {
    if (!Number.isInteger(rule.timeoutMs) || rule.timeoutMs < 1 || rule.timeoutMs > 3_600_000)
      throw wrong(i, "timeoutMs", "is a number of milliseconds, at most an hour");
    compiled.timeoutMs = rule.timeoutMs;
  }
  if (rule.default === undefined || rule.default === "pass") return;
  compiled.fallback = verdicts.deny;
  compiled.fallbackErrno = errnoOf(rule.default?.deny, i, "default");
}

function compileRedirect(
  rule: Rule,
  does: "redirect" | "remap",
  calls: CallName[],
  compiled: CompiledRule,
  i: number,
): void {
  const to = rule[does];
  const target =
    does === "remap" && typeof to === "number"
      ? { port: to }
      : does === "remap" && typeof to === "string" && !to.startsWith("/")
        ? { host: to }
        : to;
  const possible = typeof target === "string" ? redirectsPath : redirectsAddress;
  const not = calls.find((call) => !possible.includes(call));
  if (not !== undefined) {
    const what = typeof target === "string" ? "another path" : "another address";
    throw wrong(i, does, `gives ${what} to ${possible.join(", ")}, not to ${not}`);
  }
  if (typeof target === "string") {
    compiled.toPath = checkPath(target, i, does);
    return;
  }
  if (typeof target !== "object" || target === null || (target.host === undefined && target.port === undefined))
    throw wrong(i, does, "is a path, or { host, port } with one of them at least");
  if (target.host !== undefined) compiled.toAddress = parseAddress(target.host, i, does);
  if (target.port !== undefined) [compiled.toPort] = parsePorts(target.port, i, does);
}

function checkPath(path: unknown, i: number, name: string): string {
  if (
    typeof path !== "string" ||
    !/^[/@*]/.test(path) ||
    path.includes("\0") ||
    Buffer.byteLength(path) > mostPathBytes
  )
    throw wrong(i, name, "is an absolute path");
  return path.length > 1 && path.endsWith("/") ? path.slice(0, -1) : path;
}

function familyOf(family: string, calls: CallName[], i: number): number {
  if (!calls.includes("socket")) throw wrong(i, "family", "is about 'socket'");
  if (!Object.hasOwn(families, family)) throw wrong(i, "family", `is one of ${Object.keys(families).join(", ")}`);
  return families[family as keyof typeof families];
}

function errnoOf(name: unknown, i: number, member: string): number {
  if (typeof name !== "string" || !Object.hasOwn(constants.errno, name))
    throw wrong(i, member, "is the name of an error, as EACCES");
  return constants.errno[name as ErrnoName];
}

function parsePorts(port: number | string, i: number, name = "port"): [number, number] {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(String(port));
  const from = Number(match?.[1]);
  const to = Number(match?.[2] ?? match?.[1]);
  if (!match || from < 1 || to > 65535 || from > to || (name !== "port" && from !== to))
    throw wrong(i, name, name === "port" ? "is a port, or FROM-TO" : "has a port from 1 to 65535");
  return [from, to];
}

function parseNetwork(text: string, i: number): { bytes: Buffer; prefix: number } {
  const [host = "", length, ...more] = String(text).split("/");
  const bytes = parseAddress(host, i, "address");
  const most = bytes.length * 8;
  const prefix = length === undefined ? most : /^\d{1,3}$/.test(length) ? Number(length) : -1;
  if (more.length > 0 || prefix < 0 || prefix > most) throw wrong(i, "address", `'${text}' is no network`);
  return { bytes, prefix };
}

/** 4 or 16 bytes. @internal */
export function addressBytes(text: string): Buffer | undefined {
  if (isIP(text) === 4) return Buffer.from(text.split(".").map(Number));
  if (isIP(text) !== 6 || text.includes("%")) return undefined;
  // "::" stands for as many zeros as are missing; an IPv4 tail for two groups.
  const tail = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text);
  const hex = tail
    ? `${tail[1]}${(Number(tail[2]) * 256 + Number(tail[3])).toString(16)}:${(Number(tail[4]) * 256 + Number(tail[5])).toString(16)}`
    : text;
  const [left = "", right] = hex.split("::");
  const groups = (part: string) => (part === "" ? [] : part.split(":"));
  const missing = right === undefined ? 0 : 8 - groups(left).length - groups(right).length;
  const all = [...groups(left), ...Array<string>(missing).fill("0"), ...groups(right ?? "")];
  const bytes = Buffer.alloc(16);
  for (const [n, group] of all.entries()) bytes.writeUInt16BE(Number.parseInt(group, 16), n * 2);
  return bytes;
}

function parseAddress(text: unknown, i: number, name: string): Buffer {
  const bytes = typeof text === "string" ? addressBytes(text) : undefined;
  if (!bytes) throw wrong(i, name, `has '${String(text)}', which is no IP address`);
  return bytes;
}
