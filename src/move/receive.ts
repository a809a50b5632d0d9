/**
 * The far end of a transport, which `virt-run receive` is: takes one pod, or settles how a cut move stands.
 */
import { describeHost } from "../image/host.js";
import { native } from "../native.js";
import { Arriving } from "./arriving.js";
import { ledgerHere } from "./move.js";
import type { MoveWire } from "./parts.js";
import { type Received, receiveMove } from "./target.js";

/** What the source is reached by. The descriptors are the caller's. */
export interface ReceivedStream {
  /** What the source says. */
  readFd: number;
  /** What it is to hear. */
  writeFd: number;
  /** The source's address as this host sees it, and this host's as the source does; unknown where nobody told. */
  connection?: { peerAddress: string; localAddress: string };
}

/** Receives one pod. Errors: those of receiveMove(). */
export async function receiveOver({ readFd, writeFd, connection }: ReceivedStream): Promise<Received> {
  const bare = new native.Wire(readFd, writeFd);
  const wire: MoveWire = {
    send: (message) => bare.send(message),
    next: async () => (await bare.next()) ?? undefined,
    sendFile: (directoryFd, name) => bare.sendFile(directoryFd, name),
    receiveInto: (directoryFd) => bare.receiveInto(directoryFd),
    progress: () => bare.progress(),
    limit: (bytesPerSecond) => bare.limit(bytesPerSecond),
    close: () => bare.close(),
  };
  // The source holds connections at its address as this host sees it.
  const host = { ...describeHost(), ...(connection && { peerAddress: connection.peerAddress }) };
  return await receiveMove(wire, { ledger: ledgerHere(), pods: new Arriving(), host });
}
