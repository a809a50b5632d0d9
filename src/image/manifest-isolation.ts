/**
 * What a manifest says of an isolated pod: its rules, and the directories that it has to itself.
 */
import * as v from "valibot";
import { carriedFile } from "./carried-file.js";
import { absolutePath, optional } from "./manifest-values.js";

const rules = v.pipe(v.array(absolutePath), v.maxLength(10_000));
/** Rules as src/pod/isolation.ts has them. */
export const isolation = v.strictObject({
  readOnly: rules,
  writable: rules,
  hide: rules,
  network: optional(v.literal("none")),
});

/** What is in a directory that the pod has to itself; paths begin there. */
export const own = v.object({ place: absolutePath, entries: v.array(carriedFile) });
