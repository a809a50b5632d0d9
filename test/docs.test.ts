/**
 * The examples of docs/sdk.md: each is run as it stands, and prints what the page says.
 */
import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import t from "tap";
import { leaveNothing } from "./support/apps.js";
import { sandbox } from "./support/env.js";
import { needs } from "./support/packages.js";

leaveNothing(t);

const page = readFileSync(new URL("../docs/sdk.md", import.meta.url), "utf8");
const examples = [
  ...page.matchAll(/^## (.*?)\n(?:(?!^## )(?:.|\n))*?^```js\n((?:.|\n)*?)^```\n^```text\n((?:.|\n)*?)^```$/gm),
];

t.test("the page has examples", async (t) => {
  t.equal(examples.length, page.match(/^```js$/gm)?.length);
  t.ok(examples.length >= 5);
});

for (const [, title = "", code = "", output] of examples) {
  t.test(title, async (t) => {
    for (const program of ["curl", "python3"]) if (code.includes(program)) needs(program);
    const file = join(sandbox, "example.mjs");
    const built = new URL("../dist/index.js", import.meta.url).href;
    writeFileSync(file, code.replaceAll('from "virt-run"', `from "${built}"`));
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [file], { timeout: 60_000 });
    t.equal(stderr, "");
    t.equal(stdout, output);
  });
}
