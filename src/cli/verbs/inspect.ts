import type { Command } from "commander";
import { VirtError } from "../../errors.js";
import { openImage } from "../../image/image.js";
import { isLiving } from "../../image/manifest.js";
import { describeHolding, type Holding } from "../../pod/holder.js";
import type { PodInfo } from "../../pod/inspect.js";
import type { IsolationRecord } from "../../pod/isolation.js";
import { podFromRecord } from "../../pod/pod.js";
import { findRecord } from "../../pod/store.js";
import { jsonOption, latestOption, recordNamed, verb } from "../options.js";
import { formatBytes, formatCommand, printJson, processTable, table } from "../report.js";

/** `virt-run inspect`: everything of a pod, or of an image. */
export function command(): Command {
  return verb("inspect", "show everything of a pod or an image", "inspect cache", "inspect --json cache.image")
    .argument("[pod|image]", "a pod (name, id, prefix), else an image (name or path)")
    .addOption(latestOption())
    .addOption(jsonOption())
    .action(async (name: string | undefined, o: { latest?: boolean; json?: boolean }) => {
      if (name !== undefined && !isPod(name)) {
        await inspectImage(name, o.json ?? false);
        return;
      }
      const pod = await podFromRecord(recordNamed(name, o.latest));
      const info = await pod.inspect();
      pod.disconnect();
      if (o.json) printJson({ ...info });
      else process.stdout.write(describePod(info));
    });
}

function isPod(name: string): boolean {
  try {
    findRecord(name);
    return true;
  } catch (e) {
    if (e instanceof VirtError && e.code === "ERR_POD_NOT_FOUND") return false;
    throw e;
  }
}

function describePod(info: PodInfo): string {
  const lines = Object.entries(info)
    .filter(([key, value]) => !["schemaVersion", "processes"].includes(key) && value !== null)
    .map(([key, value]) => `${key.padEnd(12)} ${describeMember(key, value)}`);
  const processes = info.processes ?? [];
  if (processes.length > 0) {
    lines.push("", processTable(processes));
    for (const p of processes)
      lines.push("", `pid ${p.pid}:`, ...p.fds.map(({ fd, target }) => `  fd ${String(fd).padEnd(4)} ${target}`));
  }
  return `${lines.join("\n")}\n`;
}

function describeMember(key: string, value: unknown): string {
  if (key === "command") return formatCommand(value as string[], 200);
  if (key === "holding") return describeHolding(value as Holding);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

async function inspectImage(name: string, json: boolean): Promise<void> {
  const image = await openImage(name);
  const m = image.manifest;
  if (json) {
    printJson({
      ...image.summary(),
      host: m.host,
      pod: m.pod,
      clocks: m.clocks,
      accepted: m.accepted,
      parts: m.parts,
      processes: m.processes,
      handles: m.handles,
      objects: m.objects,
      files: m.files,
      carriedFiles: m.carriedFiles ?? [],
    });
    return;
  }
  const s = image.summary();
  const lines = [
    `image        ${s.path}`,
    `made         ${s.createdAt} by ${s.kind} on ${s.host} (${m.host.kernel}, ${m.host.cpu.model})`,
    `pod          ${s.pod}: ${formatCommand(s.command, 200)}`,
    `size         ${formatBytes(s.sizeBytes)}, ${m.pagesInPart.reduce((sum, n) => sum + n, 0)} pages`,
    ...m.pod.remaps.map((r) => `remap        ${r.to} is ${r.from}`),
    ...(m.pod.hostname === undefined ? [] : [`hostname     ${m.pod.hostname}`]),
    ...(m.pod.machineId === undefined ? [] : [`machine id   ${m.pod.machineId}`]),
    ...isolationLines(m.pod.isolate),
    ...(image.carried.files > 0
      ? [`carries      ${image.carried.files} files, ${formatBytes(image.carried.bytes)}`]
      : []),
    ...m.accepted.map((a) => `accepted     ${a}`),
    "",
    table(
      ["PID", "PARENT", "GROUP", "SESSION", "THREADS", "FDS", "MEMORY", "COMMAND"],
      m.processes.map((p) =>
        isLiving(p)
          ? [
              String(p.pid),
              String(p.ppid),
              String(p.group),
              String(p.session),
              String(p.threads.length),
              String(p.fds.length),
              formatBytes(p.pages.reduce((n, r) => n + r[1] * 4096, 0)),
              p.comm.toString(),
            ]
          : [
              String(p.pid),
              String(p.ppid),
              String(p.group),
              String(p.session),
              "-",
              "-",
              "-",
              `${p.comm.toString()} (zombie)`,
            ],
      ),
    ),
    "",
    table(
      ["HANDLE", "KIND", "USED BY", "WHAT"],
      m.handles.map((h) => [String(h.id), h.kind, usersOf(m, h.id), whatIs(m, h)]),
    ),
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}

function isolationLines(rules: IsolationRecord | undefined): string[] {
  if (!rules) return [];
  return [
    ...rules.readOnly.map((path) => `read-only    ${path}`),
    ...rules.writable.map((path) => `writable     ${path}`),
    ...rules.hide.map((path) => `hidden       ${path}`),
    ...(rules.network === "none" ? ["network      none"] : []),
  ];
}

type Manifest = Awaited<ReturnType<typeof openImage>>["manifest"];

function usersOf(m: Manifest, id: number): string {
  const users = m.processes.flatMap((p) =>
    isLiving(p) ? p.fds.filter(([, handle]) => handle === id).map(([fd]) => `${p.pid}/${fd}`) : [],
  );
  return users.length > 4 ? `${users.slice(0, 4).join(" ")} …` : users.join(" ");
}

function whatIs(m: Manifest, h: Manifest["handles"][number]): string {
  switch (h.kind) {
    case "file":
      return `${m.files[h.file]?.path}${m.files[h.file]?.unlinked ? " (unlinked, carried)" : ""} at ${h.position}`;
    case "directory":
    case "path":
    case "device":
      return h.path;
    case "inet-socket":
      return `${h.type} ${h.state}${h.local ? ` ${h.local.address}:${h.local.port}` : ""}`;
    case "unix-socket":
      return `${h.type} ${h.state}${h.path ? ` ${h.path}` : ""}`;
    case "launcher-stream":
      return ["standard input", "standard output", "standard error"][h.stream] as string;
    default:
      return "";
  }
}
