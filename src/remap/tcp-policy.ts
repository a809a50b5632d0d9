/**
 * What becomes of TCP connections to outside when a pod is detached, by peer.
 */
import { isIP } from "node:net";
import { VirtError } from "../errors.js";
import { parseAddress } from "./address.js";

/**
 * "hold": the pod's init keeps the very connection (docs/connections.md). "close": its program finds it reset (ECONNRESET).
 * "reconnect": the peer is dialled again at the reattach; if it does not answer within 3 s, reset. "repair": the kernel's state of
 * the connection goes into the image, for a host that has its address then; root only (CAP_NET_ADMIN).
 *
 * @example
 * const policy: TcpPolicy = "reconnect";
 */
export type TcpPolicy = "hold" | "close" | "reconnect" | "repair";

/**
 * A policy for the connections to one peer; without address to any, without port at any port.
 *
 * @example
 * const rule: TcpRule = { policy: "close", address: "10.0.0.9", port: 5432 };
 */
export interface TcpRule {
  policy: TcpPolicy;
  /** IPv4 or IPv6, as getpeername(2) gives it. */
  address?: string;
  /** 1 to 65535. */
  port?: number;
}

const policies: readonly string[] = ["hold", "close", "reconnect", "repair"] satisfies TcpPolicy[];

/** Checks what a user gave. Errors: ERR_USAGE. */
export function checkTcp(policy: TcpPolicy | undefined, rules: readonly TcpRule[] | undefined) {
  const checked = (p: string) => {
    if (!policies.includes(p))
      throw new VirtError("ERR_USAGE", `the tcp policy '${p}' is none of ${policies.join(", ")}`);
    return p;
  };
  return {
    otherwise: checked(policy ?? "hold"),
    rules: (rules ?? []).map((rule) => {
      if (rule.address !== undefined && isIP(rule.address) === 0)
        throw new VirtError("ERR_USAGE", `'${rule.address}' is no IP address`);
      if (rule.port !== undefined && !(Number.isInteger(rule.port) && rule.port > 0 && rule.port < 65536))
        throw new VirtError("ERR_USAGE", `${rule.port} is no port`);
      return {
        policy: checked(rule.policy),
        ...(rule.address === undefined ? {} : { address: rule.address }),
        ...(rule.port === undefined ? {} : { port: rule.port }),
      };
    }),
  };
}

/** Whether a connection is to go on, and not another one or none. */
export function keepsConnections(policy: string | undefined): boolean {
  return policy === undefined || policy === "hold" || policy === "repair";
}

/** `--tcp POLICY` and `--tcp POLICY=[ADDRESS][:PORT]`, in any number; of several without peer the last holds. */
export function parseTcp(values: readonly string[]): { tcp?: TcpPolicy; tcpRules?: TcpRule[] } {
  let tcp: TcpPolicy | undefined;
  const tcpRules: TcpRule[] = [];
  for (const value of values) {
    const [policy, ...rest] = value.split("=");
    const peer = rest.join("=");
    if (rest.length === 0) {
      tcp = policy as TcpPolicy;
      continue;
    }
    const parsed = parseAddress(peer);
    if (!parsed)
      throw new VirtError("ERR_USAGE", `--tcp ${value}: ADDRESS, :PORT or ADDRESS:PORT, IPv6 with a port in brackets`);
    tcpRules.push({ policy: policy as TcpPolicy, ...parsed });
  }
  checkTcp(tcp, tcpRules);
  return { ...(tcp === undefined ? {} : { tcp }), ...(tcpRules.length === 0 ? {} : { tcpRules }) };
}
