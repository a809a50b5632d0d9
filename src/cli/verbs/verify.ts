import type { Command } from "commander";
import { verifyImage } from "../../image/image.js";
import { jsonOption, verb } from "../options.js";
import { formatBytes, printJson } from "../report.js";

/** `virt-run verify`: every byte of an image against its hashes. */
export function command(): Command {
  return verb("verify", "check every byte of an image against its hashes", "verify cache.image")
    .argument("<image>", "name (in the images directory) or path with a /")
    .addOption(jsonOption())
    .action(async (name: string, o: { json?: boolean }) => {
      const image = await verifyImage(name);
      if (o.json) printJson({ ok: true, image: image.summary() });
      else
        process.stdout.write(
          `${image.name}: whole, ${image.manifest.parts.length} parts, ${formatBytes(image.sizeBytes)}\n`,
        );
    });
}
