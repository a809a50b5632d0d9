import { readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { Arriving } from "../../move/arriving.js";
import { ledgerHere } from "../../move/move.js";
import { sweepMoves } from "../../move/target.js";
import { isHolding } from "../../pod/holder.js";
import { imagesDirectory } from "../../pod/paths.js";
import { isInDoubt, isRunning, loadRecords, readExit, removePod } from "../../pod/store.js";
import { jsonOption, verb } from "../options.js";
import { printJson } from "../report.js";

const abandonedAfterMs = 3600_000;
/** A pod that does not answer and has not written how it ended may be one that is being made. */
const beingMadeMs = 60_000;

/** `virt-run prune`: forgets pods that have ended, and half-written images of commands and moves that were killed. */
export function command(): Command {
  return verb("prune", "forget pods that have ended, and images unfinished for an hour", "prune")
    .addOption(jsonOption())
    .action(async (o: { json?: boolean }) => {
      const pods = loadRecords().filter(
        (r) =>
          !isRunning(r) &&
          !isHolding(r) &&
          !isInDoubt(r) &&
          (readExit(r.id) !== undefined || Date.now() - Date.parse(r.createdAt) > beingMadeMs),
      );
      pods.forEach(removePod);
      await sweepMoves(ledgerHere(), new Arriving());
      const directory = imagesDirectory();
      const partial = readdirSync(directory).filter(
        (n) =>
          /^\..*\.partial-[0-9a-f]{8}$/.test(n) && Date.now() - statSync(join(directory, n)).mtimeMs > abandonedAfterMs,
      );
      for (const name of partial) rmSync(join(directory, name), { recursive: true, force: true });
      if (o.json) printJson({ pods: pods.map((p) => p.id), partialImages: partial });
      else process.stdout.write(`${pods.length} pods, ${partial.length} unfinished images\n`);
    });
}
