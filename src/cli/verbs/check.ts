import { type Command, Option } from "commander";
import { type Blocker, VirtError } from "../../errors.js";
import type { WithFiles } from "../../files/collect.js";
import { openImage } from "../../image/image.js";
import { podFromRecord } from "../../pod/pod.js";
import { checkHere, type ReattachOptions } from "../../pod/reattach.js";
import { findRecord, latestRecord, type PodRecord } from "../../pod/store.js";
import { parseRemaps } from "../../remap/path.js";
import { parseTcp } from "../../remap/tcp-policy.js";
import { exitWith } from "../execute.js";
import { collect, jsonOption, latestOption, verb } from "../options.js";
import { tellBlockers } from "../report.js";

/** `virt-run check`: all that would stop a pod from being detached, or an image from being reattached here. */
export function command(): Command {
  const c = verb(
    "check",
    "show all that would stop a detach, or a reattach here; exit 1 if anything would",
    "check cache",
    "check cache --target ssh://b",
    "check cache.image --remap path:/data=/mnt/data",
  )
    .argument("[pod|image]", "a pod (name, id, prefix), else an image (name or path)")
    .option("--snapshot", "for a pod: what would stop a snapshot, which holds no connections")
    .option("--target <host>", "for a pod: what would stop it from being moved there, as move takes it")
    .option("--drop <kind>", "for a pod: accept the loss of a kind of handle; may be repeated", collect)
    .option("--tcp <policy>", "connections to outside, as detach takes it; for an image, as reattach does", collect)
    .addOption(
      new Option("--with-files <which>", "for a pod: as detach has it")
        .choices(["none", "written", "all"])
        .default("none"),
    )
    .option("--remap <rule>", "for an image, as reattach has it", collect)
    .option("--holder <address[:port]>", "for an image, as reattach has it")
    .option("--allow-changed <path>", "for an image: accept a file that has changed; '*' for all", collect)
    .addOption(latestOption())
    .addOption(jsonOption());
  return c.action(
    async (
      name: string | undefined,
      o: {
        snapshot?: boolean;
        target?: string;
        drop?: string[];
        tcp?: string[];
        withFiles: WithFiles;
        remap?: string[];
        holder?: string;
        allowChanged?: string[];
        latest?: boolean;
        json?: boolean;
      },
    ) => {
      const { tcp, tcpRules } = parseTcp(o.tcp ?? []);
      const record = name === undefined ? (o.latest ? latestRecord() : usage()) : podCalled(name);
      let blockers: Blocker[];
      let what: string;
      if (record) {
        const pod = await podFromRecord(record);
        what = pod.name;
        blockers = await pod.check({
          snapshot: o.snapshot ?? false,
          ...(o.target !== undefined && { target: o.target }),
          drop: o.drop ?? [],
          ...(tcp && { tcp }),
          ...(tcpRules && { tcpRules }),
          withFiles: o.withFiles,
        });
        pod.disconnect();
      } else {
        const image = await openImage(name as string);
        what = image.name;
        if (tcpRules)
          throw new VirtError("ERR_USAGE", "of an image --tcp is about all that nobody holds, not one peer");
        const options: ReattachOptions = {
          remap: parseRemaps(o.remap ?? []),
          allowChanged: o.allowChanged ?? [],
          ...(tcp && { tcp }),
          ...(o.holder !== undefined && { holder: o.holder }),
        };
        ({ blockers } = await checkHere(image.manifest, options));
      }
      tellBlockers(what, blockers, o.json);
      exitWith(c, blockers.length === 0 ? 0 : 1);
    },
  );
}

function usage(): never {
  throw new VirtError("ERR_USAGE", "which pod or image?");
}

function podCalled(name: string): PodRecord | undefined {
  try {
    return findRecord(name);
  } catch (e) {
    if (e instanceof VirtError && e.code === "ERR_POD_NOT_FOUND") return undefined;
    throw e;
  }
}
