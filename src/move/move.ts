/**
 * Moving a running pod to another host: the transport, the wire over it, and the source's side of the protocol.
 */
import type { Blocker, VirtError } from "../errors.js";
import { native } from "../native.js";
import { checkCutLimit, parseReach } from "../pod/holder.js";
import { movesDirectory } from "../pod/paths.js";
import type { Pod } from "../pod/pod.js";
import { loadRecord, saveRecord } from "../pod/store.js";
import { Departing, type DepartureOptions, departed, sweepDeparture } from "./departing.js";
import type { ArrivalOptions } from "./draft.js";
import { Ledger } from "./ledger.js";
import { NoteDirectory } from "./notes.js";
import type { MoveWire } from "./parts.js";
import { type Settled, settleMove } from "./settle.js";
import { checkAway, type MoveAwayOptions, type Moved, type MoveProgress, moveAway } from "./source.js";
import { type OpenOptions, openTransport, parseTarget, showTarget, type Transport } from "./transport/index.js";

/**
 * What Pod.move() may be told; everything has a default.
 *
 * @example
 * const options: MoveOptions = { downtimeMs: 50, signal: AbortSignal.timeout(600_000) };
 */
export interface MoveOptions extends DepartureOptions, OpenOptions {
  /** Copy memory while the pod runs, and stop it for the rest. Default true. */
  live?: boolean;
  /** How long the pod may stand still, in milliseconds, if what it writes allows it. Default 300. */
  downtimeMs?: number;
  /** The most to be sent in a second, in bytes. Default: no limit. */
  bandwidth?: number;
  /** Told at each step, and every 100 ms while data goes across. */
  onProgress?: (progress: MoveProgress) => void;
  /** How it is reattached there: name, remaps … Default: as it is here. */
  arrival?: ArrivalOptions;
}

/** Notes of this host's moves. @internal */
export function ledgerHere(): Ledger {
  return new Ledger(new NoteDirectory(movesDirectory()));
}

/** A native wire over a transport, which it closes. @internal */
export function wireOver(transport: Transport): { wire: MoveWire; bare: InstanceType<typeof native.Wire> } {
  const bare = new native.Wire(transport.readFd, transport.writeFd);
  // Why it ended is known to the transport: that no virt-run is there, above all.
  const why = async (e: unknown): Promise<never> => {
    const code = (e as VirtError).code;
    const failure = code === "ERR_MOVE_LOST" ? await endOf(transport) : undefined;
    throw failure ?? e;
  };
  let closing: Promise<void> | undefined;
  const wire: MoveWire = {
    send: (message) => bare.send(message).catch(why),
    next: async () => {
      const message = await bare.next().catch(why);
      if (message) return message;
      const failure = await endOf(transport);
      if (failure) throw failure;
      return undefined;
    },
    sendFile: (directoryFd, name) => bare.sendFile(directoryFd, name).catch(why),
    receiveInto: (directoryFd) => bare.receiveInto(directoryFd),
    progress: () => bare.progress(),
    limit: (bytesPerSecond) => bare.limit(bytesPerSecond),
    close: () => {
      closing ??= bare.close().then(() => transport.close());
      return closing;
    },
  };
  return { wire, bare };
}

/** Why a transport ended, if it has or is about to. */
async function endOf(transport: Transport): Promise<VirtError | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const soon = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), 2000);
  });
  return Promise.race([transport.failure, soon]).finally(() => clearTimeout(timer));
}

/** @internal */
export async function movePod(pod: Pod, target: string, options: MoveOptions = {}): Promise<Moved> {
  const moved = await withWire(pod, target, options, moveAway);
  noteWhereItWent(pod.id, moved);
  return moved;
}

/** What stands in the way of a move, here and there. @internal */
export function checkMove(pod: Pod, target: string, options: MoveOptions = {}): Promise<Blocker[]> {
  return withWire(pod, target, options, checkAway);
}

async function withWire<T>(
  pod: Pod,
  target: string,
  options: MoveOptions,
  work: (departing: Departing, wire: MoveWire, how: MoveAwayOptions) => Promise<T>,
): Promise<T> {
  const to = parseTarget(target);
  if (options.holdAt !== undefined) parseReach(options.holdAt);
  if (options.cutLimitMs !== undefined) checkCutLimit(options.cutLimitMs);
  const { live, downtimeMs, bandwidth, arrival = {}, onProgress, ...rest } = options;
  const { signal, connectTimeoutMs, remoteCommand, ...departure } = rest;
  const transport = await openTransport(to, {
    ...(signal && { signal }),
    ...(connectTimeoutMs !== undefined && { connectTimeoutMs }),
    ...(remoteCommand !== undefined && { remoteCommand }),
  });
  const { wire, bare } = wireOver(transport);
  if (bandwidth !== undefined) wire.limit(bandwidth);
  const name = showTarget(to);
  const { localAddressSeenByPeer: seen } = transport;
  let departing: Departing | undefined;
  const ticking = tick(wire, onProgress);
  try {
    departing = new Departing(
      pod,
      bare,
      name,
      { ...departure, ...((departure.holdAt ?? seen) ? { holdAt: departure.holdAt ?? (seen as string) } : {}) },
      arrival,
    );
    return await work(departing, wire, {
      ledger: ledgerHere(),
      move: native.randomHex(16),
      target: name,
      ...(live !== undefined && { live }),
      ...(downtimeMs !== undefined && { downtimeMs }),
      ...(signal && { signal }),
      ...(ticking.tell && { onProgress: ticking.tell }),
    });
  } finally {
    ticking.stop();
    await departing?.close();
    await wire.close().catch(() => {}); // moveAway has done it, unless it never began
  }
}

/** Repeats what was told last while data goes across. */
function tick(wire: MoveWire, onProgress: MoveOptions["onProgress"]) {
  let last: MoveProgress | undefined;
  const again = () => {
    if (last?.phase !== "copy") return;
    const { sentBytes } = wire.progress();
    onProgress?.({ ...last, sentBytes, roundBytes: last.roundBytes + sentBytes - last.sentBytes });
  };
  const timer = onProgress && setInterval(again, 100);
  timer?.unref();
  const tell = (progress: MoveProgress) => {
    last = progress;
    onProgress?.(progress);
  };
  return { stop: () => clearInterval(timer), ...(onProgress && { tell }) };
}

/**
 * Settles a move that was cut: afterwards one copy of the pod runs, there or here. Errors: those of settleMove().
 *
 * @example
 * const settled = await resumeMove(pod.id);
 */
export async function resumeMove(id: string, options: OpenOptions = {}): Promise<Settled> {
  const ledger = ledgerHere();
  const unlock = await ledger.lockOutgoing(id); // whoever has it is at work there
  if (unlock) {
    sweepDeparture(id);
    unlock();
  }
  const settled = await settleMove(id, {
    ledger,
    pods: departed,
    connect: async (target) => wireOver(await openTransport(target, options)).wire,
  });
  if (settled.state === "moved") noteWhereItWent(id, settled.moved);
  return settled;
}

function noteWhereItWent(id: string, { target, pod }: Moved): void {
  const record = loadRecord(id);
  if (record) saveRecord({ ...record, movedTo: { target, settled: true, ...(pod && { pod }) } });
}
