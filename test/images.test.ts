/**
 * Images that are damaged, strange or in the way, and places where none can be written: one clear error with its code,
 * nothing half done, and the program unharmed.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import t, { type Test } from "tap";
import {
  connect,
  type Image,
  images,
  launch,
  list,
  openImage,
  type Pod,
  planReattach,
  reattach,
  verifyImage,
} from "virt-run";
import { freePort, isRoot, leaveNothing, tcpRead } from "./support/apps.js";
import { sandbox } from "./support/env.js";
import { leftovers } from "./support/leftovers.js";
import { imageName, logged, start, until } from "./support/pods.js";
import { goesOn, startSteady, steadyProgram } from "./support/steady.js";

leaveNothing(t);

interface Failure {
  code?: string;
  message: string;
  errnoName?: string;
  hint?: string;
}

/** The error of something that has to fail. */
async function failure(promise: Promise<unknown>): Promise<Failure> {
  const outcome = await promise.then(
    () => undefined,
    (e: Failure) => e,
  );
  if (outcome === undefined) throw new Error("it did not fail");
  return outcome;
}

/** Every file below a directory with its hash. */
function contents(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: "utf8" })
    .filter((name) => statSync(join(directory, name)).isFile())
    .map(
      (name) =>
        `${name} ${createHash("sha256")
          .update(readFileSync(join(directory, name)))
          .digest("hex")}`,
    )
    .sort();
}

/** Fails, with this code, and leaves neither a process nor a pod behind, and the image as it was. */
async function refused(t: Test, path: string, code: string): Promise<Failure> {
  const before = existsSync(path) ? contents(path) : [];
  const pods = (await list({ all: true })).length;
  const error = await failure(reattach(path, { stdio: "log" }));
  t.equal(error.code, code, error.message);
  t.equal((await list({ all: true })).length, pods, "no pod was made");
  t.same(existsSync(path) ? contents(path) : [], before, "the image is untouched");
  return error;
}

/** What was killed needs a moment to be gone. */
async function nothingLeft(): Promise<void> {
  await until("nothing to be left over", () => leftovers().length === 0, 3000);
}

function flipByte(path: string, at: number): void {
  const bytes = readFileSync(path);
  const index = at < 0 ? bytes.length + at : at;
  bytes[index] = (bytes[index] as number) ^ 0x10;
  writeFileSync(path, bytes);
}

type Json = Record<string, unknown>;

/** Changes a manifest as somebody would who knows about its hash. */
function rewrite(
  image: string,
  change: (manifest: Json & { host: { cpu: { features: string[] }; arch: string } }) => void,
): void {
  const path = join(image, "manifest.json");
  const manifest = JSON.parse(readFileSync(path, "utf8"));
  change(manifest);
  const text = JSON.stringify(manifest);
  writeFileSync(path, text);
  writeFileSync(join(image, "manifest.sha256"), `${createHash("sha256").update(text).digest("hex")}\n`);
}

/** A program that holds a file without a name, and waits. */
async function holder(): Promise<Pod> {
  const script = "exec 3<>held; echo content >&3; rm held; echo ready; exec sleep 1000";
  const pod = await start("/bin/sh", ["-c", script]);
  await logged(pod, "ready");
  return pod;
}

const carried = (image: string) => join("files", readdirSync(join(image, "files"))[0] as string);

t.test("damaged images", async (t) => {
  const whole = (await (await holder()).detach({ image: imageName() })).path;
  const damages: [string, string, (image: string) => void][] = [
    ["pages cut short", "ERR_IMAGE_DAMAGED", (i) => truncateSync(join(i, "pages-1.bin"), 4096)],
    ["no pages", "ERR_IMAGE_DAMAGED", (i) => rmSync(join(i, "pages-1.bin"))],
    ["a changed byte in the first page", "ERR_IMAGE_DAMAGED", (i) => flipByte(join(i, "pages-1.bin"), 17)],
    ["a changed byte in the last page", "ERR_IMAGE_DAMAGED", (i) => flipByte(join(i, "pages-1.bin"), -1)],
    ["a changed byte in the pages' sums", "ERR_IMAGE_DAMAGED", (i) => flipByte(join(i, "pages.sum"), 9)],
    ["sums cut short", "ERR_IMAGE_DAMAGED", (i) => truncateSync(join(i, "pages.sum"), 8)],
    ["no sums", "ERR_IMAGE_DAMAGED", (i) => rmSync(join(i, "pages.sum"))],
    ["a changed byte in the manifest", "ERR_IMAGE_DAMAGED", (i) => flipByte(join(i, "manifest.json"), 100)],
    ["a manifest cut short", "ERR_IMAGE_DAMAGED", (i) => truncateSync(join(i, "manifest.json"), 1000)],
    ["a changed byte in the manifest's hash", "ERR_IMAGE_DAMAGED", (i) => flipByte(join(i, "manifest.sha256"), 5)],
    ["no hash of the manifest", "ERR_IMAGE_DAMAGED", (i) => rmSync(join(i, "manifest.sha256"))],
    ["no manifest", "ERR_IMAGE_NOT_FOUND", (i) => rmSync(join(i, "manifest.json"))],
    ["a changed byte in the log", "ERR_IMAGE_DAMAGED", (i) => flipByte(join(i, "log"), 0)],
    ["no log", "ERR_IMAGE_DAMAGED", (i) => rmSync(join(i, "log"))],
    ["a changed byte in a carried file", "ERR_IMAGE_DAMAGED", (i) => flipByte(join(i, carried(i)), 0)],
    ["a carried file cut short", "ERR_IMAGE_DAMAGED", (i) => truncateSync(join(i, carried(i)), 1)],
    ["no carried file", "ERR_IMAGE_DAMAGED", (i) => rmSync(join(i, carried(i)))],
  ];
  for (const [what, code, damage] of damages) {
    await t.test(what, async (t) => {
      const image = imageName();
      cpSync(whole, image, { recursive: true });
      damage(image);
      await refused(t, image, code);
      t.equal((await failure(verifyImage(image))).code, code, "verify says the same");
      await nothingLeft();
      rmSync(image, { recursive: true });
    });
  }
  await t.test("the whole one", async (t) => {
    await verifyImage(whole);
    const pod = await reattach(whole, { stdio: "log" });
    t.ok(pod.running);
    await pod.destroy();
  });
});

t.test("images of another version or host", async (t) => {
  const whole = (await (await startSteady()).detach({ image: imageName() })).path;
  const changes: [string, string, RegExp, Parameters<typeof rewrite>[1]][] = [
    [
      "a newer format",
      "ERR_IMAGE_VERSION",
      /version 2 .*9\.9\.9/,
      (m) => Object.assign(m, { formatVersion: 2, virtRun: "9.9.9" }),
    ],
    ["another format", "ERR_BAD_VALUE", /not of a virt-run image/, (m) => Object.assign(m, { format: "tar" })],
    ["a CPU feature", "ERR_CPU_FEATURE", /amx_of_tomorrow/, (m) => m.host.cpu.features.push("amx_of_tomorrow")],
    ["another machine", "ERR_CPU_FEATURE", /aarch64/, (m) => Object.assign(m.host, { arch: "aarch64" })],
    ["other pages", "ERR_KERNEL_FEATURE", /65536/, (m) => Object.assign(m.host, { pageSizeBytes: 65536 })],
    [
      "a tree that cannot be",
      "ERR_BAD_VALUE",
      /manifest\.json: pid \d+ has a parent/,
      (m) => Object.assign((m["processes"] as Json[])[1] as Json, { ppid: 77 }),
    ],
    [
      "a pid that is none",
      "ERR_BAD_VALUE",
      /manifest\.json: processes\.0/,
      (m) => Object.assign((m["processes"] as Json[])[0] as Json, { pid: -1 }),
    ],
  ];
  for (const [what, code, text, change] of changes) {
    await t.test(what, async (t) => {
      const image = imageName();
      cpSync(whole, image, { recursive: true });
      rewrite(image, change);
      const error = await refused(t, image, code);
      t.match(error.message, text);
      t.equal((await failure(planReattach(image))).code, code, "--dry-run says the same");
      await nothingLeft();
      rmSync(image, { recursive: true });
    });
  }
});

t.test("a port that somebody else has", async (t) => {
  const port = await freePort();
  const script = `require("net").createServer((s) => s.end("hello")).listen(${port}, "127.0.0.1", () => console.log("ready"))`;
  const pod = await start(process.execPath, ["-e", script]);
  await logged(pod, "ready");
  const image = await pod.detach({ image: imageName(), tcp: "close" });
  const other = createServer((socket) => socket.end("other"));
  await new Promise<void>((resolve) => other.listen(port, "127.0.0.1", resolve));
  const error = await refused(t, image.path, "ERR_PORT_IN_USE");
  t.match(error.message, `127.0.0.1:${port}`);
  t.equal(await tcpRead(port), "other", "the other one is left in peace");
  await new Promise((resolve) => other.close(resolve));
  const again = await reattach(image, { stdio: "log" });
  t.equal(await tcpRead(port), "hello");
  await again.destroy();
});

t.test("places where no image can be written", async (t) => {
  const pod = await startSteady();
  const taken = imageName();
  mkdirSync(taken);
  writeFileSync(join(taken, "mine"), "");
  const file = imageName();
  writeFileSync(file, "");
  const closed = imageName();
  mkdirSync(closed);
  chmodSync(closed, 0o500);
  const places: [string, string, string][] = [
    ["a directory that exists", taken, "ERR_IMAGE_EXISTS"],
    ["a file that exists", file, "ERR_IMAGE_EXISTS"],
    ["a directory that does not exist", join(sandbox, "none", "image"), "ERR_IMAGE_WRITE"],
    ["a file instead of a directory", join(file, "image"), "ERR_IMAGE_WRITE"],
    ["/proc", "/proc/image", "ERR_IMAGE_WRITE"],
  ];
  if (!isRoot) places.push(["a directory of somebody else", join(closed, "image"), "ERR_IMAGE_WRITE"]);
  for (const kind of ["detach", "snapshot"] as const) {
    for (const [what, image, code] of places) {
      const error = await failure(pod[kind]({ image }));
      t.equal(error.code, code, `${kind}, ${what}: ${error.message}`);
      t.not(error.hint, "", "says what to do");
      await goesOn(pod);
    }
  }
  t.same(readdirSync(taken), ["mine"], "what was there is still there");
  t.same(readdirSync(closed), []);
  t.same(
    readdirSync(sandbox).filter((name) => name.includes(".partial-")),
    [],
    "nothing half-written is left",
  );
  const image = await pod.detach({ image: imageName() });
  await verifyImage(image.path);
});

t.test("a disk that is full", async (t) => {
  const directory = join(sandbox, "full");
  mkdirSync(directory);
  const program = steadyProgram();
  const script = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" "$3" "$1" "$4"';
  const node = [process.execPath, new URL("faults/full-disk.mjs", import.meta.url).pathname, program];
  const out = execFileSync("unshare", ["-Urm", "sh", "-c", script, "sh", directory, ...node], { timeout: 60_000 });
  for (const { kind, went, goesOn, code, errnoName, left, message } of JSON.parse(out.toString())) {
    t.match(
      { went, code, errnoName },
      { went: true, code: "ERR_IMAGE_WRITE", errnoName: "ENOSPC" },
      `${kind}: ${message}`,
    );
    t.same(left, [], "nothing half-written is left");
    t.equal(goesOn, true, "the program goes on");
  }
});

t.test("a file that may not become so large", async (t) => {
  const pod = await startSteady();
  pod.disconnect();
  const image = imageName();
  const cli = new URL("../dist/cli/virt-run.cjs", import.meta.url).pathname;
  const script = 'ulimit -f 1024; exec "$@"';
  const { status, stderr } = spawnSync(
    "sh",
    ["-c", script, "sh", process.execPath, cli, "detach", pod.id, "-o", image, "--json"],
    { encoding: "utf8" },
  );
  t.not(status, 0, stderr); // an error, or SIGXFSZ: then it is like any other kill
  const again = await failure(openImage(image));
  t.equal(again.code, "ERR_IMAGE_NOT_FOUND");
  await goesOn(await connect(pod.id));
});

t.test("names", async (t) => {
  const one = await startSteady();
  const image = await one.snapshot({ image: imageName() });
  const named = await launch(steadyProgram(), [], { name: "taken", stdio: "log", cwd: sandbox });
  const error = await failure(reattach(image, { name: "taken", stdio: "log" }));
  t.equal(error.code, "ERR_NAME_TAKEN", error.message);
  t.equal((await failure(launch("true", [], { name: "taken" }))).code, "ERR_NAME_TAKEN");
  t.equal((await list({ all: true })).filter(({ name }) => name === "taken").length, 1);
  const copy = await named.snapshot({ image: imageName() });
  t.equal((await failure(reattach(copy, { stdio: "log" }))).code, "ERR_NAME_TAKEN", "an image asks for its pod's name");
  await goesOn(one);
  await goesOn(named);
  await named.destroy();
  const again = await reattach(copy, { stdio: "log" });
  t.equal(again.name, "taken", "a name is free when its pod has ended");
  await goesOn(again);
});

t.test("one image, several times", async (t) => {
  const image = await (await startSteady()).detach({ image: imageName() });
  await t.test("one after the other", async () => {
    for (let i = 0; i < 2; i++) {
      const pod = await reattach(image, { stdio: "log" });
      await goesOn(pod);
      await pod.destroy();
    }
  });
  await t.test("side by side", async (t) => {
    const pods = await Promise.all([reattach(image, { stdio: "log" }), reattach(image, { stdio: "log" })]);
    t.not(pods[0]?.id, pods[1]?.id);
    for (const pod of pods) await goesOn(pod);
    for (const pod of pods) await pod.destroy();
  });
  await t.test("side by side, with one name: one of them has it", async (t) => {
    const options = { name: "only", stdio: "log" } as const;
    const outcomes = await Promise.allSettled([reattach(image, options), reattach(image, options)]);
    const pods = outcomes.flatMap((o) => (o.status === "fulfilled" ? [o.value] : []));
    const errors = outcomes.flatMap((o) => (o.status === "rejected" ? [(o.reason as Failure).code] : []));
    t.equal(pods.length, 1);
    t.same(errors, ["ERR_NAME_TAKEN"]);
    await goesOn(pods[0] as Pod);
  });
});

t.test("two detaches at once: one is done, the other told so", async (t) => {
  const pod = await startSteady();
  const outcomes = await Promise.allSettled([pod.detach({ image: imageName() }), pod.detach({ image: imageName() })]);
  const done = outcomes.flatMap((o) => (o.status === "fulfilled" ? [o.value] : []));
  const errors = outcomes.flatMap((o) => (o.status === "rejected" ? [(o.reason as Failure).code] : []));
  t.equal(done.length, 1);
  t.ok(
    errors.every((code) => code === "ERR_POD_BUSY" || code === "ERR_POD_GONE"),
    `${errors}`,
  );
  await goesOn(await reattach(done[0] as Image, { stdio: "log" }));
});

t.test("a damaged image does not hide the others from `images`", async (t) => {
  const pod = await startSteady();
  const [good, bad] = [await pod.snapshot({ image: "good" }), await pod.snapshot({ image: "bad" })];
  flipByte(join(bad.path, "manifest.json"), 50);
  const all = await images();
  t.ok(all.find(({ name }) => name === "good")?.image);
  t.equal(all.find(({ name }) => name === "bad")?.error?.code, "ERR_IMAGE_DAMAGED");
  good.remove();
  bad.remove();
  await until("both to be gone", async () => (await images()).length === 0);
});
