/**
 * Where a move goes, as users write it: ssh://[user@]host[:port], host: and user@host: as scp has it, tls://host[:port],
 * unix:PATH.
 */
import { isIP } from "node:net";
import { VirtError } from "../../errors.js";
import { parseAddress } from "../../remap/address.js";

/** A checked target: nothing in it can be taken for an option, or mean anything to a shell. */
export type Target =
  | { kind: "ssh"; host: string; user?: string; port?: number }
  | { kind: "tls"; host: string; port: number }
  | { kind: "unix"; path: string };

/** The port of an agent (`virt-run serve`) that was told no other. */
export const agentPort = 7420;

const forms = "ssh://[user@]host[:port], host:, user@host:, tls://host[:port] or unix:PATH";
const hostName = /^[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9_])?\.?$/;
// As ssh itself has it since 9.6: a user's configuration may hand the name to a shell (%r).
const userName = /^[^-\s:/'"`$\\;&<>|(){}[\]][^\s:/'"`$\\;&<>|(){}[\]]{0,254}$/;

/**
 * Reads a target. Errors: ERR_USAGE.
 *
 * @example
 * parseTarget("ssh://ann@b:2222"); // { kind: "ssh", user: "ann", host: "b", port: 2222 }
 * parseTarget("b:"); // { kind: "ssh", host: "b" }
 */
export function parseTarget(text: string): Target {
  const no = (why: string) => new VirtError("ERR_USAGE", `'${text}' is no target: ${why}`, { hint: `one of ${forms}` });
  if (text.includes("\0")) throw no("it has a zero byte");
  if (text.startsWith("unix:")) {
    const path = text.slice(5);
    // unix(7): the kernel's own limit; a longer one would be cut by nobody's leave.
    if (path === "" || Buffer.byteLength(path) > 107) throw no("a socket's path has 1 to 107 bytes");
    return { kind: "unix", path };
  }
  if (text.startsWith("tls://")) {
    const { host, port } = hostAndPort(text.slice(6).replace(/\/$/, ""), no);
    return { kind: "tls", host, port: port ?? agentPort };
  }
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):\/\//.exec(text)?.[1];
  if (scheme !== undefined && scheme !== "ssh") throw no(`nothing is known of ${scheme}://`);
  let rest = scheme === undefined ? text : text.slice(6).replace(/\/$/, "");
  const at = rest.lastIndexOf("@");
  const user = at < 0 ? undefined : rest.slice(0, at);
  rest = rest.slice(at + 1);
  if (user !== undefined && !userName.test(user)) throw no("the user's name is empty, or has characters that none has");
  const named = user === undefined ? {} : { user };
  if (scheme === "ssh") return { kind: "ssh", ...named, ...hostAndPort(rest, no) };
  // As scp has it: a colon at the end, and IPv6 addresses in brackets before it.
  if (!rest.endsWith(":")) {
    throw no(rest.includes(":") ? "nothing comes after the colon; a port needs ssh://" : "a host ends with a colon");
  }
  rest = rest.slice(0, -1);
  if (isIP(rest) === 6) throw no("IPv6 addresses have brackets");
  const { host, port } = hostAndPort(rest, no);
  if (port !== undefined) throw no("a port needs ssh://");
  return { kind: "ssh", ...named, host };
}

/** As parseTarget() takes it. */
export function showTarget(target: Target): string {
  if (target.kind === "unix") return `unix:${target.path}`;
  const host = isIP(target.host) === 6 ? `[${target.host}]` : target.host;
  const user = target.kind === "ssh" && target.user !== undefined ? `${target.user}@` : "";
  return `${target.kind}://${user}${host}${target.port === undefined ? "" : `:${target.port}`}`;
}

function hostAndPort(text: string, no: (why: string) => VirtError): { host: string; port?: number } {
  const found = parseAddress(text);
  const [, name = "", digits] = /^([^:[\]]*)(?::(\d{1,5}))?$/.exec(text) ?? [];
  const host = found?.address ?? name;
  const port = found ? found.port : digits === undefined ? undefined : Number(digits);
  if (isIP(host) === 0 && !hostName.test(host)) throw no(host === "" ? "it names no host" : `'${host}' is no host`);
  if (port !== undefined && (port < 1 || port > 65535)) throw no("ports are 1 to 65535");
  return { host, ...(port !== undefined && { port }) };
}
