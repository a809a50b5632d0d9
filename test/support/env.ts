/**
 * What every test starts from: state, sockets and images in a temporary directory of its own, and an environment
 * without what tap and Node add for their own children. Import this before anything of virt-run.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Short, because control sockets live below it (unix(7): 107 bytes). */
export const sandbox: string = mkdtempSync(join(tmpdir(), "vr-"));

process.env["XDG_RUNTIME_DIR"] = join(sandbox, "run");
process.env["XDG_STATE_HOME"] = join(sandbox, "state");
process.env["XDG_DATA_HOME"] = join(sandbox, "data");

for (const key of Object.keys(process.env)) {
  if (
    key.startsWith("TAP") ||
    key.startsWith("_TAPJS") ||
    key === "NODE_OPTIONS" ||
    key === "NODE_V8_COVERAGE" ||
    key.startsWith("npm_")
  )
    delete process.env[key];
}

// Without this word at its end a test measures coverage, whatever the configuration says.
process.env["_TAPJS_PROCESSINFO_COVERAGE_"] = "0";

process.on("exit", () => {
  if (process.env["VIRT_RUN_KEEP"] === undefined) rmSync(sandbox, { recursive: true, force: true });
});
