/**
 * Putting carried files where a pod that is being made will find them: into the upper directories of its overlays, and
 * single files beside them, all in the pod's own directory.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Image } from "../image/image.js";
import { type NativeLayer, native } from "../native.js";
import { overlayUpper, type PodFiles, podFilesDirectory } from "../pod/store.js";
import { asData } from "./collect.js";
import type { Placement } from "./placement.js";

interface Outcome {
  path: string;
  what: "written" | "there" | "conflict";
  lost?: boolean;
}

export interface Placed {
  /** As init mounts them. */
  layers: NativeLayer[];
  /** As the pod's record remembers them. */
  files: PodFiles;
  /** For the user, in words. */
  notes: string[];
}

/** Makes everything a placement says in the directory of pod `id`. Nothing, if there is nothing to place. */
export async function placeInPod(image: Image, placement: Placement, id: string): Promise<Placed | undefined> {
  const notes = [
    ...placement.conflicts.map((p) => `${p} is another here: the pod sees its own, this host's is as it was`),
    ...placement.notes,
  ];
  if (placement.overlays.length + placement.bound.length === 0)
    return notes.length > 0 ? { layers: [], files: { overlays: [], bound: [], used: [] }, notes } : undefined;
  const directory = podFilesDirectory(id);
  const owner = process.geteuid?.() === 0;
  mkdirSync(directory, { mode: 0o700 });
  const layers: NativeLayer[] = [];
  const files: PodFiles = { overlays: [], bound: [], used: placement.used };
  const place = async (to: string, entries: readonly object[]) => {
    const outcomes = (await native.placeFiles({ to, image: image.path, entries: asData(entries), owner })) as Outcome[];
    for (const o of outcomes)
      if (o.lost) notes.push(`extended attributes of ${o.path} are lost: the file system has none`);
  };
  for (const [i, overlay] of placement.overlays.entries()) {
    const name = String(i);
    const source = join(directory, name);
    const upper = overlayUpper(id, name);
    for (const d of [source, upper, join(source, "work")]) mkdirSync(d, { mode: 0o700 });
    await place(upper, overlay.files);
    layers.push({ kind: overlay.assembled ? "assembled" : "overlay", at: overlay.at, source });
    files.overlays.push({ at: overlay.at, directory: name });
  }
  if (placement.bound.length > 0) {
    const bound = join(directory, "bound");
    mkdirSync(bound, { mode: 0o700 });
    await place(
      bound,
      placement.bound.map(({ file: { linkTo: _, ...file } }, i) => ({ ...file, path: `/${i}` })),
    );
    for (const [i, { at }] of placement.bound.entries()) {
      layers.push({ kind: "file", at, source: join(bound, String(i)) });
      files.bound.push({ at, name: String(i) });
    }
  }
  return { layers, files, notes };
}
