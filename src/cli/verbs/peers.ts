import type { Command } from "commander";
import { loadIdentity } from "../../move/transport/identity.js";
import { forgetPeer, loadPeers } from "../../move/transport/peers.js";
import { jsonOption, verb } from "../options.js";
import { formatAge, printJson, table } from "../report.js";

/** `virt-run peers`: the hosts that were enrolled. */
export function command(): Command {
  return verb("peers", "list the hosts that are known by their keys, or forget one", "peers", "peers --rm b")
    .option("--rm <host>", "forget this one, by name or fingerprint; moves that are under way go on")
    .addOption(jsonOption())
    .action(async (o: { rm?: string; json?: boolean }) => {
      if (o.rm !== undefined) {
        const { name, fingerprint } = await forgetPeer(o.rm);
        if (o.json) printJson({ removed: { name, fingerprint } });
        else process.stdout.write(`${fingerprint}\n`);
        return;
      }
      const peers = loadPeers();
      if (o.json) {
        printJson({ own: loadIdentity().fingerprint, peers });
        return;
      }
      const rows = peers.map((p) => [
        p.name,
        p.client ? "yes" : "no",
        p.agents.join(" ") || "-",
        formatAge(Date.now() - Date.parse(p.enrolledAt)),
        p.fingerprint,
      ]);
      process.stdout.write(`${table(["NAME", "MAY MOVE HERE", "AGENT", "AGE", "FINGERPRINT"], rows)}\n`);
    });
}
