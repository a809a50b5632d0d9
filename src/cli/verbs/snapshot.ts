import type { Command } from "commander";
import { captureCommand } from "./detach.js";

/** `virt-run snapshot`: a pod into an image; the pod goes on. */
export function command(): Command {
  return captureCommand("snapshot", "capture a pod into an image; the pod goes on", "snapshot cache -o before-upgrade");
}
