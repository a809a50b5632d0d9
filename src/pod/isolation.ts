/**
 * Isolation: what a pod may not write, see or reach. Rules of a user become a list of mounts, in order, for virt-init to
 * carry out (native/init/isolation.cc). docs/isolation.md says what each promises.
 */
import { accessSync, constants, lstatSync, readdirSync, realpathSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, normalize } from "node:path";
import { VirtError } from "../errors.js";
import { translatePath } from "../remap/path.js";
import { podsDirectory, socketDirectory } from "./paths.js";
import type { PathRemap } from "./store.js";

/**
 * What launch() may be told of a pod's isolation. Paths are absolute, as the pod sees them, and exist; the deepest rule
 * that covers a path counts. Everything holds for what exec() starts, and after a reattach.
 *
 * @example
 * const project: Isolation = { readOnly: ["/"], writable: ["/home/u/project"], hide: ["/home/u/.ssh"], network: "none" };
 */
export interface Isolation {
  /** Cannot be written, with all that is mounted below. "/": then the pod has a /tmp and a /dev of its own. Default: none. */
  readOnly?: string[];
  /** Can be written as it could without rules. Default: none. */
  writable?: string[];
  /** Something empty is there, which cannot be read. Default: none. */
  hide?: string[];
  /** "none": an empty network namespace (network_namespaces(7)) with a loopback interface. Default: the host's network. */
  network?: "none";
}

/** The rules as a pod's record and its image keep them: paths without symbolic links, each once. */
export interface IsolationRecord {
  readOnly: string[];
  writable: string[];
  hide: string[];
  network?: "none";
}

/** One step of making a pod's mounts: MountOperation in native/init/protocol.h. */
export interface MountRule {
  operation: "read-only" | "writable" | "hide" | "own" | "pin" | "devices" | "file";
  path: string;
  source?: string;
}

/** What native launch() is told of it. */
export interface MountPlan {
  mounts: MountRule[];
  isolated: boolean;
  noNetwork: boolean;
  /** Device nodes open in /dev alone. */
  noDevices: boolean;
}

const lists = [
  ["readOnly", "read-only"],
  ["writable", "writable"],
  ["hide", "hide"],
] as const;

/** The kernel's own names of the capabilities (capabilities(7)) that root has in an isolated pod; native/init/rights.cc. */
const rootKeeps = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 18, 23, 28, 29, 31];

/** All capabilities a process of an isolated pod may have, as a set of bits. */
export function capabilitiesLeft(root: boolean): bigint {
  return root ? rootKeeps.reduce((set, n) => set | (1n << BigInt(n)), 0n) : 0n;
}

/**
 * Checks rules and makes their paths canonical; nothing if there is none. Errors: ERR_USAGE (a relative path), ERR_ISOLATION
 * (one that does not exist, twice the same, or rules that cannot be).
 */
export function resolveIsolation(
  given: Isolation | undefined,
  remaps: readonly PathRemap[],
): IsolationRecord | undefined {
  const record: IsolationRecord = { readOnly: [], writable: [], hide: [] };
  for (const [list, what] of lists) {
    for (const path of given?.[list] ?? []) {
      const place = canonical(path, what, remaps);
      const known = lists.find(([other]) => record[other].includes(place));
      if (known?.[0] === list) continue;
      if (known) throw refused(`${place} cannot be both ${known[1]} and ${what}`, place);
      record[list].push(place);
    }
  }
  if (given?.network !== undefined && given.network !== "none")
    throw new VirtError("ERR_USAGE", `there is no network '${String(given.network)}': "none"`);
  if (given?.network === "none") record.network = "none";
  if (record.network === undefined && lists.every(([list]) => record[list].length === 0)) return undefined;
  for (const [list, what] of lists) for (const path of record[list]) checkRule(path, what);
  return record;
}

/** Where rules of a record lead nowhere, or elsewhere, on this host now. */
export function staleRules(record: IsolationRecord | undefined, remaps: readonly PathRemap[]): VirtError[] {
  if (!record) return [];
  return lists.flatMap(([list, what]) =>
    record[list].flatMap((path) => {
      try {
        const now = canonical(path, what, remaps);
        return now === path ? [] : [refused(`${path} is a symbolic link here, to ${now}`, path)];
      } catch (e) {
        return [e as VirtError];
      }
    }),
  );
}

function refused(message: string, path: string, hint?: string): VirtError {
  return new VirtError("ERR_ISOLATION", message, { path, hint });
}

function canonical(given: string, what: string, remaps: readonly PathRemap[]): string {
  if (!given.startsWith("/"))
    throw new VirtError("ERR_USAGE", `the ${what} path '${given}' is not absolute`, {
      path: given,
      hint: "begin it with /",
    });
  const plain = normalize(given);
  const path = plain.length > 1 && plain.endsWith("/") ? plain.slice(0, -1) : plain;
  const there = translatePath(remaps, path);
  let real: string;
  try {
    real = realpathSync(there);
  } catch (e) {
    const { code } = e as NodeJS.ErrnoException;
    throw refused(
      `the ${what} path ${path} ${code === "ENOENT" ? "does not exist" : `cannot be found (${code})`}`,
      path,
    );
  }
  if (there === path) return real;
  if (realpathSync(dirname(there)) !== dirname(there) || real !== there)
    throw refused(`the ${what} path ${path} leads through a symbolic link in what it is remapped to, ${there}`, path);
  return path;
}

function checkRule(path: string, what: string): void {
  if (isWithin(path, "/proc") || isWithin(path, "/dev/pts") || path === "/dev/ptmx")
    throw refused(`${path} cannot have a rule: it is the pod's own already`, path, "leave the rule out");
  if (what === "hide" && (path === "/" || path === "/dev"))
    throw refused(`${path} cannot be hidden: no program runs without it`, path, "hide what is in it");
  for (const directory of ownDirectories())
    if (isWithin(path, directory) && (path !== directory || what !== "hide"))
      throw refused(`${path} cannot have a rule: isolated pods do not see ${directory}`, path, "leave the rule out");
}

function isWithin(path: string, directory: string): boolean {
  return path === directory || directory === "/" || path.startsWith(`${directory}/`);
}

/** Where pods can be commanded and changed, those of other sessions too: no program of an isolated pod may. */
function ownDirectories(): string[] {
  const uid = process.geteuid?.();
  // Root is heard by everybody's pods.
  const places = ["/tmp", tmpdir()];
  const others =
    uid === 0
      ? ["/run/user", ...places.flatMap((place) => namesIn(place, /^virt-run-\d+$/))]
      : [`/run/user/${uid}/virt-run`, ...places.map((place) => `${place}/virt-run-${uid}`)];
  const found = others.map(tryRealpath).filter((path) => path !== undefined && isDirectory(path)) as string[];
  return [...new Set([...[socketDirectory(), podsDirectory()].map((path) => realpathSync(path)), ...found])];
}

/** The rule that counts for a path. */
function covering(path: string, rules: ReadonlyMap<string, MountRule>): MountRule | undefined {
  for (let at = path; ; at = dirname(at)) {
    const rule = rules.get(at);
    if (rule || at === "/") return rule;
  }
}

/** Directories that a pod has to itself under a read-only root, where the host has them. */
export const ownPlaces = ["/tmp", "/var/tmp", "/dev/shm"];

/** The directory in a pod's state directory that is its own `place`. */
export function ownSource(stateDirectory: string, place: string): string {
  return `${stateDirectory}/own${place.replaceAll("/", "-")}`;
}

/** Whether a path of the pod lies in a directory of its own. */
export function isOwn(plan: MountPlan, path: string): boolean {
  return covering(path, new Map(plan.mounts.map((rule) => [rule.path, rule])))?.operation === "own";
}

/** The mounts of a pod: rules, what follows from them, and files that say who it is. `identity`: source by path. */
export function planMounts(
  record: IsolationRecord | undefined,
  pod: { stateDirectory: string; cwd: string; remaps: readonly PathRemap[]; identity: ReadonlyMap<string, string> },
): MountPlan {
  const root = process.geteuid?.() === 0;
  const rules = new Map<string, MountRule>();
  const add = (operation: MountRule["operation"], path: string, source?: string) => {
    if (!rules.has(path)) rules.set(path, { operation, path, ...(source === undefined ? {} : { source }) });
  };
  for (const [list, operation] of lists) for (const path of record?.[list] ?? []) add(operation, path);
  let noDevices = false;
  if (record) {
    const sealed = rules.get("/")?.operation === "read-only";
    noDevices = root;
    if ((sealed || root) && !rules.has("/dev")) {
      noDevices = true;
      add("devices", "/dev");
      for (const { to } of pod.remaps) if (isWithin(to, "/dev") && !isWithin(to, "/dev/pts")) add("writable", to);
      if (!sealed && isDirectory("/dev/shm")) add("writable", "/dev/shm");
    }
    // What root owns there is the kernel's, not the pod's.
    if (root && !sealed && isDirectory("/sys")) add("read-only", "/sys");
    if (sealed) {
      for (const place of ownPlaces) {
        const path = tryRealpath(place);
        const above = path === undefined ? undefined : covering(path, rules)?.path;
        if (path !== undefined && (above === "/" || (above === "/dev" && rules.get(above)?.operation === "devices")))
          add("own", path, ownSource(pod.stateDirectory, place));
      }
    }
    // Whoever works in /tmp works there still.
    const cwd = tryRealpath(translatePath(pod.remaps, pod.cwd));
    if (cwd !== undefined && cwd === pod.cwd && covering(cwd, rules)?.operation === "own" && !rules.has(cwd))
      add("read-only", cwd);
    for (const directory of ownDirectories()) {
      rules.delete(directory);
      add("hide", directory);
    }
    // Where nothing of the host's is, nothing has to be hidden.
    for (const { operation, path } of [...rules.values()]) {
      const above = operation === "hide" ? covering(dirname(path), rules)?.operation : undefined;
      const absent = above === "devices" && !/^\/dev\/(null|zero|full|u?random|tty|mqueue)$/.test(path);
      if (above === "hide" || above === "own" || absent) rules.delete(path);
    }
    for (const path of pinned(rules, root)) add("pin", path);
  }
  for (const [path, source] of pod.identity) add("file", path, source);
  const depth = ({ path }: MountRule) => (path === "/" ? 0 : path.split("/").length - 1);
  return {
    mounts: [...rules.values()].sort((a, b) => depth(a) - depth(b)),
    isolated: record !== undefined,
    noNetwork: record?.network === "none",
    noDevices,
  };
}

/**
 * A rule is for a path. Where a program may rename a directory above it, it could put something else under that path, and
 * what the rule is about under another: so these directories become mount points, which nobody can rename or remove.
 */
function pinned(rules: ReadonlyMap<string, MountRule>, root: boolean): string[] {
  const out = new Set<string>();
  for (const { operation, path } of rules.values()) {
    const protects = operation === "read-only" || operation === "hide";
    if (!protects && operation !== "writable") continue;
    for (let at = dirname(path); at !== "/" && !rules.has(at); at = dirname(at)) {
      const above = covering(at, rules)?.operation;
      const open = protects && (above === undefined || above === "writable");
      if (above === "own" || (open && (root || canChange(dirname(at))))) out.add(at);
    }
  }
  return [...out];
}

/** Whether we may rename what is in a directory, or give ourselves the right to. */
function canChange(directory: string): boolean {
  try {
    if (statSync(directory).uid === process.geteuid?.()) return true;
    accessSync(directory, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function namesIn(directory: string, pattern: RegExp): string[] {
  return readdirSync(directory)
    .filter((name) => pattern.test(name))
    .map((name) => join(directory, name));
}

function isDirectory(path: string): boolean {
  try {
    return lstatSync(path).isDirectory();
  } catch {
    return false;
  }
}

function tryRealpath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}
