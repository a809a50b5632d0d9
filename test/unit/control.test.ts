/**
 * The control protocol: both sides have the same numbers, and what comes from the other side is never trusted.
 */
import "../support/env.js";
import { mkdirSync, readFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import t from "tap";
import { ControlConnection } from "../../src/control/connection.js";
import {
  decodeStatus,
  FrameType,
  frame,
  headerBytes,
  mostFrameBytes,
  protocolVersion,
  replyFlag,
  uint32s,
} from "../../src/control/protocol.js";
import { askHolder } from "../../src/pod/holder.js";
import { isListening } from "../../src/pod/store.js";
import { sandbox } from "../support/env.js";
import { Random, seeds } from "../support/random.js";

const header = readFileSync(new URL("../../native/init/protocol.h", import.meta.url), "utf8");

/** `8 << 20`, `0x8000` or `12` as C++ has it. */
function constant(name: string): number {
  const text = new RegExp(`\\b${name} =\\s+([^;]+);`).exec(header)?.[1];
  if (text === undefined) throw new Error(`${name} is not in protocol.h`);
  const [a, b] = text.split("<<").map(Number);
  return b === undefined ? (a as number) : (a as number) << b;
}

t.test("the numbers are those of native/init/protocol.h", async (t) => {
  const types = /enum class Type[^{]*\{([^}]+)\}/.exec(header)?.[1] ?? "";
  const native = new Map(
    [...types.matchAll(/\bk(\w+) = (\w+),/g)].map(([, name, value]) => [
      `${(name as string)[0]?.toLowerCase()}${(name as string).slice(1)}`,
      Number(value),
    ]),
  );
  t.ok(native.size > 10, "the header was understood");
  for (const [name, value] of Object.entries(FrameType)) t.equal(value, native.get(name), name);
  t.equal(new Set(native.values()).size, native.size, "each number is used once");
  t.equal(protocolVersion, constant("kVersion"));
  t.equal(mostFrameBytes, constant("kMostFrameBytes"));
  t.equal(replyFlag, constant("kReply"));
  t.equal(headerBytes, Number(/static_assert\(sizeof\(FrameHeader\) == (\d+)\)/.exec(header)?.[1]));
});

t.test("a frame is laid out as FrameHeader is", async (t) => {
  const bytes = frame(FrameType.exec, 7, Buffer.from("abc"));
  t.same([...bytes], [3, 0, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0, 97, 98, 99]);
  t.same([...uint32s(1, -1)], [1, 0, 0, 0, 255, 255, 255, 255]);
});

t.test("a status is read field by field", async (t) => {
  const status = decodeStatus(Buffer.concat([uint32s(1, 2, 1, 256, 2, 3, -1, 4, 0), uint32s(0)]));
  t.same(status, {
    version: 1,
    firstPid: 2,
    firstEnded: true,
    waitStatus: 256,
    stdio: "terminal",
    viewers: 3,
    hasTerminal: false,
    terminalIndex: 4,
    rebuilding: false,
  });
});

const directory = join(sandbox, "sockets");
mkdirSync(directory, { mode: 0o700 });
let sockets = 0;

/** A connection to something that is no init; what it says is the test's business. */
async function connected(t: Tap): Promise<{ connection: ControlConnection; init: Socket }> {
  const path = join(directory, `${sockets++}`);
  const server = createServer();
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const connection = ControlConnection.connect(path);
  const init = await accepted;
  init.on("error", () => {});
  t.teardown(() => {
    connection.close();
    init.destroy();
    server.close();
  });
  return { connection, init };
}

type Tap = { teardown(f: () => void): void };

const closed = (connection: ControlConnection) =>
  connection.closed ? Promise.resolve() : new Promise<void>((resolve) => connection.once("close", resolve));

t.test("requests have replies, in pieces and out of order", async (t) => {
  const { connection, init } = await connected(t);
  const [a, b] = [connection.request(FrameType.hello), connection.request(FrameType.subscribe)];
  const replies = Buffer.concat([
    frame(FrameType.subscribe | replyFlag, 2, Buffer.concat([uint32s(0), Buffer.from("second")])),
    frame(FrameType.hello | replyFlag, 1, Buffer.concat([uint32s(0), Buffer.from("first")])),
  ]);
  for (const byte of replies) {
    init.write(Buffer.from([byte]));
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.equal((await a).toString(), "first");
  t.equal((await b).toString(), "second");
});

t.test("a refusal is an error with init's errno", async (t) => {
  const { connection, init } = await connected(t);
  const lock = connection.request(FrameType.lock);
  init.write(frame(FrameType.lock | replyFlag, 1, Buffer.concat([uint32s(-16), Buffer.from("detach")])));
  await t.rejects(lock, { code: "ERR_POD_BUSY", message: /detach/ });
  const signal = connection.request(FrameType.signal);
  init.write(frame(FrameType.signal | replyFlag, 2, uint32s(-3)));
  await t.rejects(signal, { code: "ERR_PROCESS_GONE", errnoName: "ESRCH" });
});

t.test("a frame that is too long ends the connection, and with it what waits", async (t) => {
  const { connection, init } = await connected(t);
  const waiting = connection.request(FrameType.hello);
  const head = frame(FrameType.hello | replyFlag, 1);
  head.writeUInt32LE(mostFrameBytes + 1, 0);
  init.write(head);
  await t.rejects(waiting, { code: "ERR_POD_GONE" });
  t.ok(connection.closed);
});

t.test("frames that are too short for what they are end the connection", async (t) => {
  for (const type of [
    FrameType.hello | replyFlag,
    FrameType.forked,
    FrameType.started,
    FrameType.exited,
    FrameType.output,
    FrameType.gone,
    FrameType.failed,
  ]) {
    const { connection, init } = await connected(t);
    init.write(frame(type, 1, Buffer.from([1])));
    await closed(connection);
    t.ok(connection.closed, `type ${type.toString(16)}`);
  }
});

t.test("what speaks another version is not read further", async (t) => {
  const replies = [
    uint32s(protocolVersion + 1),
    uint32s(protocolVersion + 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
    uint32s(protocolVersion - 1, 1),
  ];
  for (const reply of replies) {
    const { connection, init } = await connected(t);
    const both = Promise.allSettled([connection.hello(), connection.helloHolder()]);
    for (const n of [1, 2]) init.write(frame(FrameType.hello | replyFlag, n, Buffer.concat([uint32s(0), reply])));
    for (const end of await both) t.match(end, { status: "rejected", reason: { code: "ERR_POD_VERSION" } });
  }
});

t.test("a holder that speaks another version is not asked what it has; without holder there is nothing", async (t) => {
  const path = join(directory, `${sockets++}`);
  const server = createServer((init) => {
    init.on("error", () => {});
    init.once("data", () =>
      init.write(frame(FrameType.hello | replyFlag, 1, uint32s(0, protocolVersion + 1, 1, 1, 0, 0, 0, 0, 0))),
    );
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  await t.rejects(askHolder(path), { code: "ERR_POD_VERSION" });
  t.ok(isListening(path));
  await new Promise((resolve) => server.close(resolve));
  t.equal(await askHolder(path), undefined);
  t.notOk(isListening(path));
});

t.test("a reply that nobody waits for, and an event of tomorrow, do no harm", async (t) => {
  const { connection, init } = await connected(t);
  init.write(frame(FrameType.hello | replyFlag, 77, uint32s(0)));
  init.write(frame(0x7ff, 0, Buffer.alloc(100)));
  const hello = connection.request(FrameType.subscribe);
  init.write(frame(FrameType.subscribe | replyFlag, 1, uint32s(0)));
  await hello;
  t.notOk(connection.closed);
});

t.test("random bytes: answered by nothing worse than the end of the connection", async (t) => {
  for (const seed of seeds(300)) {
    const random = new Random(seed);
    const { connection, init } = await connected(t);
    const types = [...Object.values(FrameType), FrameType.hello | replyFlag];
    const frames = Array.from({ length: 3 }, () => {
      const payload = Buffer.from(Array.from({ length: random.below(20) }, () => random.below(256)));
      const bytes = frame(random.pick(types), random.below(3), payload);
      if (random.chance(0.2)) bytes.writeUInt32LE(random.below(2 ** 32), 0);
      return bytes;
    });
    connection.request(FrameType.hello).catch(() => {});
    init.end(Buffer.concat(frames));
    await closed(connection);
  }
  t.pass();
});
