/**
 * The examples of docs/sdk.md: each is run as it stands, and prints what the page says. Of every page: its links lead somewhere, and
 * the codes of errors that it names exist.
 */
import { execFile, execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import t from "tap";
import { errorHints } from "virt-run";
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

const docs = new URL("../docs/", import.meta.url);
for (const name of readdirSync(docs).filter((file) => file.endsWith(".md"))) {
  t.test(`${name}: what it names is there`, async (t) => {
    const text = readFileSync(new URL(name, docs), "utf8");
    for (const [, target = ""] of text.matchAll(/\]\(([^):#]+)\)/g))
      t.ok(existsSync(new URL(target, docs)), `the link to ${target}`);
    for (const [code] of text.matchAll(/\bERR_[A-Z0-9_]+/g)) t.ok(code in errorHints, code);
  });
}

t.test("pictures are whole", async (t) => {
  for (const name of readdirSync(docs).filter((file) => file.endsWith(".svg")))
    execFileSync(needs("python3"), [
      "-c",
      "import sys, xml.dom.minidom as x; x.parse(sys.argv[1])",
      new URL(name, docs).pathname,
    ]);
  t.pass();
});
