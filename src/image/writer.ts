/**
 * Writing an image: into a directory with a temporary name, hashed while it is written, synced, read back by the same
 * reader that a reattach uses, and only then renamed to its own name.
 */
import { createHash, randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { VirtError } from "../errors.js";
import { hashFile, Image, openImage } from "./image.js";
import { type Manifest, stringifyManifest } from "./manifest.js";

export class ImageWriter {
  /** Where the image will be. */
  readonly target: string;
  /** Where it is being written. */
  readonly directory: string;
  /** The open directory, for the native side. */
  readonly fd: number;
  readonly #parts = new Map<string, Promise<Manifest["parts"][number]>>();
  #hashing: Promise<unknown> = Promise.resolve();
  #open = true;

  readonly #synced: boolean;

  /** `synced` false: what is written goes elsewhere at once, and a crash of this host leaves nothing to be read here. */
  constructor(target: string, { synced = true } = {}) {
    this.target = target;
    this.#synced = synced;
    if (existsSync(target)) throw new VirtError("ERR_IMAGE_EXISTS", `${target} exists already`, { path: target });
    this.directory = join(dirname(target), `.${basename(target)}.partial-${randomBytes(4).toString("hex")}`);
    try {
      mkdirSync(this.directory, { mode: 0o700 });
      this.fd = openSync(this.directory, constants.O_RDONLY | constants.O_DIRECTORY);
    } catch (cause) {
      const e = cause as NodeJS.ErrnoException;
      throw new VirtError("ERR_IMAGE_WRITE", `an image cannot be written in ${dirname(target)}: ${e.code}`, {
        path: dirname(target),
        syscall: e.syscall,
        errnoName: e.code,
        cause,
      });
    }
  }

  /** A file of the image is complete: hash and sync it, one after the other, while others are being written. */
  add(name: string): Promise<Manifest["parts"][number]> {
    const known = this.#parts.get(name);
    if (known) return known;
    const path = join(this.directory, name);
    const done = this.#hashing.then(async () => {
      const sha256 = await hashFile(path);
      this.#sync(path);
      return { name, sizeBytes: statSync(path).size, sha256 };
    });
    this.#parts.set(name, done);
    this.#hashing = done.catch(() => {});
    return done;
  }

  /** Files carried with the pod get their content's hash as name, and each content is kept once. */
  async carry(name: string): Promise<string> {
    const path = join(this.directory, name);
    const sha256 = await hashFile(path);
    const carried = `files/${sha256}`;
    if (this.#parts.has(carried)) {
      rmSync(path);
      return carried;
    }
    mkdirSync(join(this.directory, "files"), { recursive: true, mode: 0o700 });
    this.#sync(path);
    renameSync(path, join(this.directory, carried));
    const sizeBytes = statSync(join(this.directory, carried)).size;
    this.#parts.set(carried, Promise.resolve({ name: carried, sizeBytes, sha256 }));
    return carried;
  }

  /** Everything is written but the manifest: write it. Gives the names of all files but pages. */
  async seal(manifest: Omit<Manifest, "parts">): Promise<string[]> {
    const parts = await Promise.all(this.#parts.values());
    const text = stringifyManifest({ ...manifest, parts });
    this.#write("manifest.json", text);
    this.#write("manifest.sha256", `${createHash("sha256").update(text).digest("hex")}\n`);
    return [...this.#parts.keys(), "manifest.json", "manifest.sha256"];
  }

  /** Seals the image, syncs it, checks it and gives it its name. */
  async finish(manifest: Omit<Manifest, "parts">): Promise<Image> {
    await this.seal(manifest);
    for (const part of manifest.pagesInPart.keys()) sync(join(this.directory, `pages-${part + 1}.bin`));
    if (existsSync(join(this.directory, "files"))) sync(join(this.directory, "files"));
    fsyncSync(this.fd);
    const image = await openImage(this.directory);
    closeSync(this.fd);
    this.#open = false;
    renameSync(this.directory, this.target);
    sync(dirname(this.target));
    return new Image(this.target, image.manifest);
  }

  #write(name: string, text: string): void {
    const path = join(this.directory, name);
    writeFileSync(path, text, { mode: 0o600 });
    this.#sync(path);
  }

  #sync(path: string): void {
    if (this.#synced) sync(path);
  }

  /** Nothing stays behind. */
  discard(): void {
    if (this.#open) closeSync(this.fd);
    this.#open = false;
    rmSync(this.directory, { recursive: true, force: true });
  }
}

function sync(path: string): void {
  const fd = openSync(path, constants.O_RDONLY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
