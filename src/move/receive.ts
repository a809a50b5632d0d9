/**
 * The far end of a transport, which `virt-run receive` is. So far it says hello, and takes nothing.
 */
import { writeSync } from "node:fs";
import { version } from "../version.js";

/** What the source is reached by. The descriptors are the caller's. */
export interface ReceivedStream {
  /** What the source says. */
  readFd: number;
  /** What it is to hear. */
  writeFd: number;
  /** The source's address as this host sees it, and this host's as the source does; unknown where nobody told. */
  connection?: { peerAddress: string; localAddress: string };
}

/** Receives one pod. */
export async function receiveOver(stream: ReceivedStream): Promise<void> {
  writeSync(stream.writeFd, `${JSON.stringify({ hello: "virt-run", version })}\n`);
}
