/**
 * What supervisors and virt-init say to each other: the mirror of native/init/protocol.h, which describes it.
 */

/** Version of the protocol; both sides must have the same. */
export const protocolVersion = 4;

export const mostFrameBytes = 8 << 20;
export const headerBytes = 12;
export const replyFlag = 0x8000;

export const FrameType = {
  hello: 1,
  signal: 2,
  exec: 3,
  subscribe: 4,
  attach: 5,
  input: 6,
  resize: 7,
  lock: 8,
  unlock: 9,
  open: 10,
  release: 11,
  rules: 14,
  hook: 15,
  answer: 16,
  mount: 18,
  catchUp: 20,
  drop: 22,
  forked: 0xff,
  started: 0x100,
  exited: 0x101,
  output: 0x102,
  gone: 0x103,
  failed: 0x104,
  ask: 0x106,
} as const;

export type StdioKind = "inherit" | "streams" | "terminal";
const stdioKinds: StdioKind[] = ["inherit", "streams", "terminal"];

/** One frame: a request (number > 0), its reply (type | replyFlag, same number) or an event (number 0). */
export function frame(type: number, number: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.alloc(headerBytes + payload.length);
  bytes.writeUInt32LE(payload.length, 0);
  bytes.writeUInt16LE(type, 4);
  bytes.writeUInt32LE(number, 8);
  payload.copy(bytes, headerBytes);
  return bytes;
}

export function uint32s(...numbers: number[]): Buffer {
  const bytes = Buffer.alloc(4 * numbers.length);
  for (const [i, n] of numbers.entries()) bytes.writeUInt32LE(n >>> 0, 4 * i);
  return bytes;
}

/** init's answer to hello. Pids are the pod's own. */
export interface InitStatus {
  version: number;
  /** The first program; 0 before it started. */
  firstPid: number;
  firstEnded: boolean;
  /** As wait(2) gives it. */
  waitStatus: number;
  stdio: StdioKind;
  viewers: number;
  terminalIndex: number;
  hasTerminal: boolean;
  rebuilding: boolean;
}

export function decodeStatus(bytes: Buffer): InitStatus {
  return {
    version: bytes.readUInt32LE(0),
    firstPid: bytes.readUInt32LE(4),
    firstEnded: bytes.readUInt32LE(8) !== 0,
    waitStatus: bytes.readInt32LE(12),
    stdio: stdioKinds[bytes.readUInt32LE(16)] ?? "inherit",
    viewers: bytes.readUInt32LE(20),
    hasTerminal: bytes.readInt32LE(24) >= 0,
    terminalIndex: bytes.readUInt32LE(28),
    rebuilding: bytes.readUInt32LE(32) !== 0,
  };
}

/** A holder's answer to hello: what is left of a detached pod. */
export interface HoldStatus {
  version: number;
  connections: number;
  listeners: number;
  /** Sockets that send and receive datagrams. */
  datagrams: number;
  heldMs: number;
  /** The pod is on another host, and what is here is passed on to it. */
  goneOn: boolean;
  /** … which it is now. */
  connected: boolean;
}

export function decodeHoldStatus(bytes: Buffer): HoldStatus {
  return {
    version: bytes.readUInt32LE(0),
    connections: bytes.readUInt32LE(4),
    listeners: bytes.readUInt32LE(8),
    datagrams: bytes.readUInt32LE(12),
    heldMs: Number(bytes.readBigUInt64LE(16)),
    goneOn: bytes.readUInt32LE(24) !== 0,
    connected: bytes.readUInt32LE(28) !== 0,
  };
}
