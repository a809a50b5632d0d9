/**
 * The manifest's checks: a right one passes as it is, and whatever is done to it is either taken or refused with one error
 * that says where. Nothing else is thrown, and nothing takes long.
 */
import t from "tap";
import { isLiving, type Manifest, parseManifest, stringifyManifest } from "../../src/image/manifest.js";
import { planTree } from "../../src/image/tree.js";
import { treeProcess } from "../../src/pod/compose.js";
import { goodManifest, goodText } from "../support/manifest.js";
import { Random, seeds } from "../support/random.js";

interface Failure {
  code?: string;
  name?: string;
  message: string;
}

function refusal(text: string): Failure | undefined {
  try {
    parseManifest(text);
    return undefined;
  } catch (e) {
    return e as Failure;
  }
}

t.test("a right one comes back as it was written, bytes included", async (t) => {
  const manifest = goodManifest();
  t.same(parseManifest(stringifyManifest(manifest)), manifest);
  t.ok(planTree(manifest.processes.map(treeProcess)).steps.length > 0);
});

t.test("the state of a TCP connection that cannot be is refused", async (t) => {
  for (const [member, value] of Object.entries({
    state: "listen",
    sendSequence: 2 ** 32,
    receiveSequence: -1,
    maxSegment: 0,
    windowScales: [7, 15],
    unread: "plain",
    local: { address: "10.0.0.1", port: 65536 },
  })) {
    const manifest = goodManifest();
    const socket = manifest.handles.find((h) => h.kind === "inet-socket" && h.repair !== undefined) as {
      repair: Record<string, unknown>;
    };
    socket.repair[member] = value;
    t.match(refusal(stringifyManifest(manifest)), { code: "ERR_BAD_VALUE", message: /repair/ }, member);
  }
});

/** Gives it rules that are right. */
function isolated(m: Manifest): NonNullable<Manifest["pod"]["isolate"]> {
  m.pod.isolate = { readOnly: ["/"], writable: ["/data"], hide: [], network: "none" };
  for (const p of m.processes) if (isLiving(p)) p.credentials.bounding = "0x0";
  return m.pod.isolate;
}

function own(m: Manifest): NonNullable<Manifest["own"]> {
  m.own = [{ place: "/tmp", entries: [{ ...ownEntry, path: "/d" }] }];
  return m.own;
}

const ownEntry = { type: "directory" as const, path: "/x", mode: 0o755, uid: 0, gid: 0, mtimeNs: "1" };

const ownFile = {
  ...ownEntry,
  type: "file" as const,
  name: `files/${"9".repeat(64)}`,
  sizeBytes: 8,
  why: "written" as const,
};

t.test("one with rules, and one without what is new, are read", async (t) => {
  const manifest = goodManifest();
  t.equal(parseManifest(stringifyManifest(manifest)).pod.isolate, undefined);
  isolated(manifest);
  own(manifest);
  t.same(parseManifest(stringifyManifest(manifest)), manifest);
});

function carriedAt(m: Manifest, index: number, change: object): void {
  Object.assign(m.carriedFiles?.[index] as object, change);
}

/** Changes one thing; each is wrong in its own way. */
const mistakes: Record<string, [(m: Manifest) => void, RegExp]> = {
  "a handle out of order": [(m) => m.handles.reverse(), /handle 0/],
  "a descriptor of no handle": [(m) => first(m).fds.push([9, 99, false]), /no handle 99/],
  "a descriptor twice": [(m) => first(m).fds.push([3, 1, false]), /fd 3 twice/],
  "a file that is not there": [(m) => Object.assign(m.handles[1] as object, { file: 9 }), /no file 9/],
  "an executable that is not there": [(m) => Object.assign(first(m), { exe: 9 }), /no file 9/],
  "a pipe that is a pair": [(m) => Object.assign(m.handles[2] as object, { object: 1 }), /no pipe 1/],
  "a mapping that is upside down": [(m) => Object.assign(first(m).mappings[0] as object, { end: 4096 }), /bad mapping/],
  "mappings over each other": [(m) => Object.assign(first(m).mappings[1] as object, { start: 4096 }), /bad mapping/],
  "a mapping of no memory": [(m) => Object.assign(first(m).mappings[2] as object, { memory: 7 }), /no memory 7/],
  "pages beyond the parts": [(m) => first(m).pages.push([16384, 1, 3]), /lies outside/],
  "very many pages": [(m) => first(m).pages.push([16384, 2 ** 34, 0]), /lies outside/],
  "pages out of order": [(m) => first(m).pages.reverse(), /out of order/],
  "pages beyond an object": [(m) => m.memory[0]?.pages.push([4096, 1, 2]), /lies outside/],
  "a thread twice": [(m) => Object.assign(first(m).threads[1] as object, { tid: 2 }), /pid 2 occurs twice/],
  "a pid that is init's": [(m) => Object.assign(m.processes[1] as object, { pid: 1 }), /pid 1/],
  "a leader that is not first": [(m) => first(m).threads.reverse(), /leader/],
  "a lock without a descriptor": [(m) => Object.assign(first(m).locks?.[0] as object, { fd: 77 }), /fd 77/],
  "content that is missing": [(m) => m.carried.pop(), /missing/],
  "a part that is missing": [(m) => m.parts.shift(), /pages\.sum/],
  "sums of another size": [(m) => Object.assign(m.parts[0] as object, { sizeBytes: 8 }), /wrong size/],
  "a part outside the image": [(m) => Object.assign(m.parts[2] as object, { name: "../log" }), /parts\.2/],
  "a carried file outside": [(m) => Object.assign(m.carried[0] as object, { name: "/etc/passwd" }), /carried\.0/],
  "a way up": [(m) => carriedAt(m, 1, { path: "/home/../etc/passwd" }), /plain path/],
  "a way to nowhere": [(m) => carriedAt(m, 1, { path: "/home//x" }), /plain path/],
  "a written file's way up": [(m) => m.written?.paths.push({ path: "/home/./x" }), /plain path/],
  "the root": [(m) => carriedAt(m, 0, { path: "/" }), /plain path/],
  "a name that is too long": [(m) => carriedAt(m, 1, { path: `/home/${"ö".repeat(128)}` }), /plain path/],
  "a kernel's file": [(m) => carriedAt(m, 6, { path: "/proc/sys/kernel/core_pattern" }), /is the kernel's/],
  "a device": [(m) => carriedAt(m, 6, { path: "/dev/null" }), /is the kernel's/],
  "a carried file twice": [(m) => carriedAt(m, 4, { path: "/home/link" }), /occurs twice/],
  "a file inside a link": [(m) => carriedAt(m, 4, { path: "/home/link/shadow" }), /no directory/],
  "a file inside a file": [(m) => carriedAt(m, 4, { path: "/home/again/x" }), /no directory/],
  "a file inside what is absent": [(m) => carriedAt(m, 6, { path: "/home/removed/x" }), /no directory/],
  "a link that something was put into before": [
    (m) => carriedAt(m, 6, { path: "/home", type: "symlink", target: "/etc" }),
    /twice/,
  ],
  "a parent that is a link and comes later": [
    (m) => {
      m.carriedFiles?.shift();
      carriedAt(m, 2, { path: "/home" });
    },
    /something is in it/,
  ],
  "a link to what is none": [(m) => carriedAt(m, 2, { linkTo: "/home/link" }), /no such file/],
  "a link to itself": [(m) => carriedAt(m, 2, { linkTo: "/home/again" }), /no such file/],
  "a link with other content": [
    (m) => carriedAt(m, 2, { name: `files/${"a".repeat(64)}`, sizeBytes: 8 }),
    /no such file/,
  ],
  "a carried file of another size": [(m) => carriedAt(m, 1, { sizeBytes: 6 }), /has 6 bytes, its content 5/],
  "a carried file without content": [(m) => carriedAt(m, 1, { name: `files/${"e".repeat(64)}` }), /is missing/],
  "content outside the image": [(m) => carriedAt(m, 1, { name: "files/../../x" }), /carriedFiles\.1/],
  "a mode that is none": [(m) => carriedAt(m, 1, { mode: 0o100644 }), /carriedFiles\.1/],
  "an owner that is none": [(m) => carriedAt(m, 1, { uid: 2 ** 32 }), /carriedFiles\.1/],
  "an attribute of the overlay": [
    (m) => carriedAt(m, 2, { xattrs: [["user.overlay.redirect", Buffer.from("/etc")]] }),
    /carriedFiles\.2/,
  ],
  "an attribute of the kernel": [
    (m) => carriedAt(m, 2, { xattrs: [["security.capability", Buffer.alloc(20)]] }),
    /carriedFiles\.2/,
  ],
  "a link to nothing": [(m) => carriedAt(m, 3, { target: "" }), /carriedFiles\.3/],
  "a device node": [(m) => carriedAt(m, 4, { type: "device" }), /carriedFiles\.4/],
  "a part twice": [(m) => m.parts.push({ ...(m.parts[1] as Manifest["parts"][number]) }), /part occurs twice/],
  "a relative path": [(m) => Object.assign(m.files[0] as object, { path: "bin/work" }), /files\.0/],
  "a path with a NUL": [(m) => Object.assign(m.files[0] as object, { path: "/bin\0" }), /files\.0/],
  "a socket without its pair": [(m) => Object.assign(m.handles[4] as object, { object: undefined }), /pair/],
  "two rules for a path": [(m) => isolated(m).hide.push("/data"), /has two rules/],
  "a rule that leads up": [(m) => isolated(m).hide.push("/data/../etc"), /not plain/],
  "a rule that is relative": [(m) => isolated(m).readOnly.push("data"), /isolate\.readOnly/],
  "another kind of rule": [(m) => Object.assign(isolated(m), { also: [] }), /isolate/],
  "a network that is none": [(m) => Object.assign(isolated(m), { network: "some" }), /network/],
  "rights that isolation takes": [
    (m) => {
      isolated(m);
      first(m).credentials.permitted = "0x200000";
    },
    /capabilities/,
  ],
  "a machine id that is none": [(m) => Object.assign(m.pod, { machineId: "../x" }), /machineId/],
  "an own directory elsewhere": [(m) => own(m).push({ place: "/etc", entries: [] }), /\/etc/],
  "an own file that leads up": [(m) => own(m)[0]?.entries.push({ ...ownEntry, path: "/../x" }), /plain path/],
  "an own file below a link": [
    (m) =>
      own(m)[0]?.entries.push(
        { ...ownEntry, type: "symlink", path: "/l", target: "/etc" },
        { ...ownEntry, path: "/l/x" },
      ),
    /lies in .l, which is no directory/,
  ],
  "an own file without content": [(m) => own(m)[0]?.entries.push({ ...ownFile, path: "/f" }), /missing/],
  "another name of nothing": [
    (m) => own(m)[0]?.entries.push({ ...ownFile, name: m.parts[1]?.name ?? "", path: "/f", linkTo: "/etc/passwd" }),
    /no such file/,
  ],
  "an own file that is not there": [(m) => own(m)[0]?.entries.push({ type: "absent", path: "/f" }), /nobody has/],
  "a port that is none": [
    (m) => Object.assign(m.handles[5] as object, { local: { address: "", port: 65536 } }),
    /handles\.5/,
  ],
  "a kind of tomorrow": [(m) => Object.assign(m.handles[2] as object, { kind: "hologram" }), /handles\.2/],
  "a name with a slash": [(m) => Object.assign(m.pod, { name: "../x" }), /pod\.name/],
};

function first(m: Manifest) {
  const [p] = m.processes;
  if (p === undefined || !isLiving(p)) throw new Error("the first process lives");
  return p;
}

t.test("each mistake is named", async (t) => {
  for (const [what, [make, text]] of Object.entries(mistakes)) {
    const manifest = goodManifest();
    make(manifest);
    const error = refusal(stringifyManifest(manifest));
    t.match(error, { name: "VirtError", code: "ERR_BAD_VALUE", message: text }, what);
  }
});

t.test("what is no manifest", async (t) => {
  for (const text of ["", "{", "null", "[]", "7", '"x"', "{}", '{"format":"tar"}', "[".repeat(200_000)])
    t.match(refusal(text), { name: "VirtError", code: "ERR_BAD_VALUE" }, text.slice(0, 20));
  const newer = goodText().replace('"formatVersion":1', '"formatVersion":2');
  t.match(refusal(newer), { code: "ERR_IMAGE_VERSION", message: /version 2 .*0\.1\.0/ });
});

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type Holder = Json[] | { [key: string]: Json };

/** Every place in a document: what holds it, and under which key. */
function places(holder: Holder, out: [Holder, string][] = []): [Holder, string][] {
  for (const key of Object.keys(holder)) {
    out.push([holder, key]);
    const value = (holder as Record<string, Json>)[key];
    if (typeof value === "object" && value !== null) places(value as Holder, out);
  }
  return out;
}

const strange: Json[] = [
  ...[-1, 0, 1, 0.5, 2 ** 31, 2 ** 32, 2 ** 47, 2 ** 53, 1e300, -(2 ** 53)],
  ...["", "0x0", "-1", "\0", "/", "..", "../../etc/passwd", "__proto__", "constructor", "x".repeat(5000)],
  ...[null, true, false, [], {}, [[[]]], { base64: "AAAA" }, { base64: 7 }, { base64: "AAAA", more: 1 }],
];

function mutate(random: Random, document: Holder): void {
  const [holder, key] = random.pick(places(document));
  const at = holder as Record<string, Json>;
  switch (random.below(8)) {
    case 0:
      delete at[key];
      break;
    case 1:
      if (Array.isArray(holder)) holder.splice(Number(key), 1);
      break;
    case 2:
      // Not where a change before this one has put something else in place of its constructor, by which splice() goes.
      if (Array.isArray(holder) && !Object.hasOwn(holder, "constructor"))
        holder.splice(random.below(holder.length + 1), 0, structuredClone(at[key] as Json));
      break;
    case 3: {
      const [from, name] = random.pick(places(document)); // something from elsewhere
      at[key] = structuredClone((from as Record<string, Json>)[name] as Json);
      break;
    }
    case 4: {
      const names = ["__proto__", "constructor", "toString", "hasOwnProperty", "unheard_of"];
      Object.defineProperty(at, random.pick(names), {
        value: structuredClone(random.pick(strange)),
        enumerable: true,
        configurable: true,
        writable: true,
      });
      break;
    }
    case 5:
      if (typeof at[key] === "number") at[key] = -(at[key] as number);
      break;
    case 6:
      if (typeof at[key] === "number") at[key] = (at[key] as number) + random.pick([-1, 1, 4096, -4096, 2 ** 40]);
      break;
    default:
      at[key] = structuredClone(random.pick(strange));
  }
}

t.test("changed at random", async (t) => {
  const original = goodText();
  let taken = 0;
  let refused = 0;
  for (const seed of seeds(6000)) {
    const random = new Random(seed);
    const document = JSON.parse(original) as Holder;
    for (let n = 1 + random.below(3); n > 0; n--) mutate(random, document);
    const start = performance.now();
    const error = refusal(JSON.stringify(document));
    if (error === undefined) taken++;
    else refused++;
    const shown = `VIRT_RUN_SEED=${seed}: ${error?.code} ${error?.message}`;
    if (error && (error.name !== "VirtError" || !["ERR_BAD_VALUE", "ERR_IMAGE_VERSION"].includes(error.code ?? "")))
      throw new Error(`not one clear error, ${shown}`, { cause: error });
    if (error && (/\p{Cc}/u.test(error.message) || error.message.length > 300)) throw new Error(`not clear, ${shown}`);
    if (performance.now() - start > 5000) throw new Error(`it takes long, ${shown}`);
    if (({} as Record<string, unknown>)["more"] !== undefined) throw new Error(`all objects were changed, ${shown}`);
  }
  t.ok(
    process.env["VIRT_RUN_SEED"] !== undefined || (taken > 0 && refused > taken),
    `${taken} taken, ${refused} refused`,
  );
});

t.test("bytes changed at random", async (t) => {
  const original = Buffer.from(goodText());
  for (const seed of seeds(3000)) {
    const random = new Random(seed);
    const bytes = Buffer.from(original);
    for (let n = 1 + random.below(4); n > 0; n--) bytes[random.below(bytes.length)] = random.below(256);
    const error = refusal(bytes.subarray(0, random.chance(0.2) ? random.below(bytes.length) : undefined).toString());
    if (error && error.name !== "VirtError") throw new Error(`VIRT_RUN_SEED=${seed}`, { cause: error });
  }
  t.pass();
});
