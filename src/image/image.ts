/**
 * Images on disk: a directory with manifest.json, pages-*.bin, pages.sum and files/. Found by path or by name.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { open } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { toVirtError, VirtError } from "../errors.js";
import { native } from "../native.js";
import { imagesDirectory } from "../pod/paths.js";
import type { Manifest } from "./manifest.js";

const pageBytes = 4096;

const mostManifestBytes = 512 << 20;

/**
 * What `virt-run images` shows of an image.
 *
 * @example
 * const { name, sizeBytes, createdAt } = (await openImage("cache")).summary();
 */
export interface ImageSummary {
  /** The last part of its path: what it is found by if it lies in the images directory. */
  name: string;
  /** Absolute. */
  path: string;
  /** The name of the pod it was made of. */
  pod: string;
  /** Program and arguments of the pod's first process. */
  command: string[];
  /** RFC 3339, UTC. */
  createdAt: string;
  /** Whether the pod ended with it or went on. */
  kind: "detach" | "snapshot";
  /** How many processes are in it, zombies counted. */
  processes: number;
  /** On disk, in bytes. */
  sizeBytes: number;
  /** Name of the host it was made on. */
  host: string;
}

/**
 * An image on disk: where it is and what it says. Made by Pod.detach(), Pod.snapshot(), openImage() and unpackImage(). It
 * holds no file open; moving the directory elsewhere and opening it there is fine.
 *
 * @example
 * const image = await pod.snapshot();
 * console.log(image.path, image.sizeBytes, image.stoppedMs);
 * image.remove();
 */
export class Image {
  /** Absolute path of its directory. */
  readonly path: string;
  /** All it says of the pod, checked. */
  readonly manifest: Manifest;
  /**
   * Milliseconds from the start of the capture until the pod was gone or ran again, which is at most that long stopped;
   * undefined unless the image was just made by detach() or snapshot().
   */
  readonly stoppedMs: number | undefined;

  /** @internal */
  constructor(path: string, manifest: Manifest, stoppedMs?: number) {
    this.path = path;
    this.manifest = manifest;
    this.stoppedMs = stoppedMs;
  }

  /** The last part of its path. */
  get name(): string {
    return basename(this.path);
  }

  /** Losses the user agreed to when it was made, in words. */
  get accepted(): readonly string[] {
    return this.manifest.accepted;
  }

  /** What it carries of files (DetachOptions, `withFiles`): how many, and their content in bytes, hard links once. */
  get carried(): { files: number; bytes: number } {
    const files = (this.manifest.carriedFiles ?? []).flatMap((e) =>
      e.type === "file" && e.linkTo === undefined ? [e.sizeBytes] : [],
    );
    return { files: files.length, bytes: files.reduce((sum, n) => sum + n, 0) };
  }

  /** On disk, in bytes. Throws Node's ENOENT if the image was removed. */
  get sizeBytes(): number {
    const pages = this.manifest.pagesInPart.reduce((sum, n) => sum + n * pageBytes, 0);
    return this.manifest.parts.reduce(
      (sum, part) => sum + part.sizeBytes,
      pages + statSync(join(this.path, "manifest.json")).size,
    );
  }

  /** What `virt-run images` shows of it. Throws Node's ENOENT if the image was removed. */
  summary(): ImageSummary {
    const { pod, createdAt, kind, processes, host } = this.manifest;
    return {
      name: this.name,
      path: this.path,
      pod: pod.name,
      command: pod.command,
      createdAt,
      kind,
      processes: processes.length,
      sizeBytes: this.sizeBytes,
      host: host.name,
    };
  }

  /** Deletes the image. Deleting what is gone already is no error; one that cannot be deleted is Node's (EACCES, …). */
  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Where an image of this name or path is, or would be. */
export function imagePath(nameOrPath: string): string {
  return nameOrPath.includes("/") ? resolve(nameOrPath) : join(imagesDirectory(), nameOrPath);
}

/**
 * Reads and checks an image: its manifest whole, its parts by presence and size, pages.sum by hash. The pages are
 * checked one by one when they are loaded, or all at once by verifyImage(). A word without "/" is a name in the images
 * directory, anything else a path.
 *
 * Errors: ERR_IMAGE_NOT_FOUND, ERR_IMAGE_VERSION (written by a newer virt-run), ERR_BAD_VALUE (the manifest makes no
 * sense), ERR_IMAGE_DAMAGED; ERR_UNSAFE_PATH if the images directory is not this user's alone.
 *
 * @example
 * const image = await openImage("cache");
 * console.log(image.manifest.processes.length, image.accepted);
 */
export async function openImage(nameOrPath: string): Promise<Image> {
  const path = imagePath(nameOrPath);
  const file = join(path, "manifest.json");
  if (!existsSync(file)) throw new VirtError("ERR_IMAGE_NOT_FOUND", `there is no image at ${path}`, { path });
  if (statSync(file).size > mostManifestBytes)
    throw new VirtError("ERR_BAD_VALUE", "manifest.json is too large", { path: file });
  const { parseManifest } = await import("./manifest.js");
  const text = readFileSync(file);
  const written = readHash(join(path, "manifest.sha256"));
  if (createHash("sha256").update(text).digest("hex") !== written) {
    throw new VirtError("ERR_IMAGE_DAMAGED", "manifest.json is not what was written (its hash differs)", {
      path: file,
    });
  }
  let manifest: Manifest;
  try {
    manifest = parseManifest(text.toString());
  } catch (e) {
    const error = toVirtError(e);
    throw new VirtError(error.code, error.message, { path: file, cause: e });
  }
  for (const part of manifest.parts) checkSize(path, part.name, part.sizeBytes);
  for (const [i, pages] of manifest.pagesInPart.entries()) checkSize(path, `pages-${i + 1}.bin`, pages * pageBytes);
  const sums = manifest.parts.find((p) => p.name === "pages.sum");
  if (sums) await checkHash(path, sums);
  return new Image(path, manifest);
}

function readHash(path: string): string | undefined {
  return existsSync(path) && statSync(path).size <= 65 ? readFileSync(path, "utf8").trim() : undefined;
}

function checkSize(path: string, name: string, wanted: number): void {
  const at = join(path, name);
  const size = statSync(at, { throwIfNoEntry: false })?.size;
  if (size === wanted) return;
  const what =
    size === undefined ? `${name} is missing from the image` : `${name} has ${size} bytes instead of ${wanted}`;
  throw new VirtError("ERR_IMAGE_DAMAGED", what, { path: at });
}

async function checkHash(path: string, part: Manifest["parts"][number]): Promise<void> {
  const hash = await hashFile(join(path, part.name));
  if (hash !== part.sha256) {
    throw new VirtError("ERR_IMAGE_DAMAGED", `${part.name} is not what was written (its hash differs)`, {
      path: join(path, part.name),
    });
  }
}

/**
 * Compares carried files and the log with their hashes, as must be done before they are used (openImage() has looked at
 * pages.sum, and pages are compared when they are loaded). Errors: ERR_IMAGE_DAMAGED.
 */
export async function checkParts(image: Image): Promise<void> {
  for (const part of image.manifest.parts) if (part.name !== "pages.sum") await checkHash(image.path, part);
}

/** sha256 of a file, in hex. */
export async function hashFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  const file = await open(path);
  try {
    const buffer = Buffer.allocUnsafe(1 << 20);
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length);
      if (bytesRead === 0) return hash.digest("hex");
      hash.update(buffer.subarray(0, bytesRead));
    }
  } finally {
    await file.close();
  }
}

/**
 * Checks every byte of an image against its hashes: sha256 of each part, a 64-bit hash of each page. `onPart` is told the
 * name of each part that was found whole; pages come last and are not told.
 *
 * Errors: those of openImage(); ERR_IMAGE_DAMAGED names the first part or page that differs, in `path` or the message;
 * ERR_SYSCALL if the disk fails.
 *
 * @example
 * await verifyImage("cache", (part) => console.log(part, "is whole"));
 */
export async function verifyImage(nameOrPath: string, onPart?: (name: string) => void): Promise<Image> {
  const image = await openImage(nameOrPath);
  for (const part of image.manifest.parts) {
    await checkHash(image.path, part);
    onPart?.(part.name);
  }
  await native.verifyPages(image.path, image.manifest.pagesInPart).catch((e: unknown) => {
    throw toVirtError(e);
  });
  return image;
}

/**
 * All images in the images directory, by name; one that openImage() refuses comes with its error in place of the image.
 * Exported as `images`. Errors: ERR_UNSAFE_PATH.
 *
 * @example
 * for (const { name, image, error } of await images()) console.log(name, image?.sizeBytes ?? error?.code);
 */
export async function listImages(): Promise<{ name: string; image?: Image; error?: VirtError }[]> {
  const list: { name: string; image?: Image; error?: VirtError }[] = [];
  for (const name of readdirSync(imagesDirectory()).sort()) {
    if (name.startsWith(".")) continue;
    try {
      list.push({ name, image: await openImage(name) });
    } catch (e) {
      list.push({ name, error: toVirtError(e) });
    }
  }
  return list;
}
