/**
 * What the two ends of a move say to each other: every message with its limits, and the versions each side speaks. What
 * comes in is hostile, from either side: unknown members are ignored, unknown types and everything out of bounds refused.
 */
import * as v from "valibot";
import { type Blocker, VirtError } from "../errors.js";
import { count, optional } from "../image/manifest-values.js";

/** Versions of the protocol that this virt-run speaks. A message's new members need no new version, a new order does. */
export const spokenVersions: VersionRange = { least: 1, most: 1 };

/** What a message may have, in bytes. */
export const mostMessageBytes = 1 << 20;
/** What a draft of a manifest may have, in UTF-16 units; it comes in pieces. */
export const mostDraftLength = 64 << 20;
/** As JSON a unit may become six bytes. */
const draftPieceLength = 128 << 10;
const mostBlockers = 100;

/** A range of versions, both ends in it. */
export interface VersionRange {
  least: number;
  most: number;
}

/** Names go into messages on a terminal: nothing in them may steer it. */
const words = (most: number) =>
  v.pipe(
    v.string(),
    v.maxLength(most),
    v.transform((text) => text.replace(/\p{Cc}/gu, "?")),
  );
const moveId = v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/));
const lineage = v.pipe(v.string(), v.regex(/^[0-9a-f]{12,64}$/));
const epoch = v.pipe(count, v.minValue(1));
const about = { move: moveId, epoch };
const facts = {
  virtRun: words(64),
  features: v.pipe(v.array(words(64)), v.maxLength(100)),
  host: v.record(v.string(), v.unknown()),
};
const pod = v.object({ id: v.pipe(v.string(), v.regex(/^[0-9a-f]{12}$/)), name: words(64) });
const blocker = v.object({
  code: v.pipe(v.string(), v.regex(/^ERR_[A-Z0-9_]{1,40}$/)),
  message: words(1000),
  hint: optional(words(500)),
  pid: optional(count),
  fd: optional(count),
  kind: optional(words(64)),
  path: optional(words(1000)),
});

/** By type; all but `hello`, `welcome`, `draft`, `round`, `alive` and `failed` say which move they are about. */
const shapes = {
  /** The source begins. */
  hello: v.object({ least: epoch, most: epoch, ...facts }),
  /** The target takes the highest version that both speak. */
  welcome: v.object({ version: epoch, ...facts }),
  /** The pod as it is now, without pages; `draft` pieces of `draftLength` units in all follow. */
  offer: v.object({
    ...about,
    lineage,
    pod,
    totalBytes: count,
    draftLength: v.pipe(count, v.maxValue(mostDraftLength)),
  }),
  draft: v.object({ text: v.pipe(v.string(), v.maxLength(draftPieceLength)) }),
  /** The target takes it; data may come. */
  accept: v.object({ ...about, facts: v.record(v.string(), v.unknown()) }),
  /** The target does not take it, and nothing of it is left there. */
  refuse: v.object({ ...about, message: words(1000), blockers: v.pipe(v.array(blocker), v.maxLength(mostBlockers)) }),
  /** A round of copying is done. */
  round: v.object({ round: count, sentBytes: count, dirtyBytes: count }),
  /** The image is complete: build it. */
  prepare: v.object(about),
  /** It is built, parked, and written down: this copy is not lost any more. */
  prepared: v.object(about),
  /** The source has none any more: run. */
  commit: v.object(about),
  committed: v.object({ ...about, pod, notes: v.pipe(v.array(words(1000)), v.maxLength(100)) }),
  /** The source goes on: forget it. */
  abort: v.object(about),
  /** The source asks how it stands. `committing`: it has no copy any more; otherwise it never committed and never will. */
  resume: v.object({ ...about, lineage, committing: v.boolean() }),
  /** The target has nothing of this move, and will take nothing of it. */
  abandoned: v.object(about),
  /** The target knows nothing of a move that the source has committed. */
  unknown: v.object(about),
  /** The pod has gone on since, under the epoch `newer`. */
  superseded: v.object({ ...about, newer: epoch }),
  /** Another process of the target still works on this pod. */
  busy: v.object(about),
  /** Says nothing but that the other end is at work. */
  alive: v.object({}),
  /** Why the connection ends now. */
  failed: v.object({ code: v.pipe(v.string(), v.regex(/^ERR_[A-Z0-9_]{1,40}$/)), message: words(1000) }),
} as const;

/** A type of message. */
export type MessageType = keyof typeof shapes;
/** The message of a type. */
export type MessageOf<T extends MessageType> = { [K in T]: { type: K } & v.InferOutput<(typeof shapes)[K]> }[T];
/** Any message. */
export type Message = { [T in MessageType]: MessageOf<T> }[MessageType];

/**
 * A message as it crosses the wire. Errors: ERR_BUG if it is too long.
 *
 * @example
 * await wire.send(encodeMessage({ type: "alive" }));
 */
export function encodeMessage(message: Message): Buffer {
  const bytes = Buffer.from(JSON.stringify(message));
  if (bytes.length > mostMessageBytes)
    throw new VirtError("ERR_BUG", `a message '${message.type}' of ${bytes.length} bytes`);
  return bytes;
}

/**
 * What came over the wire, checked. Errors: ERR_MOVE_PROTOCOL.
 *
 * @example
 * const message = decodeMessage((await wire.next()) ?? Buffer.alloc(0));
 */
export function decodeMessage(bytes: Buffer): Message {
  if (bytes.length > mostMessageBytes) throw protocolError(`a message of ${bytes.length} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString());
  } catch {
    throw protocolError("a message that is no JSON");
  }
  const type = typeof value === "object" && value !== null ? (value as { type?: unknown }).type : undefined;
  if (typeof type !== "string" || !Object.hasOwn(shapes, type)) throw protocolError("a message of an unknown type");
  const { success, output, issues } = v.safeParse(shapes[type as MessageType], value);
  if (!success) throw protocolError(`a bad message '${type}' (${v.getDotPath(issues[0]) ?? "its shape"})`);
  return { type, ...output } as Message;
}

/** @internal */
export function protocolError(what: string): VirtError {
  return new VirtError("ERR_MOVE_PROTOCOL", `the other end of the move sent ${what}`);
}

/**
 * The highest version that both speak. Errors: ERR_MOVE_PROTOCOL with both ranges.
 *
 * @example
 * chooseVersion({ least: 1, most: 3 }, { least: 2, most: 5 }); // 3
 */
export function chooseVersion(ours: VersionRange, theirs: VersionRange): number {
  const version = Math.min(ours.most, theirs.most);
  if (version >= ours.least && version >= theirs.least) return version;
  const range = ({ least, most }: VersionRange) => (least === most ? `${least}` : `${least} to ${most}`);
  throw new VirtError(
    "ERR_MOVE_PROTOCOL",
    `this virt-run speaks version ${range(ours)} of moves, the other end ${range(theirs)}`,
  );
}

/**
 * A draft in pieces, each of which fits a message whatever is in it.
 *
 * @example
 * for (const piece of draftPieces(text)) await talk.send(piece);
 */
export function* draftPieces(text: string): Generator<MessageOf<"draft">> {
  for (let at = 0; at < text.length; at += draftPieceLength)
    yield { type: "draft", text: text.slice(at, at + draftPieceLength) };
}

/**
 * Blockers as they fit a message: no more than 100, the last of which then says how many there were.
 *
 * @example
 * await talk.send({ type: "refuse", ...about, message: "it has no room here", blockers: fittingBlockers(blockers) });
 */
export function fittingBlockers(blockers: readonly Blocker[]): Blocker[] {
  const clip = (text: string, most: number) =>
    (text.length > most ? `${text.slice(0, most - 1)}…` : text).replace(/\p{Cc}/gu, "?");
  const list = blockers.slice(0, mostBlockers).map((b) => ({
    code: b.code,
    message: clip(b.message, 1000),
    ...(b.hint !== undefined && { hint: clip(b.hint, 500) }),
    ...(b.pid !== undefined && { pid: b.pid }),
    ...(b.fd !== undefined && { fd: b.fd }),
    ...(b.kind !== undefined && { kind: clip(b.kind, 64) }),
    ...(b.path !== undefined && { path: clip(b.path, 1000) }),
  }));
  if (blockers.length > mostBlockers) {
    const more = blockers.length - mostBlockers + 1;
    list[mostBlockers - 1] = { code: "ERR_BLOCKED", message: `and ${more} more` };
  }
  return list;
}
