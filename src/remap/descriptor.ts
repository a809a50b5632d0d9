/**
 * Descriptor rules: what a process has as descriptor FD is something else from now on. At reattach the image is read as if it
 * said so; of a running pod the descriptor is replaced while it stands still (native/checkpoint/remap_descriptors.cc).
 */
import { existsSync, fstatSync, type Stats, statSync } from "node:fs";
import { dirname } from "node:path";
import { type Blocker, VirtError } from "../errors.js";
import { type HandleRecord, isLiving, type Manifest } from "../image/manifest.js";
import type { PathRemap } from "../pod/store.js";
import { parseAddress } from "./address.js";
import { translatePath } from "./path.js";

/** A rule, parsed. */
export interface DescriptorRemap {
  /** As the user wrote it, for messages. */
  rule: string;
  /** What the user gave as TARGET. */
  given: string | number;
  pid: number | "*";
  fd: number;
  target: Target;
}

type Target =
  | { kind: "path"; path: string }
  | { kind: "tcp"; address: string; port: number }
  | { kind: "stream"; stream: 0 | 1 | 2 }
  | { kind: "terminal" }
  | { kind: "fd"; pid: number; fd: number }
  | { kind: "own"; fd: number };

/** What native/resources/given.cc makes. Not part of any image. */
export type GivenRecord = { flags: number; kind: "given" } & (
  | { path: string; position?: number }
  | { tcp: { address: string; port: number } }
  | { own: number }
);

/** A rule's descriptors in a pod, at least one. */
export interface DescriptorChange {
  remap: DescriptorRemap;
  /** What the first of them was: the others become what takes its place. */
  was: HandleRecord;
  uses: { pid: number; fd: number; handle: HandleRecord; closeOnExec: boolean }[];
}

const accessMode = 3; // O_ACCMODE

type Tables = Pick<Manifest, "processes" | "handles" | "objects">;

const streams = ["stdin", "stdout", "stderr"];
const grammar =
  "fd:PID/FD=TARGET, where PID may be * and TARGET is a path, tcp:HOST:PORT, stdin, stdout, stderr, terminal or PID/FD";

/** Checks what a user gave. Errors: ERR_REMAP. */
export function parseDescriptorRemaps(rules: Readonly<Record<string, string | number>> = {}): DescriptorRemap[] {
  return Object.entries(rules).map(([place, target]) => {
    const rule = `fd:${place}=${target}`;
    const at = /^(\*|\d{1,7})\/(\d{1,9})$/.exec(place);
    const parsed = parseTarget(target);
    if (!at || !parsed) throw new VirtError("ERR_REMAP", `'${rule}' is no rule: ${grammar}`);
    return { rule, given: target, pid: at[1] === "*" ? "*" : Number(at[1]), fd: Number(at[2]), target: parsed };
  });
}

function parseTarget(target: string | number): Target | undefined {
  if (typeof target === "number")
    return Number.isInteger(target) && target >= 0 ? { kind: "own", fd: target } : undefined;
  if (target.startsWith("/")) return { kind: "path", path: target };
  if (target === "terminal") return { kind: "terminal" };
  if (streams.includes(target)) return { kind: "stream", stream: streams.indexOf(target) as 0 | 1 | 2 };
  const other = /^(\d{1,7})\/(\d{1,9})$/.exec(target);
  if (other) return { kind: "fd", pid: Number(other[1]), fd: Number(other[2]) };
  const { address, port } = (target.startsWith("tcp:") && parseAddress(target.slice("tcp:".length))) || {};
  return address !== undefined && port ? { kind: "tcp", address, port } : undefined;
}

/** The descriptors that the rules are about. Errors: ERR_REMAP (there is no such process or descriptor). */
export function findDescriptors(tables: Tables, remaps: readonly DescriptorRemap[]): DescriptorChange[] {
  const taken = new Set<string>();
  return remaps.map((remap) => {
    const uses = tables.processes.filter(isLiving).flatMap((p) => {
      if (remap.pid !== "*" && remap.pid !== p.pid) return [];
      return p.fds.flatMap(([fd, id, closeOnExec]) => {
        const handle = tables.handles[id];
        return fd === remap.fd && handle ? [{ pid: p.pid, fd, handle, closeOnExec }] : [];
      });
    });
    const was = uses[0]?.handle;
    if (!was) throw new VirtError("ERR_REMAP", `${remap.rule}: ${whatThereIs(tables, remap)}`);
    for (const { pid, fd } of uses) {
      if (taken.has(`${pid}/${fd}`))
        throw new VirtError("ERR_REMAP", `${remap.rule}: another rule is about ${pid}/${fd}`);
      taken.add(`${pid}/${fd}`);
    }
    if (remap.target.kind === "fd") {
      const id = handleAt(tables, remap, remap.target);
      const old = new Set(uses.map(({ handle }) => handle.id));
      const watched = tables.handles.some((h) => h.kind === "epoll" && h.items.some((item) => old.has(item.handle)));
      if (watched && tables.handles[id]?.kind === "epoll")
        throw new VirtError("ERR_REMAP", `${remap.rule}: an epoll watches it, and is to watch no other`);
    }
    if (remap.target.kind === "terminal") podTerminal(tables, remap);
    return { remap, was, uses };
  });
}

function whatThereIs({ processes }: Tables, { pid, fd }: Pick<DescriptorRemap, "pid" | "fd">): string {
  const living = processes.filter(isLiving);
  const process = living.find((p) => p.pid === pid);
  if (process) return `pid ${pid} has no descriptor ${fd}; it has ${process.fds.map(([n]) => n).join(", ")}`;
  if (pid === "*") return `no process has a descriptor ${fd}`;
  return `there is no process ${pid}; there are ${living.map((p) => `${p.pid} (${p.comm.toString()})`).join(", ")}`;
}

function handleAt(tables: Tables, remap: DescriptorRemap, at: { pid: number; fd: number }): number {
  const process = tables.processes.filter(isLiving).find((p) => p.pid === at.pid);
  const entry = process?.fds.find(([fd]) => fd === at.fd);
  if (!entry) throw new VirtError("ERR_REMAP", `${remap.rule}: ${whatThereIs(tables, at)}`);
  if (tables.handles[entry[1]]?.kind === "dropped")
    throw new VirtError("ERR_REMAP", `${remap.rule}: descriptor ${at.fd} of pid ${at.pid} was given up at the detach`);
  return entry[1];
}

function podTerminal(tables: Tables, remap: DescriptorRemap) {
  const terminal = tables.objects.find((o) => o.kind === "terminal" && o.keptByInit);
  if (terminal?.kind !== "terminal")
    throw new VirtError("ERR_REMAP", `${remap.rule}: the pod has no terminal of its own`);
  return terminal;
}

/** What is to be made, unless there is it already. */
function given({ target }: DescriptorRemap, was: HandleRecord): GivenRecord | undefined {
  const flags = was.flags;
  if (target.kind === "path")
    return { kind: "given", flags, path: target.path, ...(was.kind === "file" ? { position: was.position } : {}) };
  if (target.kind === "tcp") return { kind: "given", flags, tcp: { address: target.address, port: target.port } };
  if (target.kind === "own") return { kind: "given", flags, own: target.fd };
  return undefined;
}

// --- at reattach

/**
 * The image as if its processes had those descriptors. `given` are handles that come after its own. What nobody has any more
 * becomes "dropped": its file need not be here.
 */
export function remapImage(
  image: Manifest,
  remaps: readonly DescriptorRemap[],
): { manifest: Manifest; given: GivenRecord[] } {
  if (remaps.length === 0) return { manifest: image, given: [] };
  const changes = findDescriptors(image, remaps);
  const handles = [...image.handles];
  const made: GivenRecord[] = [];
  const replaced = new Map<string, { was: number; now: number }>();
  // Those of the image's own kinds come first: `given` is numbered after them.
  const own = new Map<DescriptorRemap, number>();
  for (const { remap, was } of changes) {
    const { target } = remap;
    // Only how it is opened: the launcher's own description is not the program's to change.
    const flags = was.flags & accessMode;
    const id = handles.length;
    if (target.kind === "fd") own.set(remap, handleAt(image, remap, target));
    if (target.kind === "stream") {
      if (image.objects.some((o) => o.kind === "terminal" && o.keptByInit))
        throw new VirtError("ERR_REMAP", `${remap.rule}: the pod has a terminal; say 'terminal'`);
      own.set(remap, id);
      handles.push({ id, kind: "launcher-stream", stream: target.stream, flags });
    }
    if (target.kind === "terminal") {
      own.set(remap, id);
      handles.push({ id, kind: "terminal", object: podTerminal(image, remap).id, role: "slave", flags });
    }
  }
  for (const { remap, was, uses } of changes) {
    let now = own.get(remap);
    if (now === undefined) {
      now = handles.length + made.length;
      made.push(given(remap, was) as GivenRecord);
    }
    for (const { pid, fd, handle } of uses) replaced.set(`${pid}/${fd}`, { was: handle.id, now });
  }
  const processes = image.processes.map((p) => {
    if (!isLiving(p)) return p;
    const at = (fd: number) => replaced.get(`${p.pid}/${fd}`);
    return {
      ...p,
      fds: p.fds.map(([fd, id, closeOnExec]): (typeof p.fds)[number] => [fd, at(fd)?.now ?? id, closeOnExec]),
      ...(p.locks ? { locks: p.locks.filter((l) => !at(l.fd)) } : {}),
    };
  });
  // What an epoll watches under the descriptor's number is what is there now.
  for (const [i, h] of handles.entries()) {
    if (h.kind !== "epoll") continue;
    const holders = image.processes.filter(isLiving).filter((p) => p.fds.some(([, id]) => id === h.id));
    const items = h.items.map((item) => {
      const change = holders.map((p) => replaced.get(`${p.pid}/${item.fd}`)).find((c) => c?.was === item.handle);
      return change ? { ...item, handle: change.now } : item;
    });
    handles[i] = { ...h, items };
  }
  const used = new Set<number>();
  for (const p of processes) if (isLiving(p)) for (const [, id] of p.fds) used.add(id);
  for (const h of handles) {
    if (h.kind === "epoll") for (const item of h.items) used.add(item.handle);
    if (h.kind === "unix-socket" && h.listener !== undefined) used.add(h.listener);
    // Datagrams find their way by name.
    if (h.kind === "unix-socket" && h.sendsTo !== undefined)
      for (const to of handles) if (to.kind === "unix-socket" && to.name?.equals(h.sendsTo)) used.add(to.id);
  }
  for (const { was } of replaced.values()) {
    const h = handles[was];
    if (h && !used.has(was)) handles[was] = { id: was, flags: h.flags, kind: "dropped", was: h.kind };
  }
  return {
    manifest: { ...image, processes, handles },
    given: made.map((g, i) => ({ ...g, id: handles.length + i })),
  };
}

/** What is wrong with rules' targets on this host, as far as it can be told before there is a pod. */
export function checkTargets(
  { manifest, given: made }: { manifest: Manifest; given: readonly GivenRecord[] },
  remaps: readonly PathRemap[],
  provides: (path: string) => boolean,
): Blocker[] {
  const carried = new Set(manifest.carriedFiles?.flatMap((e) => (e.type === "absent" ? [] : [e.path])));
  return made.flatMap((g, i): Blocker[] => {
    const id = manifest.handles.length + i;
    const holder = manifest.processes.filter(isLiving).find((p) => p.fds.some(([, h]) => h === id));
    const where = { kind: "given", pid: holder?.pid ?? 0, fd: holder?.fds.find(([, h]) => h === id)?.[0] ?? 0 };
    const watched = manifest.handles.some((h) => h.kind === "epoll" && h.items.some((item) => item.handle === id));
    const wrong = (what: string, hint: string): Blocker[] => [
      { code: "ERR_REMAP", message: `descriptor ${where.fd} of pid ${where.pid}: ${what}`, hint, ...where },
    ];
    if ("own" in g) {
      try {
        fstatSync(g.own);
        return [];
      } catch {
        return wrong(`this process has no descriptor ${g.own}`, "pass one that is open");
      }
    }
    if (!("path" in g)) return [];
    // A directory of the pod's own is not there yet.
    if (manifest.pod.isolate !== undefined) return [];
    const inPod = (where: string) => carried.has(where) || provides(where);
    if (inPod(g.path) || inPod(dirname(g.path))) return [];
    const path = translatePath(remaps, g.path);
    const st = tryStat(path);
    const writes = (g.flags & accessMode) !== 0;
    if (!st && !(writes && existsSync(dirname(path)))) return wrong(`${path} is not there`, "make it, or name another");
    if (st?.isDirectory() && writes) return wrong(`${path} is a directory`, "name a file");
    const memoryDevices = 1; // null, zero, … (Documentation/admin-guide/devices.txt)
    const isMemory = st?.isCharacterDevice() && st.rdev >> 8 === memoryDevices;
    if (watched && (st === undefined || st.isFile() || st.isDirectory() || isMemory))
      return wrong(`an epoll watches it, which takes no file like ${path}`, "name a FIFO, a socket or a device");
    return [];
  });
}

function tryStat(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}

// --- of a running pod

/** As NativeCapture.remap() takes it; `tables` are what its survey() gave. */
export function changesOf(tables: Tables, remaps: readonly DescriptorRemap[]): object[] {
  return findDescriptors(tables, remaps).map(({ remap, was, uses }) => {
    const { target } = remap;
    const { flags } = was;
    const give =
      target.kind === "fd"
        ? { handle: handleAt(tables, remap, target) }
        : target.kind === "stream"
          ? { kind: "given", flags, own: target.stream }
          : target.kind === "terminal"
            ? { kind: "given", flags, path: `/dev/pts/${podTerminal(tables, remap).index}` }
            : given(remap, was);
    return {
      give,
      uses: uses.map(({ pid, fd, handle, closeOnExec }) => ({
        pid,
        fd,
        closeOnExec,
        watched: watchedAs(tables, pid, fd, handle.id),
      })),
    };
  });
}

/** Items of a process's epolls that watch a handle under this number. */
function watchedAs({ processes, handles }: Tables, pid: number, fd: number, id: number): object[] {
  const process = processes.filter(isLiving).find((p) => p.pid === pid);
  return (process?.fds ?? []).flatMap(([epoll, handle]) => {
    const h = handles[handle];
    const items = h?.kind === "epoll" ? h.items : [];
    return items
      .filter((item) => item.fd === fd && item.handle === id)
      .map(({ events, data }) => ({ epoll, handle, events, data }));
  });
}
