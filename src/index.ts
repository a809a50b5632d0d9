/**
 * virt-run: makes running programs movable. Launch programs in pods, detach them into images, reattach them elsewhere.
 *
 * @example
 * import { launch, reattach } from "virt-run";
 * const pod = await launch("redis-server", ["--port", "7000"], { name: "cache" });
 * const image = await pod.detach({ image: "cache" });
 * const again = await reattach(image, { remap: { path: { "/data": "/mnt/data" } } });
 */
export { type Blocker, type ErrorCode, errorHints, VirtError } from "./errors.js";
export { type ExportResult, exportFiles } from "./files/export.js";
export { packImage, unpackImage } from "./image/archive.js";
export { Image, type ImageSummary, listImages as images, openImage, verifyImage } from "./image/image.js";
export type { Manifest } from "./image/manifest.js";
export { type Effect, type EffectBase, type EffectSummary, summarize } from "./journal/journal.js";
export { type MoveOptions, resumeMove } from "./move/move.js";
export type { Settled } from "./move/settle.js";
export type { Moved, MoveProgress } from "./move/source.js";
export type { DetachOptions } from "./pod/detach.js";
export type { ExecOptions, ExecSession } from "./pod/exec.js";
export type { Forward } from "./pod/forward.js";
export type { Holding } from "./pod/holder.js";
export type { PodInfo, ProcessInfo } from "./pod/inspect.js";
export type { Isolation, IsolationRecord } from "./pod/isolation.js";
export type { Progress } from "./pod/job.js";
export { type LaunchOptions, launch } from "./pod/launch.js";
export { connect, connectLatest, list, type PodSummary } from "./pod/list.js";
export { Pod } from "./pod/pod.js";
export { planReattach, type ReattachOptions, type ReattachPlan, reattach } from "./pod/reattach.js";
export type { Exit, PodState } from "./pod/store.js";
export type { Remap } from "./remap/path.js";
export type { TcpPolicy, TcpRule } from "./remap/tcp-policy.js";
export { Call, HookAnswer, type HookOptions, type Hooks } from "./rules/hooks.js";
export type { Recording } from "./rules/interposition.js";
export type { CallName, ErrnoName, Rule } from "./rules/rules.js";
export { version } from "./version.js";
