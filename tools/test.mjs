// npm test: every test by tap, as an ordinary user and (if we are root) as root too. Arguments go to tap.
import { spawn, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { install, packagesFor } from "./packages.mjs";

const root = join(import.meta.dirname, "..");
const user = "virt-run-test";
const needed = [
  "package.json",
  "tsconfig.json",
  "CMakeLists.txt",
  "dist",
  "build",
  "src",
  "native",
  "docs",
  "test",
  "tools",
  "node_modules",
];

/** What an ordinary user can read is our own directory, or a copy: the clone may lie where nobody else can look. */
function readableCopy(uid, gid) {
  const copy = mkdtempSync(join(tmpdir(), "virt-run-test-"));
  spawnSync("cp", ["-a", ...needed.map((name) => join(root, name)), copy], { stdio: "inherit" });
  mkdirSync(join(copy, "home"));
  spawnSync("chown", [`${uid}:${gid}`, copy, join(copy, "home")]);
  spawnSync("chmod", ["-R", "a+rX", copy]);
  return copy;
}

/** The interpreter, where the user may run it. */
function nodeFor(uid, gid, copy) {
  const asUser = spawnSync(process.execPath, ["--version"], { uid, gid, stdio: "ignore" });
  if (asUser.status === 0) return process.execPath;
  const node = join(copy, "node");
  cpSync(process.execPath, node);
  return node;
}

/** Runs tap; what it says goes to a file and, as far as it matters, to the screen. Gives how many passed and failed. */
async function tap(mode, directory, node, prefix, env) {
  console.log(`\n── as ${mode} ──`);
  const program = join("node_modules", "tap", "dist", "esm", "run.mjs");
  const command = [...prefix, node, program, "--reporter=tap", ...process.argv.slice(2)];
  const child = spawn(command[0], command.slice(1), { cwd: directory, env, stdio: ["ignore", "pipe", "inherit"] });
  const all = [];
  const counts = { passed: 0, failed: 0, failures: [] };
  let detail = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    all.push(line);
    const end = /^(not )?ok \d+ - (.*?)(?: # time=([\d.]+)ms)?(?: \{)?$/.exec(line);
    if (end)
      console.log(`${end[1] ? "FAILED" : "ok    "} ${end[2]}${end[3] ? ` (${(end[3] / 1000).toFixed(1)} s)` : ""}`);
    // What is todo is expected to fail; all else is shown at once, and again at the end, where people look.
    if (/^\s+not ok/.test(line) && !line.includes("# TODO")) detail = 24;
    else if (/^\s*(not )?ok /.test(line)) detail = 0;
    if (detail > 0 && detail-- > 0) {
      console.log(line);
      counts.failures.push(line);
    }
    const total = /^# \{ total: (\d+), pass: (\d+)(?:, fail: (\d+))?/.exec(line);
    if (total) Object.assign(counts, { passed: Number(total[2]), failed: Number(total[3] ?? 0) });
  }
  const code = await new Promise((resolve) =>
    child.exitCode === null ? child.on("close", resolve) : resolve(child.exitCode),
  );
  if (code !== 0 && counts.failed === 0) {
    counts.failed = 1;
    counts.failures.push(`tap ended with code ${code}, though no test failed:`, ...all.slice(-60));
  }
  mkdirSync(join(root, "build", "test"), { recursive: true });
  writeFileSync(join(root, "build", "test", `${mode.replaceAll(" ", "-")}.tap`), `${all.join("\n")}\n`);
  return counts;
}

async function asOrdinaryUser() {
  if (spawnSync("id", ["-u", user]).status !== 0) {
    const made = spawnSync("useradd", ["--system", "--user-group", "--shell", "/bin/sh", user], { encoding: "utf8" });
    if (made.status !== 0) throw new Error(`useradd ${user}: ${made.stderr}`);
  }
  const [uid, gid] = ["-u", "-g"].map((flag) => Number(spawnSync("id", [flag, user], { encoding: "utf8" }).stdout));
  const copy = readableCopy(uid, gid);
  try {
    const env = { PATH: process.env.PATH, HOME: join(copy, "home"), USER: user, LANG: process.env.LANG ?? "C.UTF-8" };
    const prefix = ["setpriv", `--reuid=${uid}`, `--regid=${gid}`, "--init-groups", "--"];
    return await tap("an ordinary user", copy, nodeFor(uid, gid, copy), prefix, env);
  } finally {
    rmSync(copy, { recursive: true, force: true });
    // Reports the user that cannot be removed because something of the tests still runs.
    const { status, stderr } = spawnSync("userdel", [user], { encoding: "utf8" });
    if (status !== 0) console.log(`userdel ${user}: ${stderr.trim()}`);
  }
}

install(packagesFor.test);
const runs =
  process.geteuid() === 0
    ? [await asOrdinaryUser(), await tap("root", root, process.execPath, [], process.env)]
    : [await tap("an ordinary user", root, process.execPath, [], process.env)];
if (process.geteuid() !== 0) console.log("\nThe tests as root need root: sudo npm test");
const sum = (key) => runs.reduce((total, run) => total + run[key], 0);
const version = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version;
const failures = runs.flatMap((run) => run.failures);
if (failures.length > 0) console.log(`\n── what failed ──\n${failures.join("\n")}`);
console.log(`\nvirt-run ${version}, ${dirname(process.execPath)}/node ${process.version}`);
console.log(`${sum("passed")} passed, ${sum("failed")} failed`);
process.exit(sum("failed") === 0 ? 0 : 1);
