import type { Command } from "commander";
import { exportFiles } from "../../files/export.js";
import { exitWith } from "../execute.js";
import { jsonOption, verb } from "../options.js";
import { formatBytes, printable, printJson } from "../report.js";

/** `virt-run export`: files that only a pod or an image has, or that a pod has written, out of it. */
export function command(): Command {
  const c = verb(
    "export",
    "write the files that an image carries, or that a pod has written, out below a directory; overwrites nothing",
    "export build out",
    "export cache.image out --json",
  )
    .argument("<pod|image>", "a pod (name, id, prefix), else an image (name or path)")
    .argument("<directory>", "where to: /home/user/x becomes DIRECTORY/home/user/x; made if it is missing")
    .addOption(jsonOption());
  return c.action(async (name: string, directory: string, o: { json?: boolean }) => {
    const result = await exportFiles(name, directory);
    if (o.json) printJson({ export: result });
    else {
      process.stdout.write(
        `${result.written.length} files written below ${result.directory} (${formatBytes(result.bytes)}), ${result.unchanged.length} were there\n`,
      );
      for (const path of result.conflicts)
        process.stderr.write(`virt-run: ${printable(path)}: another is there, and was left as it is\n`);
      for (const text of result.left) process.stderr.write(`virt-run: ${printable(text)}\n`);
    }
    exitWith(c, result.conflicts.length > 0 ? 1 : 0);
  });
}
