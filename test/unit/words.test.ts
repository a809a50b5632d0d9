/**
 * What people read and type: errors and their codes, reports, path rules, detach keys.
 */
import { readdirSync, readFileSync } from "node:fs";
import t from "tap";
import { describeBlocker, formatAge, formatBytes, formatCommand, reportError, table } from "../../src/cli/report.js";
import { errorHints, toVirtError, VirtError } from "../../src/errors.js";
import { pathRemaps } from "../../src/pod/launch.js";
import { mergeRemaps, parseRemaps, translatePath } from "../../src/remap/path.js";
import { DetachKeys, parseKeys } from "../../src/terminal/viewer.js";
import { Random, seeds } from "../support/random.js";

/** Sources below a folder of the repository. */
function sources(folder: string, ending: RegExp): [string, string][] {
  const base = new URL(`../../${folder}/`, import.meta.url);
  return readdirSync(base, { recursive: true, encoding: "utf8" })
    .filter((name) => ending.test(name) && !name.startsWith("test/"))
    .map((name) => [`${folder}/${name}`, readFileSync(new URL(name, base), "utf8")]);
}

t.test("every code that is thrown is in the table, and every one in the table is thrown", async (t) => {
  const files = [...sources("src", /\.ts$/), ...sources("native", /\.(cc|h)$/)].filter(([f]) => f !== "src/errors.ts");
  const used = new Map<string, string>();
  for (const [file, text] of files)
    for (const [, code] of text.matchAll(/"(ERR_[A-Z0-9_]+)"/g)) used.set(code as string, file);
  const nodes = ["ERR_OUT_OF_RANGE"]; // Node's own
  for (const [code, file] of used)
    if (!nodes.includes(code)) t.ok(Object.hasOwn(errorHints, code), `${code} in ${file}`);
  for (const code of Object.keys(errorHints)) t.ok(used.has(code), `${code} is used`);
});

t.test("the table of codes", async (t) => {
  const text = readFileSync(new URL("../../src/errors.ts", import.meta.url), "utf8");
  const written = [...text.matchAll(/^ {2}(ERR_[A-Z0-9_]+):/gm)].map(([, code]) => code);
  t.equal(new Set(written).size, written.length, "each code is there once");
  t.same(written, Object.keys(errorHints));
});

t.test("whatever is thrown becomes a VirtError", async (t) => {
  const own = new VirtError("ERR_PORT_IN_USE", "taken", { pid: 7, fd: undefined });
  t.equal(toVirtError(own), own);
  t.equal(own.hint, errorHints.ERR_PORT_IN_USE);
  t.notOk("fd" in own, "what is not known is not there");
  t.match(toVirtError("text"), { code: "ERR_BUG", message: "text" });
  t.match(toVirtError(undefined), { code: "ERR_BUG" });
  t.match(toVirtError(new TypeError("oh")), { code: "ERR_BUG", message: "oh" });
  const system = Object.assign(new Error("EACCES: no"), { code: "EACCES", syscall: "open", path: "/x" });
  t.match(toVirtError(system), { code: "ERR_SYSCALL", syscall: "open", errnoName: "EACCES", path: "/x" });
  const native = Object.assign(new Error("full"), { code: "ERR_IMAGE_WRITE", errnoName: "ENOSPC", syscall: "write" });
  t.match(toVirtError(native), { code: "ERR_IMAGE_WRITE", hint: /free some space/ });
  t.same(JSON.parse(JSON.stringify(new VirtError("ERR_TREE", "no"))), { code: "ERR_TREE", message: "no" });
});

/** What a function writes to standard error and output, and what it gives. */
function written<T>(f: () => T): { out: string; value: T } {
  let out = "";
  const streams = [process.stdout, process.stderr].map((stream) => ({ stream, write: stream.write }));
  for (const { stream } of streams)
    stream.write = (text: string | Uint8Array) => {
      out += text;
      return true;
    };
  try {
    return { value: f(), out };
  } finally {
    for (const { stream, write } of streams) stream.write = write;
  }
}

t.test("errors on the command line", async (t) => {
  const report = (error: unknown, json = false, launching = false) => {
    let code = -1;
    const text = { out: "" };
    const all = written(() => {
      code = reportError(error, { json, launching });
    });
    text.out = all.out;
    return { code, out: text.out };
  };
  const plain = report(new VirtError("ERR_IMAGE_NOT_FOUND", "there is no image at /x"));
  t.equal(plain.code, 1);
  t.match(plain.out, /^virt-run: there is no image at \/x \(ERR_IMAGE_NOT_FOUND\)\n {2}\S.*\n$/);
  const json = JSON.parse(report(new VirtError("ERR_REMAP", "no rule"), true).out);
  t.match(json, { schemaVersion: 1, error: { code: "ERR_REMAP", message: "no rule", hint: /path:OLD=NEW/ } });
  for (const [error, manages, launches] of [
    ["ERR_USAGE", 2, 125],
    ["ERR_NOT_FOUND", 1, 127],
    ["ERR_NOT_EXECUTABLE", 1, 126],
    ["ERR_LAUNCH", 1, 125],
  ] as const) {
    t.equal(report(new VirtError(error, "")).code, manages, error);
    t.equal(report(new VirtError(error, ""), false, true).code, launches, `${error} when launching`);
  }
  const blockers = [
    { code: "ERR_UNSUPPORTED", message: "a watch", pid: 7, fd: 3, kind: "inotify", hint: "close it" },
    { code: "ERR_TREE", message: "a tree" },
  ];
  const blocked = report(new VirtError("ERR_BLOCKED", "cannot: a watch; a tree", { blockers })).out.split("\n");
  t.equal(blocked[0], "virt-run: cannot (ERR_BLOCKED)", "what is listed is not in the heading too");
  t.equal(blocked[1], "  pid 7, fd 3 (inotify): a watch [ERR_UNSUPPORTED]");
  t.equal(blocked[2], "      close it");
  t.equal(blocked[3], "  a tree [ERR_TREE]");
});

t.test("sizes, ages, commands, tables", async (t) => {
  t.same([0, 1023, 1024, 1536, 2 ** 30, 2 ** 50].map(formatBytes), [
    "0 B",
    "1023 B",
    "1.0 KiB",
    "1.5 KiB",
    "1.0 GiB",
    "1024.0 TiB",
  ]);
  t.same([0, 59_999, 60_000, 3_599_999, 3_600_000, 86_400_000].map(formatAge), ["0s", "59s", "1m", "59m", "1h", "1d"]);
  t.equal(formatCommand(["ls", "-l", "a b", "it's"]), "ls -l 'a b' 'it'\\''s'");
  t.equal(formatCommand(["x".repeat(100)], 10), `${"x".repeat(9)}…`);
  t.equal(
    table(
      ["A", "LONG"],
      [
        ["wide one", "b"],
        ["", "c"],
      ],
    ),
    "A         LONG\nwide one  b\n          c",
  );
  t.same(describeBlocker({ code: "ERR_TREE", message: "x", path: "/p" }), ["  x, /p [ERR_TREE]"]);
});

t.test("path rules", async (t) => {
  t.same(parseRemaps(["path:/data=/mnt/data", "path:/a=/b=c", "port:80=90", "addr:10.0.0.1=10.0.0.2", "fd:2/1=/x"]), {
    path: { "/data": "/mnt/data", "/a": "/b=c" },
    port: { 80: 90 },
    addr: { "10.0.0.1": "10.0.0.2" },
    fd: { "2/1": "/x" },
  });
  for (const bad of ["", "/a=/b", "path:", "path:=", "path:/a", "path:/a=", "path:=/b", "fd:2/1", "x:a=b"])
    t.throws(() => parseRemaps([bad]), { code: "ERR_REMAP" }, bad);
  for (const bad of [{ a: "/b" }, { "/a": "b" }, { "/": "/b" }, { "": "/b" }] as Record<string, string>[])
    t.throws(() => pathRemaps(bad), { code: "ERR_REMAP" }, JSON.stringify(bad));
  t.same(pathRemaps({ "/data/": "/mnt/" }), [{ from: "/mnt", to: "/data" }]);
  t.same(pathRemaps(undefined), []);
});

t.test("where a path lies on the host", async (t) => {
  const remaps = pathRemaps({ "/data": "/mnt/data", "/data/deep": "/deep", "/x": "/data" });
  for (const [path, host] of [
    ["/data", "/mnt/data"],
    ["/data/f", "/mnt/data/f"],
    ["/database", "/database"],
    ["/data/deep", "/deep"],
    ["/data/deep/f", "/deep/f"],
    ["/data/deeper", "/mnt/data/deeper"],
    ["/x/f", "/data/f"],
    ["/", "/"],
  ] as const)
    t.equal(translatePath(remaps, path), host, path);
  const later = mergeRemaps(remaps, [{ from: "/new", to: "/data" }]);
  t.equal(translatePath(later, "/data/f"), "/new/f", "what is said now wins");
  t.equal(later.length, 3);
});

t.test("keys", async (t) => {
  t.same([...parseKeys("ctrl-],d")], [0x1d, 0x64]);
  t.same([...parseKeys("ctrl-p ctrl-Q")], [0x10, 0x11]);
  t.same([...parseKeys("ctrl-@,ctrl-\\,ctrl-^,ctrl-_,~")], [0, 0x1c, 0x1e, 0x1f, 0x7e]);
  t.equal(parseKeys("").length, 0);
  for (const bad of ["ctrl-", "ctrl-1", "ab", "ctrl-ab", "alt-x", ","])
    t.throws(() => parseKeys(bad), { code: "ERR_USAGE" }, bad);
});

/** Types into a filter piece by piece until the keys are found; gives what went through. */
function typed(keys: string, pieces: string[]): { passed: string; found: boolean } {
  let found = false;
  const filter = new DetachKeys(Buffer.from(keys), () => {
    found = true;
  });
  let passed = "";
  for (const piece of pieces) {
    if (found) break;
    passed += filter.take(Buffer.from(piece)).toString();
  }
  return { passed, found };
}

t.test("the detach keys in what is typed", async (t) => {
  t.same(typed("\x1dd", ["abc", "\x1d", "d", "e"]), { passed: "abc", found: true });
  t.same(typed("\x1dd", ["abc\x1dd"]), { passed: "abc", found: true });
  t.same(typed("\x1dd", ["\x1d", "x"]), { passed: "\x1dx", found: false });
  t.same(typed("\x1dd", ["\x1d\x1d", "d"]), { passed: "\x1d", found: true });
  t.same(typed("aab", ["a", "a", "a", "b"]), { passed: "a", found: true });
  t.same(typed("", ["anything"]), { passed: "anything", found: false });
});

t.test("keys at random: found where they are, and everything else goes through", async (t) => {
  for (const seed of seeds(3000)) {
    const random = new Random(seed);
    const letters = (n: number) => Array.from({ length: n }, () => random.pick(["a", "b"]));
    const keys = letters(1 + random.below(4)).join("");
    const pieces = letters(12);
    const at = pieces.join("").indexOf(keys);
    const { passed, found } = typed(keys, pieces);
    const text = pieces.join("");
    const right = found ? at >= 0 && passed === text.slice(0, at) : at < 0 && text.startsWith(passed);
    if (!right) throw new Error(`VIRT_RUN_SEED=${seed}: '${keys}' in '${text}': '${passed}' ${found}`);
  }
  t.pass();
});
