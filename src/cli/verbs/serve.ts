import type { Command } from "commander";
import { VirtError } from "../../errors.js";
import { startAgent } from "../../move/transport/agent.js";
import { codeValidMs, offerEnrolment } from "../../move/transport/enroll.js";
import { loadPeers } from "../../move/transport/peers.js";
import { agentPort } from "../../move/transport/target.js";
import { parseAddress, showAddress } from "../../remap/address.js";
import { jsonOption, verb } from "../options.js";
import { printable, printJson } from "../report.js";

/** `virt-run serve`: the agent for moves to `tls://`. */
export function command(): Command {
  return verb(
    "serve",
    "let hosts that were enrolled move pods here, over TLS",
    "serve --listen 10.0.0.2",
    "serve --enroll",
  )
    .option(
      "--listen <address[:port]>",
      `where; 0.0.0.0 and [::] are all addresses of this host (default: 127.0.0.1:${agentPort}, this host alone)`,
    )
    .option("--enroll", `print a code for one host, good for ${codeValidMs / 60_000} minutes, and end`)
    .addOption(jsonOption())
    .action(async (o: { listen?: string; enroll?: boolean; json?: boolean }) => {
      if (o.enroll) {
        if (o.listen !== undefined) throw new VirtError("ERR_USAGE", "--enroll prints a code and does not listen");
        const code = await offerEnrolment();
        if (o.json) printJson({ code, endsAt: new Date(Date.now() + codeValidMs).toISOString() });
        else {
          process.stdout.write(`${code}\n`);
          process.stderr.write(
            "virt-run: on the other host: virt-run enroll tls://THIS-HOST CODE; `virt-run serve` has to run here\n",
          );
        }
        return;
      }
      const at = o.listen === undefined ? {} : parseAddress(o.listen);
      if (at === undefined) throw new VirtError("ERR_USAGE", `'${o.listen}' is no address to listen at`);
      const script = process.argv[1];
      if (script === undefined) throw new VirtError("ERR_BUG", "this program does not know its own name");
      const agent = await startAgent({
        ...at,
        receive: [process.execPath, script, "receive"],
        log: (text) => process.stderr.write(`virt-run: ${printable(text)}\n`),
      });
      const where = showAddress(agent);
      if (o.json) printJson({ address: agent.address, port: agent.port });
      else process.stdout.write(`${where}\n`);
      if (!loadPeers().some((p) => p.client)) {
        process.stderr.write("virt-run: no host may move pods here yet: `virt-run serve --enroll` prints a code\n");
      }
      await untilStopped();
      process.stderr.write("virt-run: no more moves are taken; once more cuts those that are under way\n");
      void untilStopped().then(() => agent.cut());
      await agent.close();
    });
}

function untilStopped(): Promise<void> {
  return new Promise((resolve) => {
    const stop = () => {
      process.off("SIGINT", stop).off("SIGTERM", stop);
      resolve();
    };
    process.on("SIGINT", stop).on("SIGTERM", stop);
  });
}
