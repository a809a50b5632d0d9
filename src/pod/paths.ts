/**
 * Where things are on disk (CLI contract): sockets, pods, images. Directories are ours alone (0700, our uid); one
 * that is not is refused, never repaired.
 */
import { lstatSync, mkdirSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { VirtError } from "../errors.js";

/** Makes a directory private to us, or checks that it is. */
export function privateDirectory(path: string): string {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const st = lstatSync(path);
  if (!st.isDirectory() || st.uid !== process.geteuid?.() || (st.mode & 0o077) !== 0) {
    throw new VirtError("ERR_UNSAFE_PATH", `${path} is not a private directory of this user (mode 0700)`, { path });
  }
  return path;
}

const environment = process.env;

/** Directory of control sockets. Short: a socket's path may have 107 bytes (unix(7)). */
export function socketDirectory(): string {
  const base = environment["XDG_RUNTIME_DIR"];
  return privateDirectory(base ? join(base, "virt-run") : join(tmpdir(), `virt-run-${process.geteuid?.()}`));
}

/** Directory of pods' states. */
export function podsDirectory(): string {
  const base = environment["XDG_STATE_HOME"] || join(homedir(), ".local", "state");
  privateDirectory(join(base, "virt-run"));
  return privateDirectory(join(base, "virt-run", "pods"));
}

/** Directory of what is known of moves, to here and away, and of images that came and were not let run yet. */
export function movesDirectory(): string {
  const base = environment["XDG_STATE_HOME"] || join(homedir(), ".local", "state");
  privateDirectory(join(base, "virt-run"));
  return privateDirectory(join(base, "virt-run", "moves"));
}

/** Directory of images that were given no path. */
export function imagesDirectory(): string {
  const base = environment["XDG_DATA_HOME"] || join(homedir(), ".local", "share");
  privateDirectory(join(base, "virt-run"));
  return privateDirectory(join(base, "virt-run", "images"));
}

/** Directory of keys and of the hosts that are known by theirs. */
export function configurationDirectory(): string {
  const base = environment["XDG_CONFIG_HOME"] || join(homedir(), ".config");
  return privateDirectory(join(base, "virt-run"));
}
