/**
 * The programs that try to get round an isolation (test/isolation/*.c), and what they are about.
 */
import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, readdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Test } from "tap";
import type { Isolation, Pod } from "virt-run";
import { program, shell } from "./cli.js";
import { sandbox } from "./env.js";

/** Where the programs are when buildAttempts() has run. */
export const built = join(sandbox, "built");
const sources = new URL("../isolation/", import.meta.url).pathname;
/** What is in a hidden file. */
const secret = "nobody may read this";

/** Builds what tries to get round an isolation. */
export function buildAttempts(): void {
  mkdirSync(built);
  const flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-pthread"];
  for (const name of ["files", "network", "without"]) {
    const words = [...flags, "-o", join(built, name), join(sources, `${name}.c`)];
    execFileSync("gcc", words, { stdio: ["ignore", "inherit", "inherit"] });
  }
}

/** Directories for one of them. */
export interface Place {
  seen: string;
  work: string;
  file: string;
  socketDirectory: string;
  /** Rules, with everything else read only or as it is. */
  rules: Isolation;
  sealed: Isolation;
}

let places = 0;

/** What the program `files` is about, in a directory of its own; buildAttempts() has run. */
export function place(): Place {
  const at = join(realpathSync(sandbox), `place${places++}`);
  const [seen, work] = [join(at, "seen"), join(at, "work")];
  mkdirSync(join(seen, "directory"), { recursive: true });
  mkdirSync(join(work, "sub/secrets"), { recursive: true });
  mkdirSync(join(work, "keep/deep"), { recursive: true });
  const file = join(seen, "file");
  writeFileSync(file, "as it was\n");
  writeFileSync(join(work, "keep/deep/file"), "as it was\n");
  writeFileSync(join(work, "sub/secret"), secret);
  writeFileSync(join(work, "sub/secrets/inner"), secret);
  copyFileSync(join(built, "files"), join(seen, "files"));
  chmodSync(join(seen, "files"), 0o755);
  const rules: Isolation = {
    readOnly: [seen, join(work, "keep/deep")],
    hide: [join(work, "sub/secret"), join(work, "sub/secrets")],
  };
  return {
    seen,
    work,
    file,
    socketDirectory: join(realpathSync(sandbox), "run", "virt-run"),
    rules,
    sealed: { ...rules, readOnly: ["/", ...(rules.readOnly ?? [])], writable: [work] },
  };
}

/** Options of the command line for rules. */
export function words(rules: Isolation): string[] {
  return [
    ...(rules.readOnly ?? []).flatMap((path) => ["--ro", path]),
    ...(rules.writable ?? []).flatMap((path) => ["--rw", path]),
    ...(rules.hide ?? []).flatMap((path) => ["--hide", path]),
    ...(rules.network === "none" ? ["--no-net"] : []),
  ];
}

/** Words as a shell takes them. */
export function quoted(list: string[]): string {
  return list.map((word) => `'${word}'`).join(" ");
}

/** The command, in a line of shell. */
export const virtRunLine = `env -u NODE_OPTIONS '${process.execPath}' '${program}'`;

/** What came of the attempts, and that nothing was changed, seen from outside. */
export function judge(t: Test, { seen, work, file }: Place, said: string, what: string, least = 120): void {
  const lines = said.split("\n");
  t.same(
    lines.filter((line) => line.startsWith("BROKEN")),
    [],
    `${what}: nothing got through`,
  );
  t.ok(lines.filter((line) => line.startsWith("held")).length >= least, `${what}: all was tried`);
  t.match(said, /^DONE$/m, `${what}: to the end`);
  t.notMatch(said, secret, what);
  t.equal(readFileSync(file, "utf8"), "as it was\n", what);
  t.equal(readFileSync(join(work, "keep/deep/file"), "utf8"), "as it was\n", what);
  t.equal(readFileSync(join(work, "sub/secret"), "utf8"), secret, what);
  t.same(readdirSync(seen).sort(), ["directory", "file", "files"], what);
}

/** Runs `files` in a pod that runs already, with a file of its own mounts as standard input. */
export async function tryByExec(pod: Pod, at: Place): Promise<string> {
  const command = [join(at.seen, "files"), at.seen, at.work, at.socketDirectory];
  const { out, err } = await shell(`${virtRunLine} exec ${pod.id} ${quoted(command)} < '${at.file}' 2>&1`);
  return out + err;
}
