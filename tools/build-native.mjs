// Builds the native half with cmake-js, found by module resolution: .bin may not be linked yet while npm installs.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const manifest = require.resolve("cmake-js/package.json");
const { bin } = JSON.parse(readFileSync(manifest, "utf8"));
const program = join(dirname(manifest), typeof bin === "string" ? bin : bin["cmake-js"]);
const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { status } = spawnSync(process.execPath, [program, "compile", "--out", "build/cmake"], {
  cwd: root,
  stdio: "inherit",
});
process.exit(status ?? 1);
