/**
 * Which paths belong to a pod, from its journal.
 */
import t from "tap";
import type { Effect } from "../../src/journal/journal.js";
import { type Written, writtenPaths } from "../../src/journal/written.js";

const base = { time: "2026-01-01T00:00:00.000Z", pid: 2, program: "/bin/sh", call: "openat" };

/** "create /a", "rename /a /b" … */
function effects(...lines: string[]): Effect[] {
  return lines.map((line) => {
    const [kind, path, to] = line.split(" ");
    const call = kind === "exchange" ? "renameat2" : base.call;
    return {
      ...base,
      call,
      kind: kind === "exchange" ? "rename" : kind,
      path,
      ...(to ? { to } : {}),
    } as unknown as Effect;
  });
}

const plain = ({ paths }: Written) =>
  paths.map((p) => `${p.path}${p.follow ? " follow" : ""}${p.tree ? " tree" : ""}`).sort();

t.test("made, written, removed, renamed", async (t) => {
  const of = (...lines: string[]) => plain(writtenPaths(effects(...lines)));
  t.strictSame(of("create /a", "make /d", "write /b", "mode /c", "remove /a"), ["/b follow", "/c follow", "/d"]);
  t.strictSame(of("create /a.tmp", "rename /a.tmp /a"), ["/a follow"]);
  t.strictSame(of("make /d", "create /d/x", "make /d/e", "create /d/e/y", "rename /d /f", "write /f/x"), [
    "/f",
    "/f/e",
    "/f/e/y follow",
    "/f/x follow",
  ]);
  t.strictSame(of("rename /was /is"), ["/is tree"], "nobody told what is in it");
  t.strictSame(of("create /was/new", "rename /was /is"), ["/is tree", "/is/new follow"]);
  t.strictSame(of("rename /a /b", "rename /b /c", "remove /c"), []);
  t.strictSame(of("create /a", "create /b", "rename /a /b", "remove /b"), []);
  t.strictSame(of("exchange /a /b"), ["/a tree", "/b tree"], "perhaps they changed places");
  t.strictSame(of("create /a/../b", "create c", "rename /x /a/./b", "create /"), []);
  t.strictSame(of("execute /bin/sh", "connect /run/s", "bind /run/t", "listen /run/t"), []);
});

t.test("earlier lives", async (t) => {
  const before = { paths: [{ path: "/d/x", follow: true }, { path: "/d", tree: true }, { path: "/gone" }] };
  t.strictSame(plain(writtenPaths(effects("rename /d /e", "remove /gone", "create /new"), before)), [
    "/e tree",
    "/e/x follow",
    "/new follow",
  ]);
  t.strictSame(plain(writtenPaths([], before)), ["/d tree", "/d/x follow", "/gone"]);
  t.equal(writtenPaths(effects("create /a"), before).incomplete, undefined);
  t.ok(writtenPaths(effects("create /a"), { ...before, incomplete: true }).incomplete);
  t.ok(writtenPaths(effects("create /a", "lost", "create /b")).incomplete);
});

t.test("very many renames are no trouble", async (t) => {
  const many = Array.from({ length: 20_000 }, (_, i) => [
    `create /o/tmp${i}`,
    `rename /o/tmp${i} /o/${i % 100}/${i}`,
  ]).flat();
  const start = performance.now();
  t.equal(writtenPaths(effects(...many)).paths.length, 20_000);
  t.ok(performance.now() - start < 5000);
});
