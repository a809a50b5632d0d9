/**
 * A manifest that is right, with one of most things in it, made up: for tests that change it.
 */
import { formatName, formatVersion } from "../../src/image/format.js";
import { type Manifest, stringifyManifest } from "../../src/image/manifest.js";

const hash = (digit: string) => digit.repeat(64);
const common = (id: number) => ({ id, flags: 0o100002 });
const mm = {
  startCode: 4096,
  endCode: 8192,
  startData: 8192,
  endData: 12288,
  startBrk: 12288,
  brk: 16384,
  startStack: 2 ** 46,
  argStart: 2 ** 46,
  argEnd: 2 ** 46 + 10,
  envStart: 2 ** 46 + 10,
  envEnd: 2 ** 46 + 20,
  auxv: Buffer.alloc(32),
};

const thread = (tid: number) => ({
  tid,
  comm: Buffer.from("work"),
  registers: Buffer.alloc(216),
  xstate: Buffer.alloc(832),
  signalMask: "0x0",
  pending: [Buffer.alloc(128)],
  altStack: { address: 0, size: 0, flags: 2 },
  rseq: { address: 4096, size: 32, signature: 0x53053053 },
});

const attributes = (path: string) => ({ path, mode: 0o755, mtimeNs: "1700000000123456789", uid: 1000, gid: 1000 });

export function goodManifest(): Manifest {
  return {
    format: formatName,
    formatVersion,
    virtRun: "0.1.0",
    createdAt: "2026-01-01T00:00:00.000Z",
    kind: "detach",
    host: {
      name: "host",
      kernel: "6.1.0",
      arch: "x86_64",
      pageSizeBytes: 4096,
      cpu: { model: "a CPU", features: ["sse2", "avx"] },
    },
    pod: {
      id: "0123456789ab",
      name: "cache",
      command: ["/bin/work", "-v"],
      cwd: "/",
      stdio: "streams",
      labels: { tier: "test" },
      remaps: [{ from: "/mnt/data", to: "/data" }],
      user: { uid: 1000, gid: 1000, root: false },
      first: { pid: 2, ended: false, waitStatus: 0 },
    },
    clocks: { monotonicNs: "123456789", boottimeNs: "123456789", realtimeNs: "1700000000000000000" },
    processes: [
      {
        pid: 2,
        ppid: 1,
        group: 2,
        session: 2,
        comm: Buffer.from("work"),
        credentials: {
          uid: [1000, 1000, 1000, 1000],
          gid: [1000, 1000, 1000, 1000],
          groups: [1000],
          inheritable: "0x0",
          permitted: "0x0",
          effective: "0x0",
          bounding: "0x1ffffffffff",
          ambient: "0x0",
        },
        cwd: "/",
        root: "/",
        exe: 0,
        limits: [["1024", "4096"]],
        umask: 0o22,
        mm,
        posixTimers: [{ id: 0, clock: 1, signal: 14, value: "0x1", notify: 0, valueNs: 5, intervalNs: 0 }],
        itimers: [{ valueUs: 0, intervalUs: 0 }],
        pending: [],
        signalActions: [{ signal: 10, handler: "0x401000", flags: "0x4000000", restorer: "0x401100", mask: "0x0" }],
        dumpable: 1,
        threads: [thread(2), thread(3)],
        mappings: [
          { start: 4096, end: 8192, protection: 5, kind: "file", file: 0, offset: 0 },
          { start: 8192, end: 16384, protection: 3, kind: "anonymous" },
          { start: 16384, end: 20480, protection: 3, kind: "memory", memory: 0, offset: 0, shared: true },
        ],
        fds: [
          [0, 0, false],
          [3, 1, true],
          [4, 2, false],
          [5, 3, false],
          [6, 4, false],
          [7, 5, false],
          [8, 6, false],
        ],
        locks: [{ kind: "posix", exclusive: true, start: 0, length: 10, fd: 3, handle: 1 }],
        pages: [
          [8192, 1, 0],
          [12288, 1, 1],
        ],
      },
      { pid: 4, ppid: 2, group: 2, session: 2, comm: Buffer.from("gone"), zombie: true, exitStatus: 256 },
    ],
    handles: [
      { ...common(0), kind: "launcher-stream", stream: 0 },
      { ...common(1), kind: "file", file: 1, position: 7 },
      { ...common(2), kind: "pipe", object: 0 },
      { ...common(3), kind: "epoll", items: [{ fd: 4, events: 1, data: "0x4", handle: 2 }] },
      {
        ...common(4),
        kind: "unix-socket",
        type: "stream",
        state: "connected",
        options: [[1, 7, Buffer.alloc(4)]],
        object: 1,
        end: "a",
        queue: [Buffer.from("waiting")],
      },
      {
        ...common(5),
        kind: "inet-socket",
        family: "ipv4",
        type: "tcp",
        state: "listening",
        options: [],
        local: { address: "127.0.0.1", port: 7000 },
        backlog: 128,
      },
      { ...common(6), kind: "memfd", memory: 0, position: 0 },
    ],
    objects: [
      { id: 0, kind: "pipe", sizeBytes: 65536, content: Buffer.from("in the pipe") },
      { id: 1, kind: "unix-pair", type: "stream" },
    ],
    files: [
      { id: 0, path: "/bin/work", sizeBytes: 1000, mode: 0o755, mtimeNs: "1700000000000000000" },
      { id: 1, path: "/tmp/held", sizeBytes: 8, mode: 0o600, mtimeNs: "1700000000000000000", unlinked: true },
    ],
    memory: [{ id: 0, kind: "memfd", name: "mem", sizeBytes: 4096, pages: [[0, 1, 2]] }],
    vdso: Buffer.alloc(64),
    xstate: [[0, 512, 0]],
    pagesInPart: [3],
    carried: [{ file: 1, name: `files/${hash("a")}`, sizeBytes: 8 }],
    carriedFiles: [
      { ...attributes("/home"), type: "directory" },
      { ...attributes("/home/a b\n☃"), type: "file", name: `files/${hash("d")}`, sizeBytes: 5, why: "written" },
      {
        ...attributes("/home/again"),
        type: "file",
        name: `files/${hash("d")}`,
        sizeBytes: 5,
        why: "written",
        linkTo: "/home/a b\n☃",
        xattrs: [["user.x", Buffer.from([0, 255])]],
      },
      { ...attributes("/home/link"), type: "symlink", target: "../etc" },
      { ...attributes("/home/pipe"), type: "fifo" },
      { path: "/home/removed", type: "absent" },
      {
        ...attributes("/lib/lib.so"),
        type: "file",
        name: `files/${hash("a")}`,
        sizeBytes: 8,
        why: "used",
        sparse: true,
      },
    ],
    written: {
      paths: [
        { path: "/home/a b\n☃", follow: true },
        { path: "/home", tree: true },
      ],
      incomplete: true,
    },
    parts: [
      { name: "pages.sum", sizeBytes: 24, sha256: hash("b") },
      { name: `files/${hash("a")}`, sizeBytes: 8, sha256: hash("a") },
      { name: `files/${hash("d")}`, sizeBytes: 5, sha256: hash("d") },
      { name: "log", sizeBytes: 5, sha256: hash("c") },
    ],
    accepted: [],
  };
}

export const goodText = (): string => stringifyManifest(goodManifest());
