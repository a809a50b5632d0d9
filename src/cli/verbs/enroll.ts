import { createInterface } from "node:readline";
import type { Command } from "commander";
import { VirtError } from "../../errors.js";
import { enroll } from "../../move/transport/enroll.js";
import { parseTarget, showTarget } from "../../move/transport/target.js";
import { jsonOption, verb } from "../options.js";
import { printJson } from "../report.js";

/** `virt-run enroll`: this host and an agent learn each other's keys. */
export function command(): Command {
  return verb(
    "enroll",
    "make this host known to an agent, with the code that `virt-run serve --enroll` printed there",
    "enroll tls://b K7QM-2XPD-9F3H",
  )
    .argument("<target>", "tls://host[:port]")
    .argument("[code]", "the code; without it a line of standard input")
    .addOption(jsonOption())
    .action(async (target: string, given: string | undefined, o: { json?: boolean }) => {
      const to = parseTarget(target);
      if (to.kind !== "tls")
        throw new VirtError("ERR_USAGE", "only agents (tls://host) are enrolled; ssh has keys of its own");
      const abort = new AbortController();
      process.once("SIGINT", () => abort.abort());
      const { fingerprint, name } = await enroll(to, given ?? (await askCode()), { signal: abort.signal });
      if (o.json) printJson({ target: showTarget(to), name, fingerprint });
      else process.stdout.write(`${showTarget(to)} is ${name}, ${fingerprint}\n`);
    });
}

async function askCode(): Promise<string> {
  const lines = createInterface({ input: process.stdin, ...(process.stdin.isTTY && { output: process.stderr }) });
  try {
    lines.setPrompt("code: ");
    if (process.stdin.isTTY) lines.prompt();
    for await (const line of lines) return line;
    throw new VirtError("ERR_USAGE", "there was no code on standard input");
  } finally {
    lines.close();
  }
}
