/**
 * The directories that an isolated pod has to itself (/tmp and the like) go with it: read while it stands still, and made
 * again before it is rebuilt. Their entries are like those of other carried files, with paths from there.
 */
import { chmodSync, existsSync, mkdirSync } from "node:fs";
import { VirtError } from "../errors.js";
import type { Manifest } from "../image/manifest.js";
import type { ImageWriter } from "../image/writer.js";
import { native } from "../native.js";
import { ownPlaces, ownSource } from "../pod/isolation.js";
import { asData, copyContent, type FoundFile, reasons } from "./collect.js";

type Own = NonNullable<Manifest["own"]>[number];

/** What is in a pod's own directories, its files' contents written into the image. Sockets are made by who has them. */
export async function captureOwn(stateDirectory: string, writer: ImageWriter): Promise<Own[]> {
  const out: Own[] = [];
  for (const place of ownPlaces) {
    const root = ownSource(stateDirectory, place);
    if (!existsSync(root)) continue;
    const source = { root, layers: [] };
    const { entries, refused } = (await native.listFiles({ ...source, paths: [{ path: "/", tree: true }] })) as {
      entries: FoundFile[];
      refused: { path: string; reason: string }[];
    };
    const left = refused.find(({ reason }) => reason !== "socket");
    if (left) {
      const path = `${place}${left.path}`;
      const why = reasons[left.reason] ?? left.reason;
      throw new VirtError("ERR_FILE_UNREACHABLE", `${path}, the pod's own, cannot be carried: ${why}`, {
        path,
        hint: "change that inside the pod",
      });
    }
    for (const e of entries) if (e.type === "file") e.why = "written";
    const carried = await copyContent(
      { entries, source },
      writer.directory,
      (name) => writer.carry(name),
      () => {},
    );
    out.push({ place, entries: carried });
  }
  return out;
}

/** Makes what an image says of a pod's own directories in the state directory of the pod that is made of it. */
export async function restoreOwn(manifest: Manifest, image: string, stateDirectory: string): Promise<void> {
  for (const { place, entries } of manifest.own ?? []) {
    const to = ownSource(stateDirectory, place);
    mkdirSync(to, { recursive: true });
    await native.placeFiles({ to, image, entries: asData(entries), owner: process.geteuid?.() === 0 });
    chmodSync(to, 0o1777);
  }
}
