/**
 * The agent for `tls://` (`virt-run serve`): lets in whom it knows by key, and starts one `virt-run receive` for each, so that
 * what goes wrong with one pod touches no other. The agent itself only passes bytes on.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync } from "node:fs";
import { type AddressInfo, createServer as createTcpServer, type Socket } from "node:net";
import { createServer as createTlsServer, type TLSSocket } from "node:tls";
import { VirtError } from "../../errors.js";
import { native } from "../../native.js";
import { showAddress } from "../../remap/address.js";
import { answerEnrolment } from "./enroll.js";
import { loadIdentity } from "./identity.js";
import { loadPeers } from "./peers.js";
import { pumpBetween } from "./stream.js";
import { agentPort } from "./target.js";
import { keepAliveMs, peerFingerprint, protocols, secureOptions } from "./tls.js";
import { closeGraceMs, settlesWithin } from "./transport.js";

/** What an agent puts up with. */
export interface AgentLimits {
  /** Connections at a time that have not shown a key that is known, or have not said anything yet. */
  pending: number;
  /** Moves at a time. */
  sessions: number;
  /** For how long, in milliseconds, a connection may leave the agent waiting for its handshake, and then for its first word. */
  speakMs: number;
  /** Connections of one address in `windowMs`. */
  perAddress: number;
  windowMs: number;
}

export const defaultLimits: AgentLimits = {
  pending: 64,
  sessions: 16,
  speakMs: 10_000,
  perAddress: 20,
  windowMs: 10_000,
};

export interface AgentOptions {
  /** An IP address; default 127.0.0.1: other hosts reach it only where that is asked for. */
  address?: string;
  /** Default 7420; 0 lets the kernel choose. */
  port?: number;
  /** The command that receives one pod, on standard input and output. */
  receive: readonly [string, ...string[]];
  limits?: Partial<AgentLimits>;
  /** Hears what happens, a line each. */
  log?: (text: string) => void;
}

/** A running agent. */
export interface Agent {
  address: string;
  port: number;
  /** Takes nobody more, and waits for the moves that are under way. */
  close(): Promise<void>;
  /** Cuts what is under way; close() then ends soon. */
  cut(): void;
}

/**
 * Listens. Errors: ERR_PORT_IN_USE, ERR_USAGE for an address that is none of this host.
 *
 * @example
 * const agent = await startAgent({ receive: ["virt-run", "receive"] });
 */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const limits = { ...defaultLimits, ...options.limits };
  const log = options.log ?? (() => {});
  const sessions = new Set<Session>();
  const sockets = new Set<Socket>();
  const pending = new Map<string, Socket>();
  const recent = new Recent(limits);

  const secure = createTlsServer({
    ...secureOptions(loadIdentity()),
    requestCert: true,
    handshakeTimeout: limits.speakMs,
    ALPNProtocols: Object.values(protocols),
  });
  // The TCP server is one of our own, so that who is too many costs no handshake.
  const server = createTcpServer({
    allowHalfOpen: true,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: keepAliveMs,
  });
  server.on("connection", (raw) => {
    if (pending.size >= limits.pending || !recent.admit(raw.remoteAddress ?? "")) {
      raw.destroy();
      return;
    }
    const from = peerOf(raw);
    pending.set(from, raw);
    sockets.add(raw);
    raw.on("close", () => {
      pending.delete(from);
      sockets.delete(raw);
    });
    secure.emit("connection", raw);
  });
  secure.on("tlsClientError", (e: NodeJS.ErrnoException, socket: TLSSocket) => {
    log(`no TLS with ${socket.remoteAddress ?? "somebody"}: ${e.code ?? e.message}`);
    socket.destroy();
  });
  secure.on("secureConnection", (socket) => {
    socket.on("error", () => {}); // its close says enough
    void admit(socket).catch((e: Error) => {
      log(`a connection has failed: ${e.message}`);
      socket.destroy();
    });
  });

  async function admit(socket: TLSSocket): Promise<void> {
    const from = peerOf(socket);
    if (socket.alpnProtocol === protocols.enroll) {
      await answerEnrolment(socket, (text) => log(`${from}: ${text}`));
      await leave(socket);
      return;
    }
    if (socket.alpnProtocol !== protocols.move) {
      log(`${from}: refused, it does not say what for`);
      socket.destroy();
      return;
    }
    const fingerprint = peerFingerprint(socket);
    // Read anew each time: who was removed is not let in again.
    const peer = loadPeers().find((p) => p.client && p.fingerprint === fingerprint);
    const refused = peer === undefined ? "unknown" : sessions.size >= limits.sessions ? "busy" : undefined;
    if (peer === undefined || refused !== undefined) {
      log(`${from}: refused, ${refused === "busy" ? "too many moves" : `${fingerprint ?? "no key"} is not known`}`);
      socket.end(`${JSON.stringify({ refused })}\n`);
      await leave(socket);
      return;
    }
    socket.write(`${JSON.stringify({ ok: true })}\n`);
    if (!(await speaks(socket, limits.speakMs))) {
      log(`${from}: ${peer.name} says nothing`);
      socket.destroy();
      return;
    }
    pending.delete(from);
    const session = startSession(socket, options.receive);
    sessions.add(session);
    log(`${from}: ${peer.name} moves a pod here (process ${session.pid})`);
    log(`${from}: ${await session.ended}`);
    sessions.delete(session);
  }

  await new Promise<void>((resolve, reject) => {
    const { address = "127.0.0.1", port = agentPort } = options;
    server.once("error", (e: NodeJS.ErrnoException) => reject(listenFailure(e, showAddress({ address, port }))));
    server.listen({ host: address, port }, resolve);
  });
  const { address, port } = server.address() as AddressInfo;
  return {
    address,
    port,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const raw of pending.values()) raw.destroy();
      await Promise.all([...sessions].map((s) => s.ended));
      await closed;
    },
    cut() {
      for (const raw of sockets) raw.destroy();
    },
  };
}

/** "10.0.0.1:40000"; no two connections have the same while they last. */
function peerOf(socket: Socket): string {
  return showAddress({ address: plain(socket.remoteAddress), port: socket.remotePort ?? 0 });
}

/** A listener on "::" sees IPv4 mapped into IPv6. */
function plain(address: string | undefined): string {
  return (address ?? "").replace(/^::ffff:(?=[\d.]+$)/, "");
}

interface Session {
  pid: number | undefined;
  /** How it ended, in words, once nothing is left of it. */
  ended: Promise<string>;
}

function startSession(socket: TLSSocket, [command, ...words]: readonly [string, ...string[]]): Session {
  const [into, input] = native.socketPair();
  const [from, output] = native.socketPair();
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  const connection = [plain(remoteAddress), remotePort, plain(localAddress), localPort].join(" ");
  // A session of its own: what a terminal sends to the agent is not for a move that is under way.
  const child = spawn(command, words, {
    stdio: [input, output, "inherit"],
    env: { ...process.env, VIRT_RUN_CONNECTION: connection },
    detached: true,
  });
  closeSync(input);
  closeSync(output);
  const { ended: streamed, destroy } = pumpBetween(socket, { into, from });
  const ended = endOf(child).then(async (how) => {
    // What it wrote last is still on its way, unless nobody takes it.
    if (!(await settlesWithin(streamed, closeGraceMs))) destroy();
    return how;
  });
  return { pid: child.pid, ended };
}

function endOf(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => {
    child.once("error", (e: NodeJS.ErrnoException) => resolve(`receive cannot be run: ${e.code}`));
    child.once("exit", (code, signal) => resolve(`receive ended with ${code ?? signal}`));
  });
}

/** Whether the first bytes come in time; they stay in the stream. */
function speaks(socket: TLSSocket, limitMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const settle = (spoken: boolean) => {
      clearTimeout(timer);
      socket.off("data", data).off("end", end).off("close", end).pause();
      resolve(spoken);
    };
    const data = (bytes: Buffer) => {
      settle(true);
      socket.unshift(bytes);
    };
    const end = () => settle(false);
    const timer = setTimeout(end, limitMs);
    socket.on("data", data).on("end", end).on("close", end);
  });
}

/** Gives the last words time to be read. */
async function leave(socket: TLSSocket): Promise<void> {
  const closed = new Promise<void>((resolve) => (socket.destroyed ? resolve() : socket.once("close", () => resolve())));
  socket.resume();
  if (!(await settlesWithin(closed, closeGraceMs))) socket.destroy();
}

/** How many connections an address has made lately. */
class Recent {
  readonly #counts = new Map<string, number>();
  #since = performance.now();

  constructor(readonly limits: AgentLimits) {}

  admit(address: string): boolean {
    const now = performance.now();
    if (now - this.#since > this.limits.windowMs) {
      this.#counts.clear();
      this.#since = now;
    }
    const count = (this.#counts.get(address) ?? 0) + 1;
    this.#counts.set(address, count);
    return count <= this.limits.perAddress;
  }
}

function listenFailure(e: NodeJS.ErrnoException, where: string): VirtError {
  const details = { path: where, errnoName: e.code, syscall: e.syscall, cause: e };
  if (e.code === "EADDRINUSE") return new VirtError("ERR_PORT_IN_USE", `${where} is in use`, details);
  if (e.code === "EADDRNOTAVAIL") return new VirtError("ERR_USAGE", `${where} is no address of this host`, details);
  return new VirtError("ERR_SYSCALL", `cannot listen on ${where}: ${e.code}`, details);
}
