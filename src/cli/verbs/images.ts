import type { Command } from "commander";
import { listImages } from "../../image/image.js";
import { jsonOption, verb } from "../options.js";
import { formatAge, formatBytes, formatCommand, printJson, table } from "../report.js";

/** `virt-run images`: what is stored. */
export function command(): Command {
  return verb("images", "list the stored images: those in the images directory", "images", "images --json")
    .option("-q, --quiet", "names only")
    .addOption(jsonOption())
    .action(async (o: { quiet?: boolean; json?: boolean }) => {
      const all = await listImages();
      if (o.json) {
        printJson({
          images: all.map(({ name, image, error }) => (image ? image.summary() : { name, error: error?.toJSON() })),
        });
        return;
      }
      if (o.quiet) {
        for (const { name } of all) process.stdout.write(`${name}\n`);
        return;
      }
      const rows = all.map(({ name, image, error }) => {
        if (!image) return [name, "-", "-", "-", "-", `damaged: ${error?.message}`];
        const s = image.summary();
        return [
          name,
          s.pod,
          s.kind,
          formatBytes(s.sizeBytes),
          formatAge(Date.now() - Date.parse(s.createdAt)),
          formatCommand(s.command, 40),
        ];
      });
      process.stdout.write(`${table(["IMAGE", "POD", "KIND", "SIZE", "AGE", "COMMAND"], rows)}\n`);
    });
}
