/**
 * The checks of a manifest whose shape is right: its references, ranges and numbers.
 */
import { normalize } from "node:path";
import { VirtError } from "../errors.js";
import { capabilitiesLeft } from "../pod/isolation.js";
import { checkCarriedFiles } from "./carried-file.js";
import { highestAddress, pageBytes, partPages } from "./format.js";
import type { Manifest } from "./manifest.js";

const mostMessage = 240;

/** Refuses the manifest, saying what is wrong with it. */
export function bad(what: string): never {
  // It may quote the manifest, which may hold anything: one line, not too long, no escape sequences.
  const line = what.replace(/\p{Cc}/gu, "?");
  throw new VirtError(
    "ERR_BAD_VALUE",
    `manifest.json: ${line.length > mostMessage ? `${line.slice(0, mostMessage)}…` : line}`,
  );
}

/** Everything a schema cannot say: ids that exist, ranges that fit, numbers that are unique. */
export function checkReferences(m: Manifest): void {
  const indexed = (list: { id: number }[], what: string) => {
    for (const [i, e] of list.entries()) e.id === i || bad(`${what} ${i} has id ${e.id}`);
  };
  indexed(m.handles, "handle");
  indexed(m.objects, "object");
  indexed(m.files, "file");
  indexed(m.memory, "memory");
  const handleKind = (id: number) => m.handles[id]?.kind ?? bad(`there is no handle ${id}`);
  const objectKind = (id: number, kind: string) => m.objects[id]?.kind === kind || bad(`there is no ${kind} ${id}`);
  const fileExists = (id: number) => m.files[id] !== undefined || bad(`there is no file ${id}`);
  const memoryExists = (id: number) => m.memory[id] !== undefined || bad(`there is no memory ${id}`);

  for (const h of m.handles) {
    if (h.kind === "terminal") objectKind(h.object, "terminal");
    if (h.kind === "pipe") objectKind(h.object, "pipe");
    if (h.kind === "file") fileExists(h.file);
    if (h.kind === "memfd") memoryExists(h.memory);
    if (h.kind === "epoll")
      for (const item of h.items) handleKind(item.handle) === "dropped" && bad("an epoll watches a dropped handle");
    if (h.kind === "unix-socket") {
      if (h.state === "connected" && (h.object === undefined || h.end === undefined))
        bad(`unix socket ${h.id} has no pair`);
      if (h.object !== undefined) objectKind(h.object, "unix-pair");
      if (h.listener !== undefined) handleKind(h.listener);
      if (h.senders !== undefined && h.senders.length !== h.queue?.length)
        bad(`unix socket ${h.id} has not one sender a message`);
      if (h.queue !== undefined && h.state !== "connected" && h.name === undefined)
        bad(`unix socket ${h.id} has messages and no name`);
    }
  }
  const checkRuns = (runs: Manifest["memory"][number]["pages"], limit: number, what: string) => {
    let last = 0;
    for (const [start, pages, index] of runs) {
      if (start % pageBytes !== 0 || pages < 1 || start < last) bad(`${what} has a page run out of order`);
      last = start + pages * pageBytes;
      if (last > limit || !holdsRun(m.pagesInPart, index, pages)) bad(`${what} has a page run that lies outside`);
    }
  };
  for (const o of m.memory) {
    checkRuns(o.pages, Math.ceil(o.sizeBytes / pageBytes) * pageBytes, `memory ${o.id}`);
    if (o.kind === "memfd" && o.name === undefined) bad(`memory ${o.id} has no name`);
    if (o.kind === "sysv" && (o.shmid === undefined || o.key === undefined || o.mode === undefined))
      bad(`memory ${o.id} has no id`);
  }
  checkIsolation(m);
  const pids = new Set<number>();
  for (const p of m.processes) {
    for (const n of p.zombie ? [p.pid] : p.threads.map((t) => t.tid))
      pids.has(n) || n === 1 ? bad(`pid ${n} occurs twice`) : pids.add(n);
    if (p.zombie) continue;
    if (p.threads[0]?.tid !== p.pid) bad(`the first thread of pid ${p.pid} is not its leader`);
    fileExists(p.exe);
    let end = 0;
    for (const map of p.mappings) {
      if (map.start % pageBytes !== 0 || map.end % pageBytes !== 0 || map.end <= map.start || map.start < end)
        bad(`pid ${p.pid} has a bad mapping`);
      end = map.end;
      if (map.kind === "file") fileExists(map.file ?? -1);
      if (map.kind === "memory") memoryExists(map.memory ?? -1);
    }
    checkRuns(p.pages, highestAddress, `pid ${p.pid}`);
    const numbers = new Set<number>();
    for (const [fd, id] of p.fds) {
      handleKind(id);
      if (numbers.has(fd)) bad(`pid ${p.pid} has fd ${fd} twice`);
      numbers.add(fd);
    }
    for (const l of p.locks ?? []) numbers.has(l.fd) || bad(`pid ${p.pid} has a lock on fd ${l.fd}, which it has not`);
  }
  for (const f of m.files)
    if (f.unlinked && !m.carried.some((c) => c.file === f.id)) bad(`the content of unlinked file ${f.path} is missing`);
  for (const c of m.carried) fileExists(c.file);
  const names = new Set(m.parts.map((p) => p.name));
  if (names.size !== m.parts.length) bad("a part occurs twice");
  for (const name of ["pages.sum", ...m.carried.map((c) => c.name)]) names.has(name) || bad(`part ${name} is missing`);
  checkCarriedFiles(m);
  const sums = m.parts.find((p) => p.name === "pages.sum");
  if (sums?.sizeBytes !== 8 * m.pagesInPart.reduce((sum, n) => sum + n, 0)) bad("pages.sum has the wrong size");
}

/** Rules that are one for a path, and processes that have no right to undo them. */
function checkIsolation(m: Manifest): void {
  const rules = m.pod.isolate;
  if (!rules) return;
  const seen = new Set<string>();
  for (const path of [...rules.readOnly, ...rules.writable, ...rules.hide]) {
    if (normalize(path) !== path || (path !== "/" && path.endsWith("/"))) bad(`the isolated path ${path} is not plain`);
    if (seen.has(path)) bad(`the isolated path ${path} has two rules`);
    seen.add(path);
  }
  const left = capabilitiesLeft(m.pod.user.root);
  for (const p of m.processes) {
    if (p.zombie) continue;
    const { inheritable, permitted, effective, bounding, ambient } = p.credentials;
    for (const set of [inheritable, permitted, effective, bounding, ambient])
      if ((BigInt(set) & ~left) !== 0n) bad(`pid ${p.pid} of an isolated pod has capabilities it cannot have`);
  }
}

/** True if pages `index` … lie within the parts; a run may go on from a full part into the next. */
function holdsRun(pagesInPart: readonly number[], index: number, pages: number): boolean {
  for (let at = index; at < index + pages; ) {
    const part = Math.floor(at / partPages);
    const end = Math.min(index + pages, (part + 1) * partPages);
    if (end - part * partPages > (pagesInPart[part] ?? 0)) return false;
    at = end;
  }
  return true;
}
