/**
 * What the tests of transports share: bytes through descriptors, as native code moves them, and an agent of its own.
 */
import { createHash, randomBytes } from "node:crypto";
import { read, readdirSync, readlinkSync, write } from "node:fs";
import { promisify } from "node:util";
import type { Test } from "tap";
import type { Transport } from "../../src/move/transport/index.js";
import { type Running, running } from "./cli.js";
import { until } from "./pods.js";

const readSome = promisify(read);
const writeSome = promisify(write);

/** All that comes until the end. */
export async function readAll(fd: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (;;) {
    const { bytesRead, buffer } = await readSome(fd, Buffer.alloc(1 << 18), 0, 1 << 18, null);
    if (bytesRead === 0) return Buffer.concat(parts);
    parts.push(buffer.subarray(0, bytesRead));
  }
}

export async function writeAll(fd: number, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await writeSome(fd, bytes, at, bytes.length - at, null)).bytesWritten;
}

export const sha256 = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");

/** Megabytes through something that gives back what it hears, both ways at once; then an end, and its end. */
export async function echoes(t: Test, transport: Transport, bytes = 24 << 20): Promise<void> {
  const sent = randomBytes(bytes);
  const coming = readAll(transport.readFd);
  await writeAll(transport.writeFd, sent);
  transport.endWriting();
  const came = await coming;
  t.equal(came.length, sent.length, `${transport.describe()}: all has come back after our end`);
  t.equal(sha256(came), sha256(sent), `${transport.describe()}: as it was`);
  t.equal(await transport.failure, undefined, `${transport.describe()}: it ended in order`);
  await transport.close();
}

/** Sockets of this process, by number. */
export function ownSockets(): string[] {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith("socket:");
    } catch {
      return false; // the one it was listed with
    }
  });
}

/** Fails unless `f` leaves no socket of this process open. */
export async function keepsNoSockets(t: Test, f: () => Promise<void>): Promise<void> {
  const before = ownSockets().length;
  await f();
  await until("sockets to be closed", () => ownSockets().length <= before);
  t.pass("no descriptor is left");
}

/** Runs `f` as the user whose configuration this is. */
export async function withConfiguration<T>(directory: string, f: () => Promise<T> | T): Promise<T> {
  const before = process.env["XDG_CONFIG_HOME"];
  process.env["XDG_CONFIG_HOME"] = directory;
  try {
    return await f();
  } finally {
    process.env["XDG_CONFIG_HOME"] = before ?? "";
  }
}

export interface OwnAgent extends Running {
  port: number;
  address: string;
  stop(): Promise<void>;
}

/** An agent in a process of its own, with a configuration of its own. */
export async function ownAgent(
  t: Test,
  configuration: string,
  options: Record<string, unknown> = {},
): Promise<OwnAgent> {
  const script = new URL("../move/agent.mjs", import.meta.url).pathname;
  const words = [script, JSON.stringify({ port: 0, receive: ["cat"], ...options })];
  const agent = running(process.execPath, words, { env: { ...process.env, XDG_CONFIG_HOME: configuration } });
  const stop = async () => {
    agent.child.stdin?.end();
    await agent.ended;
  };
  t.teardown(stop);
  await until({ toString: () => `the agent to listen: ${agent.said.err}` }, () => agent.said.out.includes("\n"));
  return { ...agent, ...(JSON.parse(agent.said.out) as { port: number; address: string }), stop };
}
