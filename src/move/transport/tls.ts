/**
 * The way over TLS 1.3 to an agent (`virt-run serve`). Certificates are shown by both sides and signed by nobody: each side knows
 * the other's public key since they were enrolled (enroll.ts), and talks to no other.
 */
import { constants } from "node:crypto";
import { connect, type SecureContextOptions, type TLSSocket } from "node:tls";
import { VirtError } from "../../errors.js";
import { fingerprintOf } from "./certificate.js";
import { type Identity, loadIdentity } from "./identity.js";
import { readLine } from "./line.js";
import { loadPeers } from "./peers.js";
import { pumpStream } from "./stream.js";
import { showTarget, type Target } from "./target.js";
import type { OpenOptions, Transport } from "./transport.js";

type TlsTarget = Extract<Target, { kind: "tls" }>;

/** What a connection is for, as the handshake says it (ALPN): another version is another word, and is refused there. */
export const protocols = { move: "virt-run-move/1", enroll: "virt-run-enroll/1" } as const;

const connectTimeoutMs = 30_000;
/** How often the kernel asks a silent peer whether it is there. */
export const keepAliveMs = 30_000;

/** What both sides of a connection have in common. */
export function secureOptions(identity: Identity) {
  return {
    key: identity.key,
    cert: identity.cert,
    minVersion: "TLSv1.3",
    maxVersion: "TLSv1.3",
    // Every connection shows its certificate anew.
    secureOptions: constants.SSL_OP_NO_TICKET,
    // No authority has signed anything: what is checked is the key, below and in agent.ts.
    rejectUnauthorized: false,
    allowHalfOpen: true,
  } as const satisfies SecureContextOptions & Record<string, unknown>;
}

/** The fingerprint of whoever is at the other end, who has proved to have the key; nothing if it showed none. */
export function peerFingerprint(socket: TLSSocket): string | undefined {
  const certificate = socket.getPeerX509Certificate();
  return certificate && fingerprintOf(certificate);
}

/**
 * Connects to an agent that was enrolled. Errors: ERR_NOT_ENROLLED (it is not known here, or does not know us), ERR_HOST_KEY,
 * ERR_UNREACHABLE, ERR_REMOTE_VERSION, ERR_TRANSPORT, ERR_ABORTED.
 */
export async function openTls(target: TlsTarget, options: OpenOptions = {}): Promise<Transport> {
  const where = showTarget(target);
  const identity = loadIdentity();
  const pinned = loadPeers().find((p) => p.agents.includes(where));
  if (pinned === undefined) throw new VirtError("ERR_NOT_ENROLLED", `${where} is not known here`, { path: where });
  const socket = await connectSecurely(target, identity, protocols.move, options);
  try {
    if (peerFingerprint(socket) !== pinned.fingerprint) {
      throw new VirtError("ERR_HOST_KEY", `${where} has another key than the one that was enrolled`, { path: where });
    }
    checkWelcome(await readLine(socket, options.connectTimeoutMs ?? connectTimeoutMs, options.signal), where);
  } catch (e) {
    socket.destroy();
    throw e;
  }
  const pumped = pumpStream(socket);
  const { localAddress } = socket;
  return {
    ...pumped,
    ...(localAddress !== undefined && { localAddressSeenByPeer: localAddress }),
    failure: pumped.ended.then((e) => e && cut(where, e)),
    describe: () => where,
  };
}

/** An agent's first line: {"ok":true}, or {"refused":"why"}. */
function checkWelcome(line: string, where: string): void {
  const said = parseLine(line, where);
  if (said["ok"] === true) return;
  if (said["refused"] === "unknown") {
    throw new VirtError("ERR_NOT_ENROLLED", `${where} does not know this host`, { path: where });
  }
  if (said["refused"] === "busy") {
    const hint = "try again when one of its moves has ended";
    throw new VirtError("ERR_TRANSPORT", `${where} takes no more pods at the same time`, { path: where, hint });
  }
  throw new VirtError("ERR_TRANSPORT", `${where} has refused`, { path: where });
}

/** One JSON object of the other side's. */
export function parseLine(line: string, where: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(line);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // said below
  }
  throw new VirtError("ERR_TRANSPORT", `${where} says what is not understood`, { path: where });
}

/** The other side ended the stream, or it broke. */
export function cut(where: string, cause?: unknown): VirtError {
  const why = cause instanceof Error ? `: ${(cause as NodeJS.ErrnoException).code ?? cause.message}` : "";
  return new VirtError("ERR_TRANSPORT", `the connection to ${where} was cut${why}`, { path: where, cause });
}

/** A TLS connection whose peer has proved to have the key that it shows: which that is, the caller checks. */
export function connectSecurely(
  { host, port }: TlsTarget,
  identity: Identity,
  protocol: string,
  options: OpenOptions,
): Promise<TLSSocket> {
  const where = showTarget({ kind: "tls", host, port });
  const { signal, connectTimeoutMs: limitMs = connectTimeoutMs } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) throw aborted(where);
    const socket = connect({ host, port, ...secureOptions(identity), ALPNProtocols: [protocol] });
    const timer = setTimeout(
      () => socket.destroy(new VirtError("ERR_UNREACHABLE", `${where} does not answer`, { path: where })),
      limitMs,
    );
    const abort = () => socket.destroy(aborted(where));
    const settle = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      socket.removeListener("error", fail).removeListener("close", close);
    };
    const fail = (e: Error) => {
      settle();
      reject(e instanceof VirtError ? e : connectFailure(e, where));
    };
    const close = () => fail(cut(where));
    signal?.addEventListener("abort", abort, { once: true });
    socket.on("error", fail).on("close", close);
    socket.once("secureConnect", () => {
      settle();
      socket.on("error", () => {}); // whoever reads hears of it
      socket.setKeepAlive(true, keepAliveMs).setNoDelay(true);
      if (socket.alpnProtocol === protocol) return resolve(socket);
      socket.destroy();
      reject(connectFailure(new Error("it is no agent"), where));
    });
  });
}

function aborted(where: string): VirtError {
  return new VirtError("ERR_ABORTED", `connecting to ${where} was given up`, { path: where });
}

function connectFailure(e: NodeJS.ErrnoException, where: string): VirtError {
  const details = { path: where, phase: "connect", cause: e };
  if (e.code?.endsWith("_ALERT_NO_APPLICATION_PROTOCOL")) {
    return new VirtError("ERR_REMOTE_VERSION", `the agent at ${where} speaks another version`, details);
  }
  if (e.syscall !== undefined && e.code !== "ECONNRESET" && e.code !== "EPIPE") {
    return new VirtError("ERR_UNREACHABLE", `${where} cannot be reached: ${e.code}`, { ...details, errnoName: e.code });
  }
  const hint = "is it an agent (`virt-run serve`) that listens there?";
  return new VirtError("ERR_TRANSPORT", `no TLS with ${where}: ${e.code ?? e.message}`, { ...details, hint });
}
