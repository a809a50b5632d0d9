/**
 * What a manifest says of an isolated pod: its rules, and the directories that it has to itself.
 */
import * as v from "valibot";
import { absolutePath, carriedName, count, decimal, optional } from "./manifest-values.js";

const rules = v.pipe(v.array(absolutePath), v.maxLength(10_000));
/** Rules as src/pod/isolation.ts has them. */
export const isolation = v.strictObject({
  readOnly: rules,
  writable: rules,
  hide: rules,
  network: optional(v.literal("none")),
});

const relativePath = v.pipe(
  v.string(),
  v.maxLength(4096),
  v.check((s) => !s.includes("\0")),
);
const entryOf = {
  path: relativePath,
  mode: v.pipe(count, v.maxValue(0o7777)),
  uid: count,
  gid: count,
  mtimeNs: decimal,
};

/** What is in a directory that the pod has to itself; paths are relative to `place`, parents come first. */
export const own = v.object({
  place: absolutePath,
  entries: v.array(
    v.variant("kind", [
      v.object({ ...entryOf, kind: v.picklist(["directory", "fifo"]) }),
      v.object({ ...entryOf, kind: v.literal("file"), name: carriedName }),
      /** Another name of the same file. */
      v.object({ ...entryOf, kind: v.literal("same"), target: relativePath }),
      v.object({ ...entryOf, kind: v.literal("link"), target: relativePath }),
    ]),
  ),
});
