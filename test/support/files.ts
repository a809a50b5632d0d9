/**
 * What the tests of carried files share: directories to work in, "another host", and looking at what is there.
 */
import { execFileSync } from "node:child_process";
import { closeSync, existsSync, lstatSync, mkdirSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs";
import { join } from "node:path";
import type { Test } from "tap";
import type { Image, Pod } from "virt-run";
import { sandbox } from "./env.js";
import { imageName } from "./pods.js";

/** Some files here are such that only this removes them. */
export function removeAll(t: Test): void {
  t.teardown(() => gone(sandbox));
}

let directories = 0;

/** A directory of its own for each test. */
export function place(): string {
  const path = join(sandbox, `place-${directories++}`);
  mkdirSync(path);
  return path;
}

/** Detaches with its files; afterwards the host is another one, made by `move`. */
export async function carry(
  pod: Pod,
  withFiles: "none" | "written" | "all" = "written",
  move = () => {},
): Promise<Image> {
  const image = await pod.detach({ image: imageName(), withFiles });
  move();
  return image;
}

/** Removes what may have made itself hard to remove. */
export function gone(...paths: string[]): void {
  for (const path of paths.filter(existsSync))
    execFileSync("/bin/sh", ["-c", 'chmod -R u+rwX "$0" && rm -rf "$0"', path]);
}

export function beginning(path: string): string {
  const fd = openSync(path, "r");
  const buffer = Buffer.alloc(200);
  const n = readSync(fd, buffer);
  closeSync(fd);
  return buffer.toString("latin1", 0, n);
}

/** A path as the pod sees it. */
export async function seen(pod: Pod, path: string): Promise<string> {
  return join(`/proc/${(await pod.inspect()).initPid}/root`, path);
}

/** Everything below a directory, as text that tells all that matters. */
export function listing(directory: string): string[] {
  return (readdirSync(directory, { recursive: true, encoding: "utf8" }) as string[]).sort().map((name) => {
    const path = join(directory, name);
    const st = lstatSync(path, { bigint: true });
    const what = st.isSymbolicLink() ? `-> ${readlinkSync(path)}` : st.isFile() ? beginning(path) : "";
    return [name, st.mode.toString(8), st.isDirectory() ? "" : st.size, st.isFile() ? st.mtimeNs : "", what].join(" ");
  });
}
