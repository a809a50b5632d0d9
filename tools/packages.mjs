// The Debian packages that building, checking and testing need (packages.json): prints them, or says which are missing.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const { build, check, programs } = JSON.parse(readFileSync(new URL("packages.json", import.meta.url), "utf8"));

/** What a task needs, each once. */
export const packagesFor = {
  check: [...build, ...check],
  test: [...new Set([...build, ...Object.values(programs)])],
};

/** Those of a list that dpkg does not know as installed; nothing on a host without dpkg, where programs are looked for. */
export function missing(packages) {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg's own format
  const { stdout, error } = spawnSync("dpkg-query", ["-W", "-f", "${Package} ${db:Status-Status}\n", ...packages], {
    encoding: "utf8",
  });
  if (error) return [];
  const installed = new Set(
    stdout
      .split("\n")
      .filter((line) => line.endsWith(" installed"))
      .map((line) => line.split(" ")[0]),
  );
  return packages.filter((name) => !installed.has(name));
}

/** Installs what is missing as root; for others, says what to install and ends the program. */
export function install(packages) {
  const needed = missing(packages);
  if (needed.length === 0) return;
  if (process.geteuid() !== 0) {
    console.error(
      `These Debian packages are needed and not installed:\n\n  sudo apt-get install ${needed.join(" ")}\n`,
    );
    process.exit(1);
  }
  console.log(`installing ${needed.join(" ")}`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  spawnSync("apt-get", ["update", "-qq"], { stdio: ["ignore", "ignore", "inherit"], env });
  const args = ["install", "-y", "-qq", "--no-install-recommends", ...needed];
  const { status } = spawnSync("apt-get", args, { stdio: ["ignore", "ignore", "inherit"], env });
  if (status !== 0) process.exit(1);
  // Debian starts what it installs; the tests start their own. What ran here before goes on.
  const services = {
    "redis-server": "redis-server",
    "nginx-light": "nginx",
    postgresql: "postgresql",
    "openssh-server": "ssh",
  };
  for (const name of needed) if (services[name]) spawnSync("service", [services[name], "stop"]);
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  console.log([...new Set([...packagesFor.check, ...packagesFor.test])].join("\n"));
