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

/**
 * What a pod knows under other names than this host: OLD to NEW.
 *
 * @example
 * const remap: Remap = { path: { "/data": "/mnt/data" }, port: { 8080: 9090 }, addr: { "10.0.0.5": "127.0.0.1" } };
 */
export interface Remap {
  /** The host's NEW is shown as OLD: bind mounts (mount(2)) in the pod's own mount namespace. Absolute. */
  path?: Record<string, string>;
  /** Ports the pod binds, and talks to on this machine: OLD to the program and NEW to the world. */
  port?: Record<string, number>;
  /** Likewise IP addresses. */
  addr?: Record<string, string>;
  /**
   * "PID/FD" as the pod has it (PID may be "*") to what that descriptor is from now on: a path of the pod (a file is made where
   * there is none; a unix socket is connected to), "tcp:HOST:PORT", this process's "stdin", "stdout" or "stderr", the pod's
   * "terminal", another of its descriptors ("PID/FD"), or a descriptor of this process (a number). Not at launch.
   */
  fd?: Record<string, string | number>;
}

/** `path:OLD=NEW`, `port:OLD=NEW`, `addr:OLD=NEW` and `fd:PID/FD=TARGET` as the command line has them. Errors: ERR_REMAP. */
export function parseRemaps(rules: readonly string[]): Required<Remap> {
  const remap: Required<Remap> = { path: {}, port: {}, addr: {}, fd: {} };
  for (const rule of rules) {
    const match = /^(path|port|addr|fd):([^=]+)=(.+)$/.exec(rule);
    if (!match)
      throw new VirtError(
        "ERR_REMAP",
        `'${rule}' is no rule: path:OLD=NEW, port:OLD=NEW, addr:OLD=NEW or fd:PID/FD=TARGET`,
      );
    const [, kind, old, now] = match as unknown as [string, keyof Remap, string, string];
    if (kind === "port") remap.port[old] = Number(now);
    else remap[kind][old] = now;
  }
  return remap;
}

/** The rules an image was made under, with those given now over them. */
export function mergeRemaps(old: readonly PathRemap[], now: readonly PathRemap[]): PathRemap[] {
  return [...old.filter((o) => !now.some((n) => n.to === o.to)), ...now];
}
