/**
 * The verbs, and the modules that hold them.
 */
import type { Command } from "commander";

export const verbs = {
  run: () => import("./verbs/run.js"),
  ps: () => import("./verbs/ps.js"),
  inspect: () => import("./verbs/inspect.js"),
  top: () => import("./verbs/top.js"),
  effects: () => import("./verbs/effects.js"),
  remap: () => import("./verbs/remap.js"),
  rules: () => import("./verbs/rules.js"),
  logs: () => import("./verbs/logs.js"),
  kill: () => import("./verbs/kill.js"),
  stop: () => import("./verbs/stop.js"),
  rm: () => import("./verbs/rm.js"),
  wait: () => import("./verbs/wait.js"),
  exec: () => import("./verbs/exec.js"),
  attach: () => import("./verbs/attach.js"),
  check: () => import("./verbs/check.js"),
  detach: () => import("./verbs/detach.js"),
  snapshot: () => import("./verbs/snapshot.js"),
  reattach: () => import("./verbs/reattach.js"),
  move: () => import("./verbs/move.js"),
  receive: () => import("./verbs/receive.js"),
  serve: () => import("./verbs/serve.js"),
  enroll: () => import("./verbs/enroll.js"),
  peers: () => import("./verbs/peers.js"),
  images: () => import("./verbs/images.js"),
  verify: () => import("./verbs/verify.js"),
  export: () => import("./verbs/export.js"),
  prune: () => import("./verbs/prune.js"),
  doctor: () => import("./verbs/doctor.js"),
  tour: () => import("./verbs/tour.js"),
  help: () => import("./verbs/help.js"),
  version: () => import("./verbs/version.js"),
  completion: () => import("./verbs/completion.js"),
} satisfies Record<string, () => Promise<{ command: () => Command }>>;

/** Other names for verbs. */
export const aliases: Record<string, keyof typeof verbs> = { checkpoint: "detach", restore: "reattach" };

export type Verb = keyof typeof verbs;
