/**
 * An image as one stream, for pipes: a tar of its files (`detach -o -`, `reattach -`), zstd-compressed on request. What
 * comes in is hostile: only the names an image has, only regular files, each once; the rest is openImage()'s business.
 */
import { spawn } from "node:child_process";
import { createReadStream, createWriteStream, mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { Duplex, type Readable, type Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import * as zlib from "node:zlib";
import { extract, pack } from "tar-stream";
import { VirtError } from "../errors.js";
import { type Image, openImage } from "./image.js";

const imageFile =
  /^(manifest\.json|manifest\.sha256|pages-[1-9]\d{0,6}\.bin|pages\.sum|log|relay-\d{1,6}|files\/[0-9a-f]{64})$/;
const zstdMagic = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);

/**
 * Writes an image to a stream as a tar (tar(5)) and resolves when all of it has been taken. Ends the stream, unless it is
 * process.stdout. Not compressed by default; "zstd" (RFC 8878) needs Node ≥ 22.15 or the program `zstd`.
 *
 * Errors: ERR_KERNEL_FEATURE if there is no zstd; whatever the stream fails with (EPIPE, …) comes as it is.
 *
 * @example
 * const image = await openImage("cache");
 * await packImage(image, createWriteStream("/mnt/backup/cache.tar.zst"), { compress: "zstd" });
 */
export async function packImage(image: Image, to: Writable, options: { compress?: "zstd" } = {}): Promise<void> {
  const archive = pack();
  const write = async () => {
    for (const name of filesOf(image.path)) {
      const path = join(image.path, name);
      await pipeline(createReadStream(path), archive.entry({ name, size: statSync(path).size, mode: 0o600 }));
    }
    archive.finalize();
  };
  // Node never ends standard output itself; any other stream ends with the image.
  const end = to !== process.stdout;
  const sending =
    options.compress === "zstd" ? pipeline(archive, zstd("compress"), to, { end }) : pipeline(archive, to, { end });
  await Promise.all([write(), sending]);
}

/** manifest.json first: whoever reads the stream can tell early what it is. */
function filesOf(directory: string): string[] {
  const names = readdirSync(directory, { withFileTypes: true }).flatMap((e) =>
    e.isDirectory() ? readdirSync(join(directory, e.name)).map((f) => `${e.name}/${f}`) : [e.name],
  );
  return names
    .filter((n) => imageFile.test(n))
    .sort((a, b) => Number(b.startsWith("manifest")) - Number(a.startsWith("manifest")));
}

/**
 * Reads an image from a stream (what packImage() wrote; zstd is recognised) into a new directory and checks it as
 * openImage() does. Nothing is left if that fails. The stream may come from anybody: only regular files with an image's
 * names are taken.
 *
 * Errors: ERR_IMAGE_DAMAGED for what is no image, or half of one; ERR_IMAGE_VERSION, ERR_BAD_VALUE as openImage();
 * ERR_KERNEL_FEATURE if it is compressed and there is no zstd. A directory that exists, or cannot be made, is mkdir(2)'s
 * own error (EEXIST, …).
 *
 * @example
 * const image = await unpackImage(createReadStream("/mnt/backup/cache.tar.zst"), "/tmp/cache.image");
 * const pod = await reattach(image);
 */
export async function unpackImage(from: Readable, directory: string): Promise<Image> {
  mkdirSync(directory, { mode: 0o700 });
  try {
    const entries = extract();
    const seen = new Set<string>();
    const reading = (async () => {
      for await (const entry of entries) {
        const { name, type } = entry.header;
        if (type !== "file" || !imageFile.test(name) || seen.has(name)) {
          throw new VirtError("ERR_IMAGE_DAMAGED", `the stream holds '${name}' (${type}), which no image has`);
        }
        seen.add(name);
        if (name.startsWith("files/")) mkdirSync(join(directory, "files"), { recursive: true, mode: 0o700 });
        const file = createWriteStream(join(directory, name), { mode: 0o600, flags: "wx" });
        // A pipeline that fails does not wait for the file, which may be made after all is removed.
        const closed = new Promise<void>((resolve) => file.once("close", resolve));
        await pipeline(entry, file).finally(() => closed);
      }
    })();
    const plain = await decompressed(from);
    // Both have to end before anything is removed; what the reader found is the better reason.
    const outcomes = await Promise.allSettled([reading, pipeline(plain, entries)]);
    const failed = outcomes.filter((o) => o.status === "rejected").map((o) => o.reason as unknown);
    if (failed.length > 0) throw failed.find((e) => e instanceof VirtError) ?? failed.at(-1);
    return await openImage(directory);
  } catch (e) {
    rmSync(directory, { recursive: true, force: true });
    if (e instanceof VirtError && e.code !== "ERR_IMAGE_NOT_FOUND") throw e;
    throw new VirtError("ERR_IMAGE_DAMAGED", `the stream is no whole image: ${(e as Error).message}`, { cause: e });
  }
}

/** Looks at the first bytes and puts a decompressor in between if they ask for one. */
async function decompressed(from: Readable): Promise<Readable> {
  const first = await new Promise<Buffer>((resolve, reject) => {
    let seen = Buffer.alloc(0);
    const look = () => {
      for (let chunk = from.read() as Buffer | null; chunk !== null; chunk = from.read() as Buffer | null) {
        seen = Buffer.concat([seen, chunk]);
        if (seen.length < zstdMagic.length) continue;
        // Back at once: later the stream may have come to its end, and what is put back then is lost.
        from.off("readable", look).unshift(seen);
        resolve(seen);
        return;
      }
    };
    from.once("error", reject);
    from.once("end", () => resolve(seen));
    from.on("readable", look);
  });
  if (!first.subarray(0, 4).equals(zstdMagic)) return from;
  const decompressor = zstd("decompress");
  void pipeline(from, decompressor).catch((e: Error) => decompressor.destroy(e));
  return decompressor;
}

/** zstd as a stream: Node's own from 22.15 on, the program `zstd` before. */
function zstd(what: "compress" | "decompress"): Duplex {
  const own = zlib as unknown as Record<string, (() => Duplex) | undefined>;
  const make = own[what === "compress" ? "createZstdCompress" : "createZstdDecompress"];
  if (make) return make();
  const child = spawn("zstd", [what === "compress" ? "-c" : "-dc", "-q"], { stdio: ["pipe", "pipe", "pipe"] });
  let said = "";
  child.stderr.on("data", (text) => {
    said = `${said}${text}`.slice(-1000);
  });
  const failed = new Promise<never>((_, reject) => {
    child.once("error", (cause) =>
      reject(
        new VirtError("ERR_KERNEL_FEATURE", "this Node has no zstd (22.15 and later do) and there is no program zstd", {
          hint: "apt-get install zstd, or leave --compress out",
          cause,
        }),
      ),
    );
    child.once(
      "close",
      (code) => code !== 0 && reject(new VirtError("ERR_IMAGE_DAMAGED", `zstd ended with ${code}: ${said.trim()}`)),
    );
  });
  const stream = Duplex.from({ writable: child.stdin, readable: child.stdout });
  failed.catch((e: Error) => stream.destroy(e));
  return stream;
}
