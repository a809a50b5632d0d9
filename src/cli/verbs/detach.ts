import { type Command, InvalidArgumentError, Option } from "commander";
import { VirtError } from "../../errors.js";
import type { WithFiles } from "../../files/collect.js";
import { packImage } from "../../image/archive.js";
import type { DetachOptions } from "../../pod/detach.js";
import { parseReach } from "../../pod/holder.js";
import { parseTcp } from "../../remap/tcp-policy.js";
import {
  collect,
  jsonOption,
  latestOption,
  podArgument,
  podNamed,
  progressMode,
  seconds,
  verb,
  withProgress,
} from "../options.js";
import { ProgressReporter } from "../progress.js";
import { formatBytes, printJson } from "../report.js";

/** `virt-run detach`: a pod into an image; the pod is gone after. */
export function command(): Command {
  return captureCommand(
    "detach",
    "capture a pod into an image and let go of it; it runs on if anything fails",
    "detach cache -o cache.image",
    "detach cache -o - --compress zstd | ssh host virt-run reattach - -d",
  );
}

/** detach and snapshot differ only in what becomes of the pod. */
export function captureCommand(kind: "detach" | "snapshot", summary: string, ...examples: string[]): Command {
  const c = withProgress(verb(kind, summary, ...examples));
  return (kind === "detach" ? withHolding(c) : c)
    .argument("[pod]", podArgument)
    .option(
      "-o, --output <image>",
      "name (in the images directory), or path with a /, of the image; - for one tar on standard output (default: the pod's name and the time)",
    )
    .option("--compress <how>", "with -o -: zstd")
    .option("--drop <kind>", "accept the loss of a kind of handle (as check names it); may be repeated", collect)
    .option(
      "--tcp <policy>",
      "connections to outside: hold (this host keeps them for a reattach; the default), close, reconnect, or repair (root: their state goes into the image, for a host that their address moves to); of one peer: POLICY=ADDRESS:PORT; may be repeated",
      collect,
    )
    .addOption(
      new Option(
        "--with-files <which>",
        "files to carry: those the pod wrote, or all that it has open or mapped as well",
      )
        .choices(["none", "written", "all"])
        .default("none"),
    )
    .option("--files-limit <bytes>", "refuse to carry more than this of files", wholeBytes)
    .addOption(latestOption())
    .addOption(jsonOption())
    .action(
      async (
        name: string | undefined,
        o: {
          output?: string;
          drop?: string[];
          tcp?: string[];
          holdAt?: string;
          cutLimit?: number;
          withFiles: WithFiles;
          filesLimit?: number;
          latest?: boolean;
          json?: boolean;
          compress?: string;
          progress: string;
          quiet?: boolean;
        },
      ) => {
        const stream = o.output === "-";
        const tcp = parseTcp(o.tcp ?? []);
        if (o.holdAt !== undefined) parseReach(o.holdAt);
        if (o.compress !== undefined && (o.compress !== "zstd" || !stream)) {
          throw new VirtError("ERR_USAGE", "--compress takes zstd, and needs -o -");
        }
        if (stream && (o.json || process.stdout.isTTY)) {
          throw new VirtError(
            "ERR_USAGE",
            "-o - writes the image to standard output: send that to a file or a program",
          );
        }
        const pod = await podNamed(name, o.latest);
        if (!pod.running) throw new VirtError("ERR_POD_GONE", `the pod ${pod.name} has ended`);
        const reporter = new ProgressReporter(progressMode(o));
        const abort = new AbortController();
        process.once("SIGINT", () => abort.abort());
        const options: DetachOptions = {
          drop: o.drop ?? [],
          ...tcp,
          ...(o.holdAt === undefined ? {} : { holdAt: o.holdAt }),
          ...(o.cutLimit === undefined ? {} : { cutLimitMs: Math.round(o.cutLimit * 1000) }),
          withFiles: o.withFiles,
          ...(o.filesLimit === undefined ? {} : { filesLimitBytes: o.filesLimit }),
          signal: abort.signal,
          onProgress: reporter.onProgress,
          ...(o.output === undefined || stream ? {} : { image: o.output }),
          ...(stream
            ? {
                deliver: (image) => packImage(image, process.stdout, o.compress === "zstd" ? { compress: "zstd" } : {}),
              }
            : {}),
        };
        try {
          const image = await (kind === "detach" ? pod.detach(options) : pod.snapshot(options));
          reporter.end();
          const size = formatBytes(image.sizeBytes);
          if (stream) image.remove();
          const stoppedMs = Math.round(image.stoppedMs ?? 0);
          const { carried } = image;
          const files =
            carried.files > 0
              ? `, ${carried.files} ${carried.files === 1 ? "file" : "files"} of ${formatBytes(carried.bytes)} carried`
              : "";
          if (o.json) printJson({ image: { ...image.summary(), stoppedMs, accepted: image.accepted, carried } });
          else {
            if (!stream) process.stdout.write(`${image.path}\n`);
            if (!o.quiet)
              process.stderr.write(
                `virt-run: ${pod.name}: ${size}${files}, stopped for ${stoppedMs} ms${kind === "detach" ? ", then let go" : "; it runs on"}\n`,
              );
            for (const loss of image.accepted) process.stderr.write(`virt-run: accepted: ${loss}\n`);
          }
        } finally {
          reporter.end();
          pod.disconnect();
        }
      },
    );
}

/** A snapshot holds nothing: its source goes on. */
function withHolding(c: Command): Command {
  return c
    .option(
      "--hold-at <address[:port]>",
      "where other hosts reach the connections that are held here: an address of this host (default: they live on on this host alone)",
    )
    .option(
      "--cut-limit <seconds>",
      "how long the way between there and this host may be cut before the connections are reset (default: 60)",
      seconds,
    );
}

function wholeBytes(value: string): number {
  const n = Number(value);
  if (!Number.isSafeInteger(n) || n < 0) throw new InvalidArgumentError("expected a number of bytes");
  return n;
}
