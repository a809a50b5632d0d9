/**
 * Path rules: what is at `from` on the host appears at `to` in the pod. In the pod they are bind mounts; here the same
 * translation for looking at the host before there is a pod.
 */
import { VirtError } from "../errors.js";
import type { PathRemap } from "../pod/store.js";

/** Where on the host the pod's `path` lies. Later rules win, as later mounts do. */
export function translatePath(remaps: readonly PathRemap[], path: string): string {
  for (const { from, to } of [...remaps].reverse()) {
    if (path === to) return from;
    if (path.startsWith(`${to}/`)) return from + path.slice(to.length);
  }
  return path;
}

/** `path:OLD=NEW` as the command line has it, added to { OLD: NEW }. Errors: ERR_REMAP. */
export function parseRemap(rule: string, into: Record<string, string>): void {
  const match = /^(path|port|addr|fd):([^=]+)=(.+)$/.exec(rule);
  if (!match) throw new VirtError("ERR_REMAP", `'${rule}' is no rule: path:OLD=NEW`);
  const [, kind, old, now] = match as unknown as [string, string, string, string];
  if (kind !== "path")
    throw new VirtError("ERR_REMAP", `rules of kind '${kind}' are not available yet`, { hint: "use path:OLD=NEW" });
  into[old] = now;
}

/** The rules an image was made under, with those given now over them. */
export function mergeRemaps(old: readonly PathRemap[], now: readonly PathRemap[]): PathRemap[] {
  return [...old.filter((o) => !now.some((n) => n.to === o.to)), ...now];
}
