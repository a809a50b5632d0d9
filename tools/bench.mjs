// Runs the benchmark: bench/run.ts is TypeScript, bundled to one file that imports the package as its users do.
import { spawnSync } from "node:child_process";
import { build } from "esbuild";

await build({
  entryPoints: ["bench/run.ts"],
  outfile: "build/bench/run.mjs", // as deep as test/support, whose modules look for things beside them
  bundle: true,
  platform: "node",
  target: "node20",
  format: "esm",
  packages: "external",
  logLevel: "warning",
});
const { status } = spawnSync(process.execPath, ["build/bench/run.mjs", ...process.argv.slice(2)], { stdio: "inherit" });
process.exit(status ?? 1);
