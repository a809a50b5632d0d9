/**
 * Ways to the other end of a move: targets as they are written, unix sockets, ssh against a server of our own, and what
 * `virt-run receive` does with its streams.
 */
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { userInfo } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { openTransport, parseTarget, showTarget, type Target, type Transport } from "../../src/move/transport/index.js";
import { explainSsh, sshWords } from "../../src/move/transport/ssh.js";
import { freePort, isRoot, leaveNothing, run } from "../support/apps.js";
import { type Running, running, virtRun } from "../support/cli.js";
import { sandbox } from "../support/env.js";
import { needs } from "../support/packages.js";
import { until } from "../support/pods.js";
import { echoes, keepsNoSockets, readAll, writeAll } from "../support/transport.js";

leaveNothing(t);

t.test("targets", async (t) => {
  const good: [string, Target][] = [
    ["ssh://b", { kind: "ssh", host: "b" }],
    ["ssh://b/", { kind: "ssh", host: "b" }],
    ["ssh://ann@b.example:2222", { kind: "ssh", user: "ann", host: "b.example", port: 2222 }],
    ["ssh://ann@site@b", { kind: "ssh", user: "ann@site", host: "b" }],
    ["ssh://[fd00::1]:22", { kind: "ssh", host: "fd00::1", port: 22 }],
    ["b:", { kind: "ssh", host: "b" }],
    ["ann@10.0.0.2:", { kind: "ssh", user: "ann", host: "10.0.0.2" }],
    ["ann@[fd00::1]:", { kind: "ssh", user: "ann", host: "fd00::1" }],
    ["tls://b", { kind: "tls", host: "b", port: 7420 }],
    ["tls://b:7000", { kind: "tls", host: "b", port: 7000 }],
    ["tls://[::1]:7000", { kind: "tls", host: "::1", port: 7000 }],
    ["unix:/run/x", { kind: "unix", path: "/run/x" }],
    ["unix:x", { kind: "unix", path: "x" }],
  ];
  for (const [text, target] of good) {
    t.same(parseTarget(text), target, text);
    t.same(parseTarget(showTarget(target)), target, `${text} and back`);
  }
  const bad = [
    ...["", "b", "/b", "b:/path", "b:22", "fd00::1:", "[fd00::1]", "[fd00::1]:22", "ssh://", "ssh://:22", "ssh://@b"],
    ...["ssh://b:0", "ssh://b:65536", "ssh://b:x", "ssh://b/path", "ssh://-oProxyCommand=x", "-oProxyCommand=x:"],
    ...[
      "ssh://-l@b",
      "ssh://a b",
      "ssh://a$(b)@c",
      "ssh://a;b@c",
      "ssh://b;c",
      "ssh://b\n",
      "ssh://[b]",
      "ssh://[fd00::1",
    ],
    ...[
      "tls://",
      "tls://ann@b",
      "tls://b:0",
      "tls://b/path",
      "http://b",
      "unix:",
      `unix:${"x".repeat(108)}`,
      "unix:a\0b",
    ],
  ];
  for (const text of bad) t.throws(() => parseTarget(text), { code: "ERR_USAGE" }, JSON.stringify(text));
});

t.test("what ssh is told", async (t) => {
  const words = sshWords({ kind: "ssh", host: "b", user: "ann", port: 7 }, "virt-run", true);
  t.same(words.slice(-7), ["-p", "7", "-l", "ann", "--", "b", "virt-run receive"]);
  t.notOk(words.includes("BatchMode=yes"), "on a terminal it may ask");
  t.ok(sshWords({ kind: "ssh", host: "b" }, "virt-run", false).includes("BatchMode=yes"), "otherwise it must not");
});

t.test("what ssh says", async (t) => {
  const cases: [number | null, string, string | undefined][] = [
    [0, "a banner", undefined],
    [255, "ssh: connect to host b port 22: Connection refused\r\n", "ERR_UNREACHABLE"],
    [255, "ssh: connect to host b port 22: Connection timed out", "ERR_UNREACHABLE"],
    [255, "ssh: Could not resolve hostname b: Name or service not known", "ERR_UNREACHABLE"],
    [255, "ann@b: Permission denied (publickey).", "ERR_AUTHENTICATION"],
    [255, "Received disconnect from b: Too many authentication failures", "ERR_AUTHENTICATION"],
    [255, "Host key verification failed.", "ERR_HOST_KEY"],
    [255, "client_loop: send disconnect: Broken pipe", "ERR_TRANSPORT"],
    [127, "bash: line 1: virt-run: command not found", "ERR_REMOTE_MISSING"],
    [127, "", "ERR_REMOTE_MISSING"],
    [126, "bash: virt-run: Permission denied", "ERR_REMOTE_MISSING"],
    [1, "virt-run: Command not found.", "ERR_REMOTE_MISSING"],
    [127, "virt-run: receive: not found (ERR_NOT_FOUND)\n  there is no such program", "ERR_REMOTE_VERSION"],
    [1, "virt-run: no space there (ERR_X)", "ERR_TRANSPORT"],
    [null, "", "ERR_TRANSPORT"],
  ];
  for (const [code, said, expected] of cases) {
    const e = explainSsh(
      { code, signal: code === null ? "SIGKILL" : null, said },
      { kind: "ssh", host: "b" },
      "virt-run",
    );
    t.equal(e?.code, expected, `${code} ${said}`);
    if (e) t.notMatch(e.message, /[\r\n]/, "one line");
  }
});

/** A unix server that treats each connection so. */
async function serveUnix(t: Test, name: string, treat: (socket: Socket) => void): Promise<string> {
  const path = join(sandbox, name);
  const server = createServer({ allowHalfOpen: true }, treat);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.teardown(() => new Promise((resolve) => server.close(resolve)));
  return path;
}

t.test("unix: there and back, ends one by one", async (t) => {
  const path = await serveUnix(t, "echo", (socket) => socket.pipe(socket));
  await keepsNoSockets(t, async () => echoes(t, await openTransport(`unix:${path}`)));
});

t.test("unix: what nobody takes is not read either", async (t) => {
  let written = 0;
  const path = await serveUnix(t, "flood", (socket) => {
    const more = () => {
      while (!socket.destroyed && socket.write(Buffer.alloc(1 << 16), () => (written += 1 << 16)));
    };
    socket.on("drain", more).on("error", () => {});
    more();
  });
  const transport = await openTransport(`unix:${path}`);
  let before = -1;
  // It stands still when all buffers on the way are full.
  await until("the flood to stand still", async () => {
    const still = written > 0 && written === before;
    before = written;
    await new Promise((resolve) => setTimeout(resolve, 100));
    return still;
  });
  t.ok(written < 16 << 20, `${written} bytes were taken`);
  await transport.close();
  t.equal(await transport.failure, undefined, "its end on request is in order");
});

t.test("unix: a cut is an end, and nobody there is an error", async (t) => {
  const path = await serveUnix(t, "cut", (socket) => socket.once("data", () => socket.destroy()));
  const transport = await openTransport(`unix:${path}`);
  await writeAll(transport.writeFd, Buffer.from("x"));
  t.equal((await readAll(transport.readFd)).length, 0);
  await transport.close();
  await transport.close();
  await t.rejects(openTransport(`unix:${join(sandbox, "nobody")}`), { code: "ERR_UNREACHABLE" });
  await t.rejects(openTransport(`unix:${path}`, { signal: AbortSignal.abort() }), { code: "ERR_ABORTED" });
});

/** A server of our own, and an `ssh` that knows it, with a key that is let in or not. */
async function sshServer(
  t: Test,
): Promise<{ target: string; use(key: "user" | "stranger", ...options: string[]): void }> {
  const directory = join(sandbox, "ssh");
  mkdirSync(directory, { mode: 0o700 });
  const inside = (name: string) => join(directory, name);
  for (const key of ["host", "user", "stranger"])
    run(needs("ssh-keygen"), ["-q", "-t", "ed25519", "-N", "", "-f", inside(key)]);
  run("/bin/cp", [inside("user.pub"), inside("authorized")]);
  const port = await freePort();
  writeFileSync(
    inside("config"),
    `ListenAddress 127.0.0.1\nPort ${port}\nHostKey ${inside("host")}\nAuthorizedKeysFile ${inside("authorized")}
     StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nKbdInteractiveAuthentication no\nPasswordAuthentication no\n`,
  );
  // Root's would have a directory of its own in /run: in a mount namespace that is gone with it.
  const own = 'mount -t tmpfs none /run && mkdir /run/sshd && exec "$@"';
  const before = isRoot ? [needs("unshare"), "--mount", needs("bash"), "-c", own, "bash"] : [];
  const [command, ...words] = [...before, needs("sshd"), "-D", "-e", "-f", inside("config")];
  const server: Running = running(command as string, words);
  t.teardown(async () => {
    server.child.kill("SIGTERM");
    await server.ended;
  });
  await until({ toString: () => server.said.err }, () => server.said.err.includes("Server listening"));
  t.teardown(() => {
    delete process.env["VIRT_RUN_SSH"];
  });
  return {
    target: `ssh://${userInfo().username}@127.0.0.1:${port}`,
    use(key, ...options) {
      const known = ["StrictHostKeyChecking=no", `UserKnownHostsFile=${inside("known")}`, "LogLevel=ERROR"];
      const all = [...options, ...known, "IdentitiesOnly=yes"].map((o) => `-o ${o}`).join(" ");
      writeFileSync(inside("client"), `#!/bin/sh\nexec ${needs("ssh")} -F none -i ${inside(key)} ${all} "$@"\n`);
      chmodSync(inside("client"), 0o755);
      process.env["VIRT_RUN_SSH"] = inside("client");
    },
  };
}

/** A command that stands for virt-run there. */
function stand(name: string, script: string): { remoteCommand: string } {
  const path = join(sandbox, name);
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  return { remoteCommand: path };
}

/** What is said of a transport that ends before anything has come. */
async function failureOf(t: Test, transport: Transport, code: string, what: RegExp): Promise<void> {
  t.equal((await readAll(transport.readFd)).length, 0, `${code}: nothing comes`);
  const failure = await transport.failure;
  t.match(failure, { code, message: what, hint: /\S/ }, `${code}: ${failure?.message}`);
  await transport.close();
}

t.test("ssh", async (t) => {
  const { target, use } = await sshServer(t);
  use("user");
  await t.test("there and back, ends one by one", async (t) => {
    await keepsNoSockets(t, async () => echoes(t, await openTransport(target, stand("echo", "exec cat"))));
  });
  await t.test("the command there is virt-run receive, and hears who asks", async (t) => {
    const told = join(sandbox, "told");
    const transport = await openTransport(target, stand("teller", `echo "$*" "$SSH_CONNECTION" > ${told}`));
    await readAll(transport.readFd);
    t.match(readFileSync(told, "utf8"), /^receive 127\.0\.0\.1 \d+ 127\.0\.0\.1 \d+\n$/);
    t.equal(await transport.failure, undefined);
    await transport.close();
    rmSync(told);
    process.env["VIRT_RUN_REMOTE_COMMAND"] = stand("teller", `echo env "$*" > ${told}`).remoteCommand;
    const again = await openTransport(target);
    await readAll(again.readFd);
    t.equal(readFileSync(told, "utf8"), "env receive\n", "VIRT_RUN_REMOTE_COMMAND");
    delete process.env["VIRT_RUN_REMOTE_COMMAND"];
    await again.close();
  });
  await t.test("what is not there, or is too old, or fails", async (t) => {
    const open = (options: { remoteCommand: string }) => openTransport(target, options);
    await failureOf(t, await open({ remoteCommand: "/no/such/virt-run" }), "ERR_REMOTE_MISSING", /no\/such\/virt-run/);
    const old = 'echo "virt-run: $1: not found (ERR_NOT_FOUND)" >&2; exit 127';
    await failureOf(t, await open(stand("old", old)), "ERR_REMOTE_VERSION", /too old/);
    const broken = stand("broken", "head -c 5000 /dev/zero | tr '\\0' x >&2; echo the-end >&2; exit 3");
    await failureOf(t, await open(broken), "ERR_TRANSPORT", /ended with 3.*x{1900}the-end$/);
  });
  await t.test("a peer that never ends is left", async (t) => {
    const forever = stand("forever", "while echo x; do sleep 0.05; done");
    const transport = await openTransport(target, forever);
    await transport.close();
    t.equal(await transport.failure, undefined, "its end on request is in order");
  });
  await t.test("an ssh that is killed is a failure", async (t) => {
    const transport = await openTransport(target, stand("killer", 'kill -KILL "$PPID"; exec cat'));
    await readAll(transport.readFd);
    t.equal((await transport.failure)?.code, "ERR_TRANSPORT");
    await transport.close();
  });
  await t.test("who is not let in", async (t) => {
    use("stranger");
    await failureOf(t, await openTransport(target), "ERR_AUTHENTICATION", /Permission denied/);
  });
  await t.test("a host whose key is not known", async (t) => {
    use("user", "StrictHostKeyChecking=yes", "UserKnownHostsFile=/dev/null");
    await failureOf(t, await openTransport(target), "ERR_HOST_KEY", /Host key verification failed/);
  });
  await t.test("a host that is not there", async (t) => {
    const nobody = target.replace(/\d+$/, String(await freePort()));
    await failureOf(t, await openTransport(nobody), "ERR_UNREACHABLE", /Connection refused/);
  });
  await t.test("no ssh here", async (t) => {
    process.env["VIRT_RUN_SSH"] = join(sandbox, "no-such-ssh");
    await keepsNoSockets(t, async () => {
      await t.rejects(openTransport(target), { code: "ERR_NOT_FOUND", hint: /VIRT_RUN_SSH/ });
    });
    process.env["VIRT_RUN_SSH"] = sandbox;
    await t.rejects(openTransport(target), { code: "ERR_NOT_EXECUTABLE" });
  });
});

t.test("virt-run receive", async (t) => {
  const said = await virtRun(["receive"]);
  t.match(said, { code: 1, err: /ERR_MOVE_LOST/ });
  t.match(said.out, /^.{16}\{[^{}]*"type":"failed"[^{}]*\}$/s, "one frame, and nothing else on standard output");
});
