// Everything about the sources that can be told without running a pod: formatters, linters, types, and the native tests
// with AddressSanitizer and UndefinedBehaviorSanitizer.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { cpus } from "node:os";
import { install, packagesFor } from "./packages.mjs";

install(packagesFor.check);

const build = "build/check";
const jobs = String(cpus().length);

const sources = (directory, endings) =>
  readdirSync(directory, { recursive: true, encoding: "utf8" })
    .filter((name) => endings.some((ending) => name.endsWith(ending)))
    .map((name) => `${directory}/${name}`);

const configure = [
  "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
  "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
  "-DVIRT_RUN_TESTS=ON",
  "-DVIRT_RUN_SANITIZE=ON",
];

/** Pinned where versions disagree about what is right: clang 14 is Debian 12's. */
const steps = [
  ["TypeScript is formatted and linted", "node_modules/.bin/biome", ["ci", "--reporter=summary", "."]],
  ["the package's types", "node_modules/.bin/tsc", ["-p", "tsconfig.json", "--noEmit"]],
  ["the tests' types", "node_modules/.bin/tsc", ["-p", "test/tsconfig.json"]],
  [
    "C and C++ are formatted",
    "clang-format-14",
    ["--dry-run", "--Werror", ...sources("native", [".cc", ".h"]), ...sources("test/programs", [".c", ".h"])],
  ],
  ["the native tests are configured", "cmake", ["-S", ".", "-B", build, ...configure]],
  ["the native tests are built", "cmake", ["--build", build, "-j", jobs]],
  ["the native tests pass", "ctest", ["--test-dir", build, "--output-on-failure", "-j", jobs]],
  [
    "clang-tidy has no complaint",
    "run-clang-tidy-14",
    ["-p", build, "-quiet", "-j", jobs, "^(?!.*/native/test/).*/native/.*\\.cc$"],
  ],
];

let failed = 0;
for (const [what, command, args] of steps) {
  const began = Date.now();
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: "utf8", maxBuffer: 1 << 28 });
  const seconds = ((Date.now() - began) / 1000).toFixed(1);
  console.log(`${status === 0 ? "ok    " : "FAILED"} ${what} (${seconds} s)`);
  if (status === 0) continue;
  failed++;
  console.log(`${error?.message ?? ""}${stdout}${stderr}`);
}
console.log(failed === 0 ? "check passed" : `check FAILED: ${failed} of ${steps.length} steps`);
process.exit(failed === 0 ? 0 : 1);
