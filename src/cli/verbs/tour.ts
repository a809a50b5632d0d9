import type { Command } from "commander";
import { verb } from "../options.js";

/** `virt-run tour`: the demonstration. */
export function command(): Command {
  return verb("tour", "a two-minute demonstration on this machine", "tour --fast")
    .option("--fast", "do not pause between the steps")
    .action(async (o: { fast?: boolean }) => {
      const { tour } = await import("../tour.js");
      await tour({ pauseMs: o.fast ? 0 : 1500 });
    });
}
