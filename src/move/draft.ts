/**
 * What a target is offered before anything is sent: the manifest as far as it is known, and how the pod is to be reattached.
 */
import * as v from "valibot";
import { VirtError } from "../errors.js";
import { type Manifest, parseManifest } from "../image/manifest.js";
import type { ReattachOptions } from "../pod/reattach.js";

/** What of a reattach's options a move may say: plain data. */
export type ArrivalOptions = Pick<
  ReattachOptions,
  "name" | "tcp" | "holder" | "forward" | "allowChanged" | "labels"
> & {
  remap?: { path?: Record<string, string>; port?: Record<string, number>; addr?: Record<string, string> };
};

const text = v.pipe(v.string(), v.maxLength(4096));
const arrival = v.strictObject({
  name: v.optional(text),
  tcp: v.optional(v.picklist(["hold", "close", "reconnect", "repair"])),
  holder: v.optional(text),
  forward: v.optional(v.picklist(["established", "all", "none"])),
  allowChanged: v.optional(v.array(text)),
  labels: v.optional(v.record(text, text)),
  remap: v.optional(
    v.strictObject({
      path: v.optional(v.record(text, text)),
      port: v.optional(v.record(text, v.number())),
      addr: v.optional(v.record(text, text)),
    }),
  ),
});

/** The options on the first line, the manifest after it. */
export function encodeDraft(manifest: string, options: ArrivalOptions): string {
  return `${JSON.stringify(options)}\n${manifest}`;
}

/** Errors: ERR_MOVE_PROTOCOL, and those of a manifest that makes no sense. */
export function decodeDraft(draft: string): { manifest: Manifest; options: ArrivalOptions } {
  const end = draft.indexOf("\n");
  if (end < 0) throw new VirtError("ERR_MOVE_PROTOCOL", "an offer without a manifest");
  return { manifest: parseManifest(draft.slice(end + 1)), options: decodeOptions(draft.slice(0, end)) };
}

/** Errors: ERR_MOVE_PROTOCOL. */
export function decodeOptions(line: string): ArrivalOptions {
  try {
    return v.parse(arrival, JSON.parse(line)) as ArrivalOptions;
  } catch (cause) {
    throw new VirtError("ERR_MOVE_PROTOCOL", "an offer that asks for what there is not", { cause });
  }
}
