import { closeSync } from "node:fs";
import { isIP } from "node:net";
import type { Command } from "commander";
import { VirtError } from "../../errors.js";
import { type ReceivedStream, receiveOver } from "../../move/receive.js";
import { native } from "../../native.js";
import { verb } from "../options.js";

/** `virt-run receive`: the far end of a move, on standard input and output. */
export function command(): Command {
  return verb(
    "receive",
    "receive one pod on standard input and output; a move starts this at its far end",
    "receive",
  ).action(async () => {
    if (native.isTerminal(0) || native.isTerminal(1)) {
      throw new VirtError("ERR_USAGE", "receive speaks with another virt-run, not with a terminal", {
        hint: "`virt-run move POD TARGET` on the other host starts it here",
      });
    }
    // The stream is nobody else's from here on: what Node, a library or a child prints goes to standard error.
    const [readFd, writeFd] = native.takeStandardStreams();
    try {
      await receiveOver({ readFd, writeFd, ...connectionOf(process.env) });
    } finally {
      closeSync(readFd);
      closeSync(writeFd);
    }
  });
}

/** Who is at the other end: `virt-run serve` says it as sshd does (ssh(1), SSH_CONNECTION). */
function connectionOf(environment: NodeJS.ProcessEnv): Pick<ReceivedStream, "connection"> {
  const text = environment["VIRT_RUN_CONNECTION"] ?? environment["SSH_CONNECTION"] ?? "";
  const [peerAddress = "", , localAddress = ""] = text.split(" ");
  return isIP(peerAddress) === 0 || isIP(localAddress) === 0 ? {} : { connection: { peerAddress, localAddress } };
}
