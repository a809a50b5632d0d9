/**
 * An image as a stream: what comes in is hostile. Everything that is no image's file is refused, nothing is written
 * outside the directory, and nothing is left of what was refused.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import t from "tap";
import { type Header, pack } from "tar-stream";
import { packImage, unpackImage } from "../../src/image/archive.js";
import { type Image, openImage } from "../../src/image/image.js";
import { stringifyManifest } from "../../src/image/manifest.js";
import { sandbox } from "../support/env.js";
import { goodManifest } from "../support/manifest.js";
import { Random, seeds } from "../support/random.js";

const place = join(sandbox, "archive");
mkdirSync(place);
let made = 0;
const sha256 = (bytes: Buffer | string) => createHash("sha256").update(bytes).digest("hex");

/** The files of an image that is whole as far as openImage() looks. */
function imageFiles(): Map<string, Buffer> {
  const manifest = goodManifest();
  const parts: Record<string, Buffer> = {
    "pages.sum": Buffer.alloc(24, 1),
    log: Buffer.from("12345"),
    carried: Buffer.from("content!"),
  };
  const carried = `files/${sha256(parts["carried"] as Buffer)}`;
  manifest.carried = [{ file: 1, name: carried, sizeBytes: 8 }];
  for (const e of manifest.carriedFiles ?? []) if (e.type === "file") Object.assign(e, { name: carried, sizeBytes: 8 });
  manifest.parts = Object.entries(parts).map(([name, bytes]) => ({
    name: name === "carried" ? carried : name,
    sizeBytes: bytes.length,
    sha256: sha256(bytes),
  }));
  const text = stringifyManifest(manifest);
  return new Map([
    ["manifest.json", Buffer.from(text)],
    ["manifest.sha256", Buffer.from(`${sha256(text)}\n`)],
    ["pages-1.bin", Buffer.alloc(3 * 4096, 7)],
    ["pages.sum", parts["pages.sum"] as Buffer],
    ["log", parts["log"] as Buffer],
    [carried, parts["carried"] as Buffer],
  ]);
}

type Entry = [Partial<Header> & { name: string }, Buffer?];

/** A tar of these entries. */
function tar(entries: Iterable<Entry>): Promise<Buffer> {
  const archive = pack();
  for (const [head, body] of entries) {
    if (body) archive.entry(head, body);
    else archive.entry(head);
  }
  archive.finalize();
  return buffer(archive);
}

const regular = (): Entry[] => [...imageFiles()].map(([name, bytes]) => [{ name }, bytes]);

async function unpacked(bytes: Buffer | Readable): Promise<Image> {
  return unpackImage(bytes instanceof Readable ? bytes : Readable.from([bytes]), join(place, `image-${made++}`));
}

interface Failure {
  code?: string;
  name?: string;
  message: string;
}

/** Refused with one clear error; nothing is left. */
async function refused(t: Tap, bytes: Buffer | Readable, what: string, message = /./): Promise<void> {
  const error = await unpacked(bytes).then(
    () => undefined,
    (e: Failure) => e,
  );
  t.match(error, { name: "VirtError", code: "ERR_IMAGE_DAMAGED", message }, `${what}: ${error?.message}`);
  t.same(readdirSync(place), [], "nothing is left");
}

type Tap = { match(a: unknown, b: unknown, m: string): unknown; same(a: unknown, b: unknown, m: string): unknown };

function put(directory: string): Promise<Image> {
  for (const [name, bytes] of imageFiles()) {
    mkdirSync(join(directory, "files"), { recursive: true });
    writeFileSync(join(directory, name), bytes);
  }
  return openImage(directory);
}

for (const compress of [undefined, "zstd"] as const) {
  t.test(`there and back, ${compress ?? "plain"}`, async (t) => {
    const directory = join(sandbox, `original-${compress}`);
    const image = await put(directory);
    writeFileSync(join(directory, "something else"), "not the image's");
    const stream = new PassThrough();
    const [bytes] = await Promise.all([buffer(stream), packImage(image, stream, compress ? { compress } : {})]);
    const again = await unpacked(bytes);
    for (const [name, content] of imageFiles()) t.same(readFileSync(join(again.path, name)), content, name);
    t.notOk(readdirSync(again.path).includes("something else"));
    again.remove();
    const drops = (async function* () {
      for (let i = 0; i < bytes.length; i += 777) yield bytes.subarray(i, i + 777);
    })();
    (await unpacked(Readable.from(drops))).remove();
    for (const cut of [0, 1, 3, 511, 513, 2000, bytes.length >> 1, bytes.length - 3000].filter(
      (n) => n < bytes.length - 2,
    ))
      if (cut >= 0) await refused(t, bytes.subarray(0, cut), `cut after ${cut} of ${bytes.length} bytes`);
    rmSync(directory, { recursive: true });
  });
}

t.test("names that no image has", async (t) => {
  for (const name of [
    "../escaped",
    "files/../../escaped",
    "/tmp/vr-escaped",
    "./manifest.json",
    "files/x",
    `files/${"a".repeat(63)}/x`,
    `files/${"A".repeat(64)}`,
    "pages-0.bin",
    "pages-01.bin",
    "pages-12345678.bin",
    "manifest.json/x",
    "manifest.json\n",
    "log.1",
    "LOG",
    "readme",
  ])
    await refused(
      t,
      await tar([...regular(), [{ name }, Buffer.from("x")]]),
      JSON.stringify(name),
      /which no image has/,
    );
  t.notOk(readdirSync(sandbox).includes("escaped"));
});

t.test("what is no regular file", async (t) => {
  for (const [type, more] of [
    ["symlink", { linkname: "/etc/passwd" }],
    ["link", { linkname: "manifest.json" }],
    ["directory", {}],
    ["fifo", {}],
    ["character-device", { devmajor: 1, devminor: 3 }],
    ["block-device", { devmajor: 8, devminor: 0 }],
  ] as const)
    await refused(
      t,
      await tar([[{ name: "log", type, ...more }], ...regular().filter(([{ name }]) => name !== "log")]),
      type,
      /which no image has/,
    );
  await refused(
    t,
    await tar([[{ name: "files", type: "symlink", linkname: "/tmp" }], ...regular()]),
    "files elsewhere",
  );
});

t.test("files twice, missing, or of another size", async (t) => {
  const files = regular();
  await refused(t, await tar([...files, files[0] as Entry]), "a manifest twice", /which no image has/);
  await refused(t, await tar([...files, files.at(-1) as Entry]), "a carried file twice");
  for (const [i, [{ name }, bytes]] of files.entries()) {
    const others = files.filter((_, k) => k !== i);
    await refused(t, await tar(others), `without ${name}`);
    await refused(
      t,
      await tar([...others, [{ name }, Buffer.concat([bytes as Buffer, Buffer.from("\0")])]]),
      `${name} longer`,
    );
    await refused(t, await tar([...others, [{ name }, (bytes as Buffer).subarray(1)]]), `${name} shorter`);
  }
  await refused(t, await tar([]), "an empty archive");
});

t.test("an archive that promises more than it has", async (t) => {
  const bytes = await tar([[{ name: "pages-1.bin" }, Buffer.alloc(4096)]]);
  bytes.write("77777777777\0", 124); // its size in octal: 8 GiB
  let sum = 8 * 32;
  for (let i = 0; i < 512; i++) if (i < 148 || i >= 156) sum += bytes[i] as number;
  bytes.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  await refused(t, bytes, "8 GiB that are not there");
});

t.test("a stream that breaks", async (t) => {
  const bytes = await tar(regular());
  const breaking = (async function* () {
    yield bytes.subarray(0, 3000);
    throw new Error("the line is cut");
  })();
  await refused(t, Readable.from(breaking), "an error half way");
});

t.test("what is neither tar nor zstd", async (t) => {
  await refused(t, Buffer.from("hello"), "text");
  await refused(t, Buffer.alloc(10240, 0xff), "ones");
  await refused(t, Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd]), Buffer.alloc(1000, 3)]), "zstd's magic alone");
});

t.test("a directory that is there is not written into", async (t) => {
  const bytes = await tar(regular());
  const there = join(sandbox, "there");
  mkdirSync(there);
  writeFileSync(join(there, "mine"), "");
  await t.rejects(unpackImage(Readable.from([bytes]), there));
  t.same(readdirSync(there), ["mine"]);
  const link = join(sandbox, "link");
  symlinkSync(there, link);
  await t.rejects(unpackImage(Readable.from([bytes]), link));
  t.same(readdirSync(there), ["mine"]);
});

t.test("bytes changed at random: taken whole, or refused", async (t) => {
  const good = await tar(regular());
  let taken = 0;
  for (const seed of seeds(300)) {
    const random = new Random(seed);
    const bytes = Buffer.from(good);
    for (let n = 1 + random.below(5); n > 0; n--)
      bytes[random.chance(0.7) ? 512 * random.below(4) + random.below(512) : random.below(bytes.length)] =
        random.below(256);
    try {
      (await unpacked(bytes)).remove();
      taken++;
    } catch (e) {
      const { name, code, message } = e as Failure;
      if (name !== "VirtError" || !/^ERR_(IMAGE_DAMAGED|BAD_VALUE|IMAGE_VERSION)$/.test(code ?? ""))
        throw new Error(`VIRT_RUN_SEED=${seed}: ${code} ${message}`, { cause: e });
    }
    const left = readdirSync(place);
    if (left.length > 0) throw new Error(`VIRT_RUN_SEED=${seed} left ${left}`);
  }
  t.pass(`${taken} were taken`);
});
