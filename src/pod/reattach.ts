/**
 * Reattaching a pod from an image: check, plan, rebuild, commit.
 */
import { copyFileSync, existsSync, lstatSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { ControlConnection } from "../control/connection.js";
import { FrameType, type StdioKind, uint32s } from "../control/protocol.js";
import { toVirtError, VirtError } from "../errors.js";
import { saveEarlierWritten } from "../files/collect.js";
import { restoreOwn } from "../files/own.js";
import { placeInPod } from "../files/place.js";
import { type Placement, planPlacement } from "../files/placement.js";
import { checkImage } from "../image/check.js";
import { checkParts, type Image, imagePath, openImage } from "../image/image.js";
import type { Manifest } from "../image/manifest.js";
import { ImpossibleTree, planTree, type TreePlan } from "../image/tree.js";
import { type Data, initProgram, type NativeLaunchOptions, type NativeRebuild, native } from "../native.js";
import { checkAddressRemap, relocate, toHost } from "../remap/address.js";
import {
  checkTargets,
  findDescriptors,
  type GivenRecord,
  parseDescriptorRemaps,
  remapImage,
} from "../remap/descriptor.js";
import { mergeRemaps, type Remap, translatePath } from "../remap/path.js";
import type { TcpPolicy } from "../remap/tcp-policy.js";
import { answerHooks, type HookOptions } from "../rules/hooks.js";
import { type Interposition, nativeInterposition } from "../rules/interposition.js";
import { type CallName, pathsOfRules, type Rule } from "../rules/rules.js";
import { treeProcess } from "./compose.js";
import type { Forward } from "./forward.js";
import { furnishState } from "./identity.js";
import { aborted, type Progress, watch } from "./job.js";
import { attachPatient, claimName, interpositionOf, pathRemaps } from "./launch.js";
import { movesDirectory } from "./paths.js";
import { Pod } from "./pod.js";
import { discardPod, newPod, type PathRemap, type PodRecord, saveRecord } from "./store.js";
import { type Far, type HeldPlan, type HeldSocket, planHeld, takenOver } from "./taken.js";

/**
 * What reattach() and planReattach() may be told; everything has a default.
 *
 * @example
 * const options: ReattachOptions = { name: "second", remap: { path: { "/data": "/mnt/data" } }, allowChanged: ["/data/log"] };
 */
export interface ReattachOptions extends HookOptions {
  /** Default: the name of the image's pod; the new pod's id if that had none. Letters, digits, "_", ".", "-", at most 64. */
  name?: string;
  /** Over what the image was made under, which stays. Default: that alone. */
  remap?: Remap;
  /** In place of the rules the image was made under. */
  rules?: readonly Rule[];
  /**
   * What becomes of connections to outside that nobody holds any more: "hold" refuses to lose them (ERR_CONNECTION), "close" lets
   * the program find them reset, "reconnect" dials again; with these a holder on this host gives listening sockets alone. "repair": as "hold", and connections whose state the image has (`tcp`
   * of DetachOptions) are made though their address is not here yet; they go on when it is. Default "hold".
   */
  tcp?: TcpPolicy;
  /**
   * What the pod's old host still does, if that is another one: "established", connections go through it and new clients are
   * refused there; "all", it leads new clients here as well, as long as the pod runs (they seem to come from the loopback); "none",
   * it is not used: its connections are as if nobody held them (`tcp`), and it goes on holding them. Default "established".
   */
  forward?: Forward;
  /**
   * Where this host finds the holder of the pod's connections, "ADDRESS:PORT", if not at what `holdAt` said at the detach (an
   * address behind a NAT, a tunnel of ssh(1)); "ADDRESS" is at the port the image says. Default: where the image says.
   */
  holder?: string;
  /** Files (as the pod knows them) that may differ from what the program left; "*" for all. Default: none. */
  allowChanged?: string[];
  /**
   * What the launcher's streams become: "inherit" this process's own, "pipe" pod.stdin …, "log" the pod's log. A pod
   * with a terminal gets a terminal whatever is said here. Default "pipe".
   */
  stdio?: "pipe" | "inherit" | "log";
  /** Added to those in the image, and over them. Default {}. */
  labels?: Record<string, string>;
  /** As LaunchOptions has it; the image does not remember it. Default false. */
  removeAtEnd?: boolean;
  /** Stops the reattach with ERR_ABORTED, until the pod runs; nothing is left of it. */
  signal?: AbortSignal;
  /** Told every 100 ms, and once at the end. */
  onProgress?: (progress: Progress) => void;
}

/**
 * What a reattach would do: plain data. Pids are the pod's own.
 *
 * @example
 * const plan: ReattachPlan = await planReattach("cache");
 * console.log(plan.processes.map((p) => `${p.pid} ${p.command}`), plan.memoryBytes);
 */
export interface ReattachPlan {
  /** Path of the image. */
  image: string;
  /** What the pod would be called. */
  name: string;
  /** Program and arguments of the first process. */
  command: string[];
  /** Rules that hold: what is at `from` on the host appears at `to` in the pod. */
  remaps: PathRemap[];
  /** Descriptors that become something else. */
  descriptors: { pid: number; fd: number; target: string | number }[];
  /** Steps that grow the process tree (clone(2), setsid(2), setpgid(2)). */
  tree: TreePlan;
  /** Without zombies. `command` is the name as in /proc/PID/comm, `memoryBytes` what is private to the process. */
  processes: { pid: number; threads: number; command: string; mappings: number; fds: number; memoryBytes: number }[];
  /** How many handles there are of each kind. */
  handles: Record<string, number>;
  /** Sockets that live on, and who holds them: "here", or the address of a holder on another host. `pid` and `fd`: one of their users. */
  held: HeldSocket[];
  /** Memory in the image, shared and private, in bytes. */
  memoryBytes: number;
  /** What becomes of the files it carries, by path. */
  files: {
    /** The same on this host, and used as they are. */
    host: string[];
    /** Missing here; the pod sees its own. */
    carried: string[];
    /** Programs and libraries that differ here; the pod sees its own. */
    replaced: string[];
    /** Written by the pod, and different here; the pod sees its own, this host's stay as they are. */
    conflicts: string[];
    /** Directories over which overlays lie: what the pod writes there goes to its own directory in the store. */
    overlays: string[];
  };
}

const pageBytes = 4096;
const untouched = "nothing is left of the pod; the image is as it was";

/**
 * Checks everything that reattach() checks first and gives the plan; changes nothing. (Ports are tried by listening on
 * them for a moment.)
 *
 * Errors: when something is in the way, ERR_BLOCKED, or the one code all blockers share (ERR_MISSING_FILE,
 * ERR_CHANGED_FILE, ERR_PORT_IN_USE, ERR_CPU_FEATURE, ERR_ISOLATION, ERR_KERNEL_FEATURE, ERR_NOT_PERMITTED, ERR_REMAP,
 * ERR_SYSCALL), with all `blockers`; ERR_REMAP and ERR_RULE for what is no rule; ERR_USAGE (`holder` is no address, or no port
 * of it is known); those of openImage().
 *
 * @example
 * const plan = await planReattach("cache", { remap: { path: { "/data": "/mnt/data" } } });
 * console.log(plan.memoryBytes);
 */
export async function planReattach(nameOrImage: string | Image, options: ReattachOptions = {}): Promise<ReattachPlan> {
  return (await prepare(nameOrImage, options)).plan;
}

/** The image as it is to be on this host: its rules with those given over them, its sockets at their addresses here. */
function adapt(image: Manifest, options: ReattachOptions) {
  const known = image.pod;
  const told = interpositionOf(options);
  const interposition: Interposition = {
    record: known.record,
    rules: told.rules ?? (known.rules as Rule[] | undefined),
    ports: { ...known.ports, ...told.ports },
    addresses: { ...known.addresses, ...told.addresses },
    cover: known.cover as CallName[] | undefined,
    hooks: told.hooks,
  };
  const here = checkAddressRemap({ port: interposition.ports ?? {}, addr: interposition.addresses ?? {} });
  const { manifest, given } = remapImage(
    { ...image, handles: image.handles.map((h) => relocate(h, (a) => toHost(here, a))) },
    parseDescriptorRemaps(options.remap?.fd),
  );
  const remaps = mergeRemaps(
    manifest.pod.remaps,
    pathRemaps({ ...pathsOfRules(options.rules ?? []), ...options.remap?.path }),
  );
  return { manifest, given, remaps, interposition };
}

/** The image as it is to be here, and everything that stands in the way of that. @internal */
export async function checkHere(image: Manifest, options: ReattachOptions) {
  const adapted = adapt(image, options);
  const { remaps } = adapted;
  const placement = await planPlacement(adapted.manifest, remaps);
  // In an overlay a socket's file is another one than that below.
  const leadsToIt = (path: string) =>
    !placement.overlays.some(({ at }) => path.startsWith(at === "/" ? at : `${at}/`)) &&
    (lstatSync(translatePath(remaps, path), { throwIfNoEntry: false })?.isSocket() ?? false);
  const plan = await planHeld(image, adapted.manifest, options, leadsToIt);
  const { manifest, taken, far, blockers: lost, notes } = plan;
  const blockers = [
    ...lost,
    ...(await checkImage(manifest, { remaps, allowChanged: options.allowChanged ?? [], placement })),
    ...checkTargets(adapted, remaps, placement.provides),
  ];
  return { ...adapted, manifest, taken, far, held: takenOver(plan), notes, placement, blockers };
}

async function prepare(nameOrImage: string | Image, options: ReattachOptions) {
  const image = typeof nameOrImage === "string" ? await openImage(nameOrImage) : nameOrImage;
  await checkParts(image);
  const { blockers, manifest, taken, far, held, notes, given, remaps, placement, interposition } = await checkHere(
    image.manifest,
    options,
  );
  if (blockers.length > 0) {
    const code = blockers.every((b) => b.code === blockers[0]?.code)
      ? (blockers[0]?.code ?? "ERR_BLOCKED")
      : "ERR_BLOCKED";
    throw new VirtError(
      code,
      `the image ${image.name} cannot be reattached here: ${blockers.map((b) => b.message).join("; ")}`,
      {
        blockers,
        ...(blockers.length === 1
          ? {
              path: blockers[0]?.path,
              pid: blockers[0]?.pid,
              fd: blockers[0]?.fd,
              kind: blockers[0]?.kind,
              hint: blockers[0]?.hint,
            }
          : {}),
      },
    );
  }
  const interposed = nativeInterposition(interposition);
  const plan = { ...describePlan(image, remaps, placement, options), held };
  return { image, manifest, taken, far, notes, given, remaps, placement, interposition, interposed, plan };
}

function planOf(manifest: Manifest): TreePlan {
  try {
    return planTree(manifest.processes.map(treeProcess));
  } catch (cause) {
    if (!(cause instanceof ImpossibleTree)) throw cause;
    throw new VirtError("ERR_BAD_VALUE", `manifest.json: ${cause.message}`, { cause });
  }
}

function describePlan(image: Image, remaps: PathRemap[], placement: Placement, options: ReattachOptions) {
  const { manifest } = image;
  const handles: Record<string, number> = {};
  for (const h of manifest.handles) handles[h.kind] = (handles[h.kind] ?? 0) + 1;
  const bytes = (runs: readonly (readonly number[])[]) => runs.reduce((sum, run) => sum + (run[1] ?? 0) * pageBytes, 0);
  const processes = manifest.processes.flatMap((p) =>
    "threads" in p
      ? [
          {
            pid: p.pid,
            threads: p.threads.length,
            command: p.comm.toString(),
            mappings: p.mappings.length,
            fds: p.fds.length,
            memoryBytes: bytes(p.pages),
          },
        ]
      : [],
  );
  return {
    image: image.path,
    name: options.name ?? manifest.pod.name,
    command: manifest.pod.command,
    remaps,
    descriptors: findDescriptors(image.manifest, parseDescriptorRemaps(options.remap?.fd)).flatMap(({ remap, uses }) =>
      uses.map(({ pid, fd }) => ({ pid, fd, target: remap.given })),
    ),
    tree: planOf(manifest),
    processes,
    handles,
    memoryBytes:
      processes.reduce((sum, p) => sum + p.memoryBytes, 0) +
      manifest.memory.reduce((sum, m) => sum + bytes(m.pages), 0),
    files: {
      host: placement.host,
      carried: placement.carried,
      replaced: placement.replaced,
      conflicts: placement.conflicts,
      overlays: placement.overlays.map((o) => o.at),
    },
  };
}

/**
 * Makes a pod of an image (name, path or Image) again and resolves when it runs: same pids in a new pid namespace, same
 * memory, same handles, CLOCK_MONOTONIC going on from where it was (time_namespaces(7)). Files that the image carries and this
 * host has not, or not so, are seen by the pod alone (docs/files.md). All or nothing: if anything fails
 * nothing is left of it. The image is never changed, and may be reattached any number of times.
 *
 * Errors: those of planReattach() before anything is made; then ERR_NAME_TAKEN, ERR_USAGE (no valid name), ERR_LAUNCH (see
 * `virt-run doctor`), ERR_IMAGE_DAMAGED (a page's hash differs), ERR_BAD_VALUE (what the image says cannot be), ERR_ABORTED,
 * ERR_PORT_IN_USE (taken in the meantime), ERR_ISOLATION and ERR_KERNEL_FEATURE (its rules cannot be made here),
 * ERR_CPU_FEATURE, ERR_NO_ROOM, ERR_NO_VDSO, ERR_PID_TAKEN, ERR_IPC_ID,
 * ERR_TIMER_ID, ERR_PROCESS_GONE, ERR_POD_VERSION, ERR_UNSAFE_PATH, ERR_SYSCALL,
 * ERR_AGENT.
 *
 * @example
 * const pod = await reattach("cache", { remap: { path: { "/data": "/mnt/data" } } });
 * for (const note of pod.notes) console.warn(note);
 */
export async function reattach(nameOrImage: string | Image, options: ReattachOptions = {}): Promise<Pod> {
  const path = typeof nameOrImage === "string" ? imagePath(nameOrImage) : nameOrImage.path;
  if (dirname(path) === movesDirectory())
    throw new VirtError("ERR_MOVE_IN_DOUBT", `${path} belongs to a move that is not settled`, {
      path,
      hint: "run `virt-run move --resume` where it came from; if that host is gone for good, copy the image elsewhere and reattach the copy",
    });
  return (await park(nameOrImage, options)).commit();
}

/** A pod that is built and stands still: it runs, or nothing of it is left. @internal */
export interface Parked {
  readonly id: string;
  readonly name: string;
  readonly notes: readonly string[];
  /** Resolves when it runs. Nothing is left of it if it rejects, unless the process that was to run it is killed. */
  commit(): Promise<Pod>;
  /** Nothing is left of it, if it does not run. */
  discard(): Promise<void>;
}

/**
 * As reattach(), all but the commit.
 * @param known what else the pod's record is to say.
 * @internal
 */
export async function park(
  nameOrImage: string | Image,
  options: ReattachOptions = {},
  known: Pick<PodRecord, "lineage" | "epoch"> = {},
): Promise<Parked> {
  const { image, manifest, taken, far, given, remaps, placement, interposition, interposed, plan, ...prepared } =
    await prepare(nameOrImage, options);
  if (options.signal?.aborted) throw aborted(options.signal, untouched);
  const terminal = manifest.objects.find((o) => o.kind === "terminal" && o.keptByInit);
  const wanted = options.stdio ?? "pipe";
  const stdio: StdioKind = terminal ? "terminal" : wanted === "inherit" ? "inherit" : "streams";
  const { id, directory, socket } = newPod();
  const record: PodRecord = {
    schemaVersion: 1,
    id,
    name: options.name ?? manifest.pod.name,
    command: manifest.pod.command,
    cwd: manifest.pod.cwd,
    createdAt: new Date().toISOString(),
    stdio,
    socket,
    labels: { ...manifest.pod.labels, ...options.labels },
    remaps,
    removeAtEnd: options.removeAtEnd ?? false,
    image: image.path,
    ...known,
    ...interposition,
    ...(manifest.pod.hostname === undefined ? {} : { hostname: manifest.pod.hostname }),
    ...(manifest.pod.machineId === undefined ? {} : { machineId: manifest.pod.machineId }),
    ...(manifest.pod.isolate === undefined ? {} : { isolate: manifest.pod.isolate }),
  };
  let rebuild: NativeRebuild | undefined;
  let stopWatching = () => {};
  let made = () => {};
  let ended = false;
  const discard = async () => {
    if (ended) return;
    ended = true;
    await rebuild?.close();
    discardPod(id, socket);
    stopWatching();
    made();
  };
  const failed = async (e: unknown) => {
    await discard();
    return options.signal?.aborted ? aborted(options.signal, untouched) : toVirtError(e);
  };
  try {
    // A pod that was never named is called by its id: the new one then has its own.
    const named = options.name ?? (manifest.pod.name === manifest.pod.id ? undefined : manifest.pod.name);
    if (named === undefined) record.name = id;
    made = await claimName(record, named);
    const log = join(image.path, "log");
    if (existsSync(log)) copyFileSync(log, join(directory, "log"));
    await restoreOwn(manifest, image.path, directory);
    if (manifest.written) saveEarlierWritten(id, manifest.written);
    if (placement.overlays.length + placement.bound.length > 0)
      options.onProgress?.({ phase: "files", doneBytes: 0, totalBytes: image.carried.bytes });
    const placed = await placeInPod(image, placement, id);
    if (options.signal?.aborted) throw aborted(options.signal, untouched);
    if (placed && placed.layers.length > 0) {
      record.files = placed.files;
      saveRecord(record);
    }
    const launch: NativeLaunchOptions = {
      init: initProgram,
      socket,
      stateDir: directory,
      stdio,
      rebuild: true,
      far: far.length > 0,
      ...interposed,
      keepInput: wanted === "pipe",
      hostname: manifest.pod.hostname ?? "",
      remaps,
      ...furnishState(record, directory),
      layers: placed?.layers ?? [],
      ...(terminal?.kind === "terminal"
        ? { rows: terminal.rows, columns: terminal.columns, ptsIndex: terminal.index }
        : {}),
    };
    rebuild = new native.Rebuild(
      {
        ...nativePlan(image.path, manifest, { taken, far }, given, plan.tree, remaps),
        addressesComeLater: options.tcp === "repair",
      },
      launch,
    );
    stopWatching = watch(rebuild, options);
    const job = rebuild;
    const { notes } = await job.build();
    if (options.signal?.aborted) throw aborted(options.signal, untouched);
    const all = [...prepared.notes, ...(placed?.notes ?? []), ...notes];
    const piped = wanted === "pipe" && stdio === "streams";
    const commit = async () => {
      let connection: ControlConnection | undefined;
      try {
        connection = new ControlConnection(await job.commit());
        // At once: it runs from the commit on, and nothing of its end may be missed.
        const pod = new Pod(record, connection, { piped, notes: all });
        if (interposed.hooked) answerHooks(pod, connection, options.hooks ?? {});
        ended = true;
        await job.close();
        // That it has ended by now is no failure: the pod tells of it.
        const unlessEnded = (e: VirtError) => {
          if (e.code !== "ERR_POD_GONE") throw e;
        };
        await connection.request(FrameType.subscribe).catch(unlessEnded);
        if (piped) await connection.request(FrameType.attach, uint32s(attachPatient)).catch(unlessEnded);
        stopWatching();
        made();
        return pod;
      } catch (e) {
        connection?.close();
        ended = false;
        throw await failed(e);
      }
    };
    return { id, name: record.name, notes: all, commit, discard };
  } catch (e) {
    throw await failed(e);
  }
}

function nativeFar(directory: string, { address, port, key, cutLimitMs, part, sockets, listeners }: Far): Data {
  return {
    address,
    port,
    key: Buffer.from(key, "hex"),
    sockets,
    listeners,
    ...(cutLimitMs !== undefined && { cutLimitMs }),
    ...(part !== undefined && { state: readFileSync(join(directory, part)) }),
  };
}

/** The image's record and the tree's steps as the engine takes them. */
function nativePlan(
  directory: string,
  m: Manifest,
  { taken, far }: Pick<HeldPlan, "taken" | "far">,
  given: readonly GivenRecord[],
  tree: TreePlan,
  remaps: readonly PathRemap[],
): Record<string, Data> {
  // Under a rule a device may be another one.
  const handles = m.handles.map((h) =>
    h.kind === "device" && translatePath(remaps, h.path) !== h.path ? { ...h, remapped: true } : h,
  );
  return {
    directory,
    ...(taken && { held: { ...taken, key: Buffer.from(taken.key, "hex") } }),
    ...(far.length > 0 && { far: far.map((f) => nativeFar(directory, f)) }),
    clocks: m.clocks,
    processes: m.processes as unknown as Data,
    handles: [...handles, ...given] as unknown as Data,
    objects: m.objects as unknown as Data,
    files: m.files as unknown as Data,
    memory: m.memory as unknown as Data,
    vdso: m.vdso,
    xstate: m.xstate as unknown as Data,
    pagesInPart: m.pagesInPart,
    carried: m.carried as unknown as Data,
    grow: tree.steps as unknown as Data,
    seedPid: tree.seedPid,
    firstPid: m.pod.first.pid,
    firstEnded: m.pod.first.ended,
    firstStatus: m.pod.first.waitStatus,
    threads: 2,
  };
}
