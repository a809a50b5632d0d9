/**
 * The real programs that test/apps runs, and the Debian packages that hold them. A test whose program is missing
 * fails and names the package; it is never left out.
 */
import { accessSync, constants, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Program → Debian package. */
const { programs } = JSON.parse(readFileSync(new URL("../../tools/packages.json", import.meta.url), "utf8")) as {
  programs: Record<string, string>;
};

/** Where Debian puts them: /usr/bin would give PostgreSQL's clients as wrappers, PATH whatever the user has there. */
const directories = [...versions("/usr/lib/postgresql"), "/usr/bin", "/usr/sbin"];

function versions(parent: string): string[] {
  try {
    return readdirSync(parent)
      .sort((a, b) => Number(b) - Number(a))
      .map((version) => join(parent, version, "bin"));
  } catch {
    return [];
  }
}

/** The path of a program; fails the test with what to install if it is not there. */
export function needs(program: string): string {
  const name = programs[program];
  if (name === undefined) throw new Error(`${program} is missing in tools/packages.json`);
  for (const directory of directories) {
    const path = join(directory, program);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // not in this one
    }
  }
  throw new Error(`${program} is not installed and this test cannot do without: apt-get install ${name}`);
}
