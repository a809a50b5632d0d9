/**
 * What must be true before an image is made a pod here: host, CPU, files, ports, rules. Everything wrong is told at
 * once; nothing is changed.
 */
import { type BigIntStats, existsSync, lstatSync, statfsSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { dirname } from "node:path";
import type { Blocker } from "../errors.js";
import { type Placement, planPlacement } from "../files/placement.js";
import { isOwn, planMounts, staleRules } from "../pod/isolation.js";
import { podsDirectory } from "../pod/paths.js";
import type { PathRemap } from "../pod/store.js";
import { translatePath } from "../remap/path.js";
import { describeHost } from "./host.js";
import { type FileRecord, isLiving, type Manifest } from "./manifest.js";

export interface CheckOptions {
  remaps: PathRemap[];
  /** Paths (as the pod knows them) whose changed contents are accepted; "*" for all. */
  allowChanged: string[];
  /** Where the files it carries go; decided here if it is not given. */
  placement?: Placement;
}

/** Everything that stands in the way of reattaching here; empty if nothing does. */
export async function checkImage(manifest: Manifest, options: CheckOptions): Promise<Blocker[]> {
  const rules = checkRules(options.remaps);
  const placement = options.placement ?? (await planPlacement(manifest, options.remaps));
  return [
    ...checkHost(manifest),
    ...rules,
    ...checkStore(placement),
    ...checkFiles(manifest, options, placement),
    ...checkIsolation(manifest, options.remaps),
    ...(manifest.pod.isolate?.network === "none" ? [] : await checkPorts(manifest)),
  ];
}

function checkHost(m: Manifest): Blocker[] {
  const here = describeHost();
  const out: Blocker[] = [];
  if (m.host.arch !== here.arch)
    out.push({ code: "ERR_CPU_FEATURE", message: `the image was made on ${m.host.arch}, this is ${here.arch}` });
  if (m.host.pageSizeBytes !== here.pageSizeBytes) {
    out.push({
      code: "ERR_KERNEL_FEATURE",
      message: `the image has pages of ${m.host.pageSizeBytes} bytes, this host of ${here.pageSizeBytes}`,
    });
  }
  const have = new Set(here.cpu.features);
  const missing = m.host.cpu.features.filter((f) => !have.has(f));
  if (missing.length > 0) {
    out.push({
      code: "ERR_CPU_FEATURE",
      message: `this CPU (${here.cpu.model}) lacks ${missing.join(", ")}, which the program may have found on ${m.host.cpu.model}`,
      hint: "reattach on a machine whose CPU has them",
    });
  }
  const root = process.geteuid?.() === 0;
  if (m.pod.user.root && !root) {
    out.push({
      code: "ERR_NOT_PERMITTED",
      message: "the pod was launched by root; its processes may have other users' ids",
      hint: "reattach it as root",
    });
  }
  if (!root && m.processes.some((p) => isLiving(p) && p.credentials.uid.some((u) => u !== process.geteuid?.()))) {
    const uid = m.pod.user.uid;
    out.push({
      code: "ERR_NOT_PERMITTED",
      message: `the pod's processes run as user id ${uid}, you are ${process.geteuid?.()}`,
      hint: "reattach it as that user",
    });
  }
  return out;
}

function checkRules(remaps: PathRemap[]): Blocker[] {
  return remaps.flatMap(({ from, to }) =>
    existsSync(from)
      ? []
      : [
          {
            code: "ERR_REMAP",
            message: `the rule path:${to}=${from} points to nothing`,
            path: from,
            hint: `make ${from}, or correct the rule`,
          },
        ],
  );
}

function checkIsolation(m: Manifest, remaps: PathRemap[]): Blocker[] {
  return staleRules(m.pod.isolate, remaps).map((e) => e.toJSON() as unknown as Blocker);
}

/** What the pod writes in an overlay lies in the store, and not every file system can be told so. */
function checkStore(placement: Placement): Blocker[] {
  if (placement.overlays.length === 0) return [];
  const unfit: Record<number, string> = { 2035054128: "an overlay", 26985: "NFS", 1702057286: "FUSE" }; // statfs(2)
  const path = podsDirectory();
  const kind = unfit[Number(statfsSync(path).type)];
  if (kind === undefined) return [];
  return [
    {
      code: "ERR_KERNEL_FEATURE",
      message: `the image carries files, and the store lies on ${kind}, where they cannot be put below an overlay of the pod`,
      path,
      hint: "set XDG_STATE_HOME to a directory on a disk of this host",
    },
  ];
}

/** Files that something in the pod is, has mapped or open: what a descriptor was that is another now does not matter. */
function usedFiles(m: Manifest): Set<number> {
  const used = new Set<number>();
  for (const h of m.handles) if (h.kind === "file") used.add(h.file);
  for (const p of m.processes) {
    if (!isLiving(p)) continue;
    used.add(p.exe);
    for (const { file } of p.mappings) if (file !== undefined) used.add(file);
  }
  return used;
}

/** Who uses a file, for a message: the executable of pid 2, fd 3 of pid 7, … */
function userOf(m: Manifest, file: FileRecord): Pick<Blocker, "pid" | "fd" | "kind"> {
  for (const p of m.processes) {
    if (!isLiving(p)) continue;
    if (p.exe === file.id) return { pid: p.pid, kind: "executable" };
    for (const [fd, id] of p.fds) {
      const h = m.handles[id];
      if (h?.kind === "file" && h.file === file.id) return { pid: p.pid, fd, kind: "file" };
    }
    if (p.mappings.some((map) => map.file === file.id)) return { pid: p.pid, kind: "mapping" };
  }
  return { kind: "file" };
}

function checkFiles(m: Manifest, { remaps, allowChanged }: CheckOptions, placement: Placement): Blocker[] {
  const out: Blocker[] = [];
  const mounts = planMounts(m.pod.isolate, {
    stateDirectory: "",
    cwd: m.pod.cwd,
    remaps,
    identity: new Map<string, string>(),
  });
  // What lies in a directory of the pod's own is in the image, or nowhere.
  const own = (path: string) => isOwn(mounts, path);
  // Carried ones were compared by content, and are there in the pod in any case.
  const carried = new Set(m.carriedFiles?.flatMap((e) => (e.type === "absent" ? [] : [e.path])));
  const isThere = (path: string) =>
    own(path)
      ? isCarriedInOwn(m, path)
      : carried.has(path) || placement.provides(path) || existsSync(translatePath(remaps, path));
  const used = usedFiles(m);
  for (const file of m.files) {
    if (!used.has(file.id)) continue;
    const user = userOf(m, file);
    const where = translatePath(remaps, file.path);
    if (own(file.path)) {
      const path = file.unlinked ? dirname(file.path) : file.path;
      if (!isCarriedInOwn(m, path)) out.push(missing(path, path, user));
      continue;
    }
    if (file.unlinked) {
      const parent = file.path.slice(0, file.path.lastIndexOf("/")) || "/";
      const there = translatePath(remaps, parent);
      if (!isThere(parent)) out.push(missing(there, there, user));
      continue;
    }
    if (file.byKernel) continue; // the pod's own /proc is not there yet
    if (carried.has(file.path)) continue;
    const st = tryStat(where);
    if (!st) {
      out.push(missing(file.path, where, user));
      continue;
    }
    if (allowChanged.includes("*") || allowChanged.includes(file.path) || !st.isFile()) continue;
    if (Number(st.size) !== file.sizeBytes || String(st.mtimeNs) !== file.mtimeNs) {
      out.push({
        code: "ERR_CHANGED_FILE",
        message: `${file.path} is not as the program left it (${describeChange(file, st)})`,
        path: where,
        hint: `bring back the file as it was, or accept what it is now with --allow-changed ${file.path}`,
        ...user,
      });
    }
  }
  for (const h of m.handles) {
    if ((h.kind === "directory" || h.kind === "path") && !h.path.startsWith("/proc/") && !isThere(h.path)) {
      out.push(missing(h.path, translatePath(remaps, h.path), { kind: h.kind }));
    }
  }
  const pipes = new Set(m.handles.flatMap((h) => (h.kind === "pipe" ? [h.object] : [])));
  for (const o of m.objects) {
    if (
      o.kind === "pipe" &&
      pipes.has(o.id) &&
      o.path !== undefined &&
      o.unlinked !== true &&
      !own(o.path) &&
      !carried.has(o.path) &&
      !isFifo(translatePath(remaps, o.path))
    )
      out.push(missing(o.path, translatePath(remaps, o.path), { kind: "pipe" }));
  }
  for (const p of m.processes) {
    if (!isLiving(p)) continue;
    for (const [what, path] of [
      ["cwd", p.cwd],
      ["root", p.root],
    ] as const) {
      if (!isThere(path)) out.push(missing(path, translatePath(remaps, path), { pid: p.pid, kind: what }));
    }
  }
  return unique(out);
}

/** Whether a path that lies in a place of the pod's own is in the image. */
function isCarriedInOwn(manifest: Manifest, path: string): boolean {
  return (manifest.own ?? []).some(
    ({ place, entries }) => path === place || entries.some((e) => `${place}${e.path}` === path),
  );
}

function describeChange(file: FileRecord, st: BigIntStats): string {
  if (Number(st.size) !== file.sizeBytes) return `${st.size} bytes instead of ${file.sizeBytes}`;
  return `changed at ${st.mtime.toISOString()}`;
}

function missing(path: string, where: string, user: Partial<Blocker>): Blocker {
  return {
    code: "ERR_MISSING_FILE",
    message: `${path} is missing here${where === path ? "" : ` (looked for at ${where})`}`,
    path: where,
    hint: `bring it here, say where it is with --remap path:${path}=NEW, or detach with --with-files all`,
    ...user,
  };
}

function unique(list: Blocker[]): Blocker[] {
  const seen = new Set<string>();
  return list.filter((b) => !seen.has(b.message) && seen.add(b.message));
}

function tryStat(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true });
  } catch {
    return undefined;
  }
}

function isFifo(path: string): boolean {
  try {
    return lstatSync(path).isFIFO();
  } catch {
    return false;
  }
}

/** Listening TCP ports that somebody else listens on now: found by listening on them for a moment. */
async function checkPorts(m: Manifest): Promise<Blocker[]> {
  const out: Blocker[] = [];
  for (const h of m.handles) {
    if (h.kind !== "inet-socket" || h.type !== "tcp" || h.state !== "listening" || !h.local || h.held) continue;
    const { address, port } = h.local;
    const code = await new Promise<string | undefined>((resolve) => {
      const server = createServer();
      server.once("error", (e: NodeJS.ErrnoException) => resolve(e.code));
      server.listen({ host: address, port, ipv6Only: h.family === "ipv6" && address !== "::" }, () =>
        server.close(() => resolve(undefined)),
      );
    });
    if (code === undefined || (code === "EADDRINUSE" && sharesPort(m, h))) continue;
    const holder = m.processes.find((p) => isLiving(p) && p.fds.some(([, id]) => id === h.id));
    const fd = holder && isLiving(holder) ? holder.fds.find(([, id]) => id === h.id)?.[0] : undefined;
    const shown = h.family === "ipv6" ? `[${address}]:${port}` : `${address}:${port}`;
    out.push({
      code: code === "EADDRINUSE" ? "ERR_PORT_IN_USE" : "ERR_SYSCALL",
      message:
        code === "EADDRINUSE"
          ? `${shown} is in use by another program here`
          : `${shown} cannot be listened on here (${code})`,
      kind: "inet-socket",
      path: shown,
      hint:
        code === "EADDRINUSE" ? `end the program that listens on ${shown}` : `give this host the address ${address}`,
      ...(holder ? { pid: holder.pid } : {}),
      ...(fd === undefined ? {} : { fd }),
    });
  }
  return out;
}

type InetSocket = Extract<Manifest["handles"][number], { kind: "inet-socket" }>;

/** Both 0.0.0.0 and :: of one port, or an SO_REUSEPORT group: the first test socket is in the second's way. */
function sharesPort(m: Manifest, one: InetSocket): boolean {
  const reusePort = 15; // SO_REUSEPORT, asm-generic/socket.h
  return (
    one.options.some(([level, name]) => level === 1 && name === reusePort) &&
    m.handles.some((h) => h !== one && h.kind === "inet-socket" && h.local?.port === one.local?.port)
  );
}
