/**
 * The parts of a move that stand alone: messages (what comes is hostile), rounds, notes on a disk.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import type { VirtError } from "../../src/errors.js";
import { type IncomingNote, Ledger, type OutgoingNote } from "../../src/move/ledger.js";
import {
  chooseVersion,
  decodeMessage,
  draftPieces,
  encodeMessage,
  fittingBlockers,
  type Message,
  mostMessageBytes,
} from "../../src/move/messages.js";
import { NoteDirectory } from "../../src/move/notes.js";
import { type CopyRound, judgeRounds } from "../../src/move/rounds.js";
import { sandbox } from "../support/env.js";
import { Random, seeds } from "../support/random.js";

const about = { move: "0123456789abcdef0123456789abcdef", epoch: 3 };
const pod = { id: "0123456789ab", name: "cache" };
const lineage = "ba9876543210";

const messages: Message[] = [
  { type: "hello", least: 1, most: 2, virtRun: "0.1.0", features: ["far"], host: { arch: "x86_64" } },
  { type: "welcome", version: 1, virtRun: "0.1.0", features: [], host: {} },
  { type: "offer", ...about, lineage, pod, totalBytes: 5, draftLength: 7 },
  { type: "draft", text: "{}" },
  { type: "accept", ...about, facts: {} },
  {
    type: "refuse",
    ...about,
    message: "no",
    blockers: [{ code: "ERR_MISSING_FILE", message: "m", path: "/x", fd: 1 }],
  },
  { type: "round", round: 1, sentBytes: 2, dirtyBytes: 3 },
  { type: "prepare", ...about },
  { type: "prepared", ...about },
  { type: "commit", ...about },
  { type: "committed", ...about, pod, notes: ["lost a lease"] },
  { type: "abort", ...about },
  { type: "resume", ...about, lineage, committing: true },
  { type: "abandoned", ...about },
  { type: "unknown", ...about },
  { type: "superseded", ...about, newer: 4 },
  { type: "busy", ...about },
  { type: "alive" },
  { type: "failed", code: "ERR_IMAGE_WRITE", message: "no space" },
];

t.test("every message there and back; what is unknown in it is left out", async (t) => {
  for (const message of messages) {
    t.same(decodeMessage(encodeMessage(message)), message, message.type);
    const more = { ...message, later: { version: 9 } };
    t.same(decodeMessage(Buffer.from(JSON.stringify(more))), message);
  }
});

t.test("what is no message is refused, and not more than a line of it repeated", async (t) => {
  const refused = (bytes: Buffer | string, what: string) =>
    t.throws(() => decodeMessage(Buffer.from(bytes)), { code: "ERR_MOVE_PROTOCOL" }, what);
  for (const text of [
    "",
    "{",
    "null",
    "[]",
    "7",
    '"hello"',
    "{}",
    '{"type":7}',
    '{"type":"toString"}',
    '{"type":"__proto__"}',
  ])
    refused(text, text);
  refused(Buffer.alloc(mostMessageBytes + 1, 0x20), "too long");
  refused("[".repeat(mostMessageBytes - 1), "too deep");
  for (const [key, value] of [
    ["move", "0123"],
    ["move", about.move.toUpperCase()],
    ["epoch", 0],
    ["epoch", 1.5],
    ["epoch", 2 ** 53],
    ["epoch", "3"],
  ] as const)
    refused(JSON.stringify({ type: "commit", ...about, [key]: value }), `${key}: ${value}`);
  refused(
    JSON.stringify({ type: "resume", ...about, lineage: "../../x", committing: true }),
    "a lineage that is a path",
  );
  refused(
    JSON.stringify({ type: "offer", ...about, lineage, pod, totalBytes: 1, draftLength: 2 ** 40 }),
    "a huge draft",
  );
  t.throws(() => encodeMessage({ type: "draft", text: "x".repeat(mostMessageBytes) }), { code: "ERR_BUG" });
});

t.test("text from the other end cannot steer a terminal", async (t) => {
  const said = decodeMessage(
    Buffer.from(JSON.stringify({ type: "failed", code: "ERR_X", message: "a\u001b[2Jb\nc\u0000\u009b" })),
  );
  t.match(said, { message: "a?[2Jb?c??" });
});

t.test("bytes at random do no harm", async (t) => {
  for (const seed of seeds(3000)) {
    const random = new Random(seed);
    const bytes = encodeMessage(random.pick(messages));
    for (let n = 1 + random.below(4); n > 0; n--) bytes[random.below(bytes.length)] = random.below(256);
    try {
      decodeMessage(bytes);
    } catch (e) {
      if ((e as VirtError).code !== "ERR_MOVE_PROTOCOL") throw new Error(`VIRT_RUN_SEED=${seed}: ${e}`);
    }
  }
  t.pass();
});

t.test("a version that both speak", async (t) => {
  t.equal(chooseVersion({ least: 1, most: 3 }, { least: 2, most: 5 }), 3);
  t.equal(chooseVersion({ least: 2, most: 5 }, { least: 1, most: 2 }), 2);
  for (const theirs of [
    { least: 4, most: 9 },
    { least: 1, most: 1 },
    { least: 3, most: 2 },
  ])
    if (theirs.most === 2)
      t.throws(() => chooseVersion({ least: 1, most: 3 }, theirs), { code: "ERR_MOVE_PROTOCOL" }, "a range inside out");
    else t.throws(() => chooseVersion({ least: 2, most: 3 }, theirs), { code: "ERR_MOVE_PROTOCOL" });
});

t.test("drafts and blockers fit their messages, whatever is in them", async (t) => {
  const text = "\u0000\u{1f600}x".repeat(100_000);
  let again = "";
  for (const piece of draftPieces(text)) again += (decodeMessage(encodeMessage(piece)) as { text: string }).text;
  t.ok(again === text);
  const many = Array.from({ length: 250 }, (_, i) => ({
    code: "ERR_MISSING_FILE",
    message: "\u0001€".repeat(800),
    hint: "€".repeat(800),
    path: `/${"€".repeat(4000)}`,
    fd: i,
  }));
  const blockers = fittingBlockers(many);
  t.equal(blockers.length, 100);
  t.match(blockers.at(-1), { message: "and 151 more" });
  decodeMessage(encodeMessage({ type: "refuse", ...about, message: "m", blockers }));
});

const round = (sentBytes: number, dirtyBytes: number, ms = 1000, tracked = true): CopyRound => ({
  sentBytes,
  dirtyBytes,
  ms,
  tracked,
});

t.test("when copying is enough", async (t) => {
  const MiB = 2 ** 20;
  const goal = { downtimeMs: 300, fixedMs: 50, mostRounds: 5 };
  const next = (...rounds: CopyRound[]) => judgeRounds(rounds, goal).next;
  t.same(judgeRounds([round(100 * MiB, 20 * MiB)], goal), {
    next: "fits",
    bytesPerSecond: 100 * MiB,
    expectedStopMs: 250,
  });
  t.equal(next(round(100 * MiB, 30 * MiB)), "again", "350 ms");
  t.equal(next(round(100 * MiB, 0, 0)), "fits", "nothing to send");
  t.equal(next(round(100 * MiB, 0, 1000, false)), "untracked");
  t.equal(next(round(100 * MiB, 60 * MiB), round(60 * MiB, 55 * MiB)), "again", "once may be chance");
  t.equal(next(round(100 * MiB, 60 * MiB), round(60 * MiB, 55 * MiB), round(55 * MiB, 54 * MiB)), "steady");
  t.equal(
    next(round(100 * MiB, 60 * MiB), round(60 * MiB, 55 * MiB), round(55 * MiB, 35 * MiB)),
    "again",
    "it shrinks",
  );
  const slow = [90, 75, 60, 48, 38].map((dirty) => round(100 * MiB, dirty * MiB));
  t.equal(next(...slow), "most");
  t.equal(next(...slow.slice(0, 4)), "again");
  const { bytesPerSecond } = judgeRounds([round(100 * MiB, MiB), round(4096, 4096, 100)], goal);
  t.ok(bytesPerSecond > 90 * MiB, "a round of one page says nothing about the way");
  t.match(judgeRounds([round(0, 4096, 0)], { ...goal, downtimeMs: 10 }), { bytesPerSecond: 0, next: "again" });
});

const out: OutgoingNote = {
  schemaVersion: 1,
  state: "offered",
  ...about,
  lineage,
  at: "2026-01-01T00:00:00Z",
  pod,
  target: "ssh://b",
};
const incoming: IncomingNote = {
  schemaVersion: 1,
  state: "receiving",
  ...about,
  lineage,
  at: "2026-01-01T00:00:00Z",
  name: "cache",
  image: true,
};

t.test("notes on a disk", async (t) => {
  const directory = join(sandbox, "moves");
  mkdirSync(directory, { mode: 0o700 });
  const ledger = new Ledger(new NoteDirectory(directory));
  t.equal(await ledger.outgoing(pod.id), undefined);
  await ledger.putOutgoing(out);
  t.same(await new Ledger(new NoteDirectory(directory)).outgoing(pod.id), out, "another process reads it");
  writeFileSync(join(directory, `out-${pod.id}.json.new`), '{"state":"comm', "utf8");
  t.match(await ledger.outgoing(pod.id), { state: "offered" }, "what a crash left half written says nothing");
  await ledger.checkSettled(pod.id);
  await ledger.putOutgoing({ ...out, state: "committing" });
  await t.rejects(ledger.checkSettled(pod.id), { code: "ERR_MOVE_IN_DOUBT" });
  await ledger.putIncoming(incoming);
  t.same(await ledger.allIncoming(), [incoming]);
  t.same(
    readdirSync(directory).filter((name) => name.endsWith(".new")),
    [],
  );
  const path = join(directory, `out-${pod.id}.json`);
  const text = readFileSync(path, "utf8");
  for (const damaged of ["", text.slice(0, -1), text.replace("committing", "gone"), "null"]) {
    writeFileSync(path, damaged);
    await t.rejects(ledger.outgoing(pod.id), { code: "ERR_MOVE_IN_DOUBT" }, "a damaged note is not none");
  }
  await t.rejects(new NoteDirectory(directory).write("../x", ""), { code: "ERR_BUG" });
  await t.rejects(new NoteDirectory(join(sandbox, "none")).write("x", ""), {
    code: "ERR_SYSCALL",
    errnoName: "ENOENT",
  });
});

t.test("no step that there is not, and no way back in epochs", async (t) => {
  const directory = join(sandbox, "steps");
  mkdirSync(directory, { mode: 0o700 });
  const ledger = new Ledger(new NoteDirectory(directory));
  const refused = (note: OutgoingNote) => t.rejects(ledger.putOutgoing(note), { code: "ERR_BUG" }, note.state);
  await refused({ ...out, state: "committing" });
  await ledger.putOutgoing(out);
  await refused({ ...out, epoch: 2 });
  await refused({ ...out, move: "f".repeat(32), epoch: 3 });
  await ledger.putOutgoing({ ...out, state: "abandoned" });
  await refused({ ...out, state: "committing" });
  await ledger.putOutgoing({ ...out, move: "f".repeat(32), epoch: 4 });
  await t.rejects(ledger.putIncoming({ ...incoming, state: "committed" }), { code: "ERR_BUG" });
  await ledger.putIncoming(incoming);
  await t.rejects(ledger.putIncoming({ ...incoming, state: "activating" }), { code: "ERR_BUG" });
  for (const state of ["prepared", "activating", "activating", "committed", "committed"] as const)
    await ledger.putIncoming({ ...incoming, state, here: pod });
  await t.rejects(
    ledger.putIncoming({ ...incoming, state: "dropped" }),
    { code: "ERR_BUG" },
    "what ran is not dropped",
  );
});

t.test("a lock is one's own until it is given back", async (t) => {
  const directory = join(sandbox, "locks");
  mkdirSync(directory, { mode: 0o700 });
  const [one, two] = [new Ledger(new NoteDirectory(directory)), new Ledger(new NoteDirectory(directory))];
  const unlock = await one.lockOutgoing(pod.id);
  t.ok(unlock);
  t.equal(await two.lockOutgoing(pod.id), undefined);
  t.ok(await two.lockOutgoing("ffffffffffff"), "others are free");
  unlock?.();
  t.ok(await two.lockOutgoing(pod.id));
  t.same(await one.allIncoming(), [], "a lock is no note");
});
