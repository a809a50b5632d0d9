/**
 * Rules on programs nobody here wrote: what they refuse, send elsewhere and translate, and what the program is told. They
 * hold for every kind of binary, and without a supervisor.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, createConnection } from "node:net";
import { basename, join } from "node:path";
import t from "tap";
import { connect, type Effect, type LaunchOptions, launch, type Pod, type Rule } from "virt-run";
import { freePort, leaveNothing } from "./support/apps.js";
import { json, virtRun } from "./support/cli.js";
import { sandbox } from "./support/env.js";
import { needs } from "./support/packages.js";
import { cycle, logged } from "./support/pods.js";

leaveNothing(t);

const env = { PATH: "/usr/bin:/bin", HOME: sandbox, LC_ALL: "C.UTF-8" };
let directories = 0;

function directory(): string {
  const path = join(sandbox, `rules-${directories++}`);
  mkdirSync(path);
  return path;
}

/** Runs a line of shell to its end under rules; gives what it said, its exit code and its effects. */
async function run(script: string, rules: Rule[], options: LaunchOptions = {}) {
  const pod = await launch("/bin/sh", ["-c", `exec 2>&1; ${script}`], {
    env,
    stdio: "log",
    record: "default",
    rules,
    ...options,
  });
  const exit = await pod.ended();
  const effects = [...pod.effects()];
  const out = pod.logs().toString();
  pod.remove();
  return { code: exit.code, out, effects };
}

const python = (code: string) => `python3 -c '${code}'`;

t.test("calls of every kind are refused with the error that the rule names", async (t) => {
  needs("python3");
  const cwd = directory();
  writeFileSync(join(cwd, "file"), "text");
  symlinkSync("file", join(cwd, "alias"));
  const refused: [string, Rule, RegExp][] = [
    ["cat file", { on: "open", path: cwd, deny: "EACCES" }, /Permission denied/],
    ["cat alias", { on: "open", path: join(cwd, "file"), deny: "EIO" }, /Input\/output error/],
    ["echo more >> file", { on: "open", access: "write", path: join(cwd, "*"), deny: "EROFS" }, /Read-only/i],
    ["rm -f file", { on: "unlink", path: join(cwd, "f*"), deny: "EPERM" }, /not permitted/],
    ["mv file other", { on: "rename", path: join(cwd, "other"), deny: "EDQUOT" }, /quota/i],
    ["mkdir new", { on: "mkdir", path: "/**/new", deny: "ENOSPC" }, /No space/],
    ["ln -s file l", { on: "link", path: cwd, deny: "EMLINK" }, /Too many links/],
    ["chmod 600 file", { on: "chmod", path: cwd, deny: "EPERM" }, /not permitted/],
    ["chown $(id -u) file", { on: "chown", path: cwd, deny: "EPERM" }, /not permitted/],
    ["truncate -s 0 file", { on: ["truncate", "open"], access: "write", path: cwd, deny: "EFBIG" }, /too large/],
    ["env ls", { on: "exec", path: "/usr/bin/ls", deny: "EACCES" }, /Permission denied/],
    ["stat file", { on: "stat", path: join(cwd, "file"), deny: "ENOENT" }, /No such file/],
    [python("import os; os.kill(os.getppid(), 0)"), { on: "kill", deny: "EPERM" }, /not permitted/],
    [
      python("import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"),
      { on: "socket", family: "netlink", deny: "EAFNOSUPPORT" },
      /Address family not supported/,
    ],
    [
      python('import socket; socket.create_connection(("127.1.2.3", 9))'),
      { on: "connect", address: "127.1.0.0/16", port: "1-10", deny: "EHOSTUNREACH" },
      /No route to host/,
    ],
    [
      python('import socket; s = socket.socket(socket.AF_INET6); s.bind(("::1", 0))'),
      { on: "bind", address: "::/0", deny: "EADDRNOTAVAIL" },
      /assign requested address/,
    ],
    [
      python('import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(b"x", ("127.0.0.1", 9))'),
      { on: "sendto", deny: "ENETDOWN" },
      /Network is down/,
    ],
  ];
  for (const [script, rule, message] of refused) {
    const { code, out, effects } = await run(`${script}; true`, [rule], { cwd });
    t.match(out, message, script);
    t.equal(code, 0);
    const errno = rule.deny as string;
    t.ok(
      effects.some((e) => e.result === errno),
      `the journal has ${errno}`,
    );
    t.notOk(
      effects.some((e) => e.result === "ok" && "path" in e && basename(e.path) === "new"),
      "and nothing else",
    );
  }
  t.equal(readFileSync(join(cwd, "file"), "utf8"), "text", "nothing of it has happened");
});

t.test("the first rule that matches decides; program and path are patterns", async (t) => {
  const cwd = directory();
  writeFileSync(join(cwd, "a.txt"), "a\n");
  writeFileSync(join(cwd, "b.key"), "b\n");
  const rules: Rule[] = [
    { on: "open", path: join(cwd, "**.key"), program: "/usr/bin/tail", pass: true },
    { on: "open", path: join(cwd, "**.key"), deny: "EACCES" },
  ];
  for (const record of ["default", "none"] as const) {
    // The shell's child is asked about as the shell, before it executes another program.
    const script = "cat a.txt; cat b.key; tail -n1 b.key; (: < a.txt; exec tail -n1 b.key)";
    const { out } = await run(script, rules, { cwd, record });
    t.match(out, /^a\n.*b.key: Permission denied\nb\nb\n$/, `recording ${record}`);
  }
});

t.test("static programs and Go's are no exception", async (t) => {
  const cwd = directory();
  writeFileSync(join(cwd, "file"), "text");
  writeFileSync(
    join(cwd, "s.c"),
    '#include <fcntl.h>\n#include <stdio.h>\nint main(void) { if (open("file", 0) < 0) perror("static"); return 0; }\n',
  );
  execFileSync(needs("gcc"), ["-static", "-o", join(cwd, "s"), join(cwd, "s.c")]);
  writeFileSync(
    join(cwd, "g.go"),
    'package main\nimport ("fmt"; "os")\nfunc main() { _, err := os.ReadFile("file"); fmt.Println(err) }\n',
  );
  execFileSync(needs("go"), ["build", "-o", join(cwd, "g"), join(cwd, "g.go")], {
    env: { ...env, GOCACHE: join(cwd, "cache"), GO111MODULE: "off" },
  });
  const { out } = await run("./s; ./g", [{ on: "open", path: join(cwd, "file"), deny: "EACCES" }], { cwd });
  t.match(out, /static: Permission denied\nopen file: permission denied/);
});

t.test("files are opened, made and changed elsewhere, as the program would", async (t) => {
  const cwd = directory();
  mkdirSync(join(cwd, "real/sub"), { recursive: true });
  writeFileSync(join(cwd, "real/sub/in"), "inside\n");
  const rules: Rule[] = [
    { on: ["open", "mkdir", "unlink", "chmod", "truncate"], path: join(cwd, "seen"), redirect: join(cwd, "real") },
  ];
  const script =
    "umask 027; cat seen/sub/in seen/none; echo new > seen/out; echo more >> seen/out; mkdir seen/dir; echo gone > seen/tmp; rm -f seen/tmp";
  const { out, effects } = await run(script, rules, { cwd });
  t.match(out.replace(/rm: .*\n/, ""), /^inside\ncat: seen.none: No such file.*\n$/);
  t.equal(readFileSync(join(cwd, "real/out"), "utf8"), "new\nmore\n");
  t.equal(statSync(join(cwd, "real/out")).mode & 0o777, 0o640, "the caller's umask");
  t.equal(statSync(join(cwd, "real/dir")).mode & 0o777, 0o750);
  const told = (name: string) =>
    effects.flatMap((e) =>
      "path" in e && e.path === join(cwd, "real", name) && e.asked === join(cwd, "seen", name) ? [e.kind] : [],
    );
  t.strictSame(told("out"), ["create", "write"], "the journal says both");
  t.strictSame(told("none"), [], "what was to be read is no effect");
});

const web = createServer((request, response) => response.end(`${request.headers.host} asked\n`));
t.before(() => new Promise<void>((resolve) => web.listen(0, "127.0.0.1", resolve)));
t.teardown(() => web.close());

t.test("connections go elsewhere, and the program is told whom it asked for", async (t) => {
  needs("python3");
  const { port } = web.address() as AddressInfo;
  const rules: Rule[] = [{ on: "connect", address: "192.0.2.0/24", port: 80, redirect: { host: "127.0.0.1", port } }];
  const curl = await run(`${needs("curl")} -s http://192.0.2.7/ -w '%{remote_ip} %{remote_port}\\n'`, rules);
  t.equal(curl.out, "192.0.2.7 asked\n192.0.2.7 80\n", "one that does not wait");
  t.ok(
    curl.effects.some((e) => e.kind === "connect" && "port" in e && e.port === port && e.asked === "192.0.2.7 port 80"),
  );
  const blocking = await run(
    python('import socket; s = socket.create_connection(("192.0.2.9", 80)); print(s.getpeername())'),
    rules,
  );
  t.equal(blocking.out, "('192.0.2.9', 80)\n", "one that waits");
  const six = await run(
    python(
      'import socket; s = socket.socket(socket.AF_INET6); s.connect(("::ffff:192.0.2.9", 80)); print(s.getpeername()[:2])',
    ),
    rules,
  );
  t.equal(six.out, "('::ffff:192.0.2.9', 80)\n", "IPv4 in IPv6's clothes");
  const refused = await run(python('import socket; s = socket.socket(); print(s.connect_ex(("192.0.2.9", 80)))'), [
    { on: "connect", address: "192.0.2.9", redirect: { host: "127.0.0.1", port: 1 } },
  ]);
  t.equal(refused.out, "111\n", "the other's error");
});

t.test("datagrams go elsewhere, from sendto and sendmsg", async (t) => {
  needs("python3");
  const receive =
    'import socket; r = socket.socket(type=socket.SOCK_DGRAM); r.bind(("127.0.0.1", 0)); p = r.getsockname()[1]; s = socket.socket(type=socket.SOCK_DGRAM)';
  const port = await freePort();
  const code = `${receive}
r.close(); r = socket.socket(type=socket.SOCK_DGRAM); r.bind(("127.0.0.1", ${port}))
print(s.sendto(b"one", ("192.0.2.1", 53))); print(r.recv(9))
print(s.sendmsg([b"tw", b"o"], [], 0, ("192.0.2.1", 53))); print(r.recv(9))`;
  const { out } = await run(python(code), [
    { on: "sendto", address: "192.0.2.1", port: 53, redirect: { host: "127.0.0.1", port } },
  ]);
  t.equal(out, "3\nb'one'\n3\nb'two'\n");
});

/** What a server on 127.0.0.1 says of itself: one line per connection. */
function say(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = "";
    createConnection({ port, host: "127.0.0.1" })
      .on("data", (bytes) => {
        said += bytes;
      })
      .on("end", () => resolve(said))
      .on("error", reject);
  });
}

const server = (port: number) => `
import os, socket, sys, threading
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", ${port}))
s.listen()
print("READY", flush=True)
while True:
    c, _ = s.accept()
    me = socket.create_connection(("127.0.0.1", s.getsockname()[1])) if c.getpeername()[1] and not os.environ.get("INNER") else None
    os.environ["INNER"] = "1"
    c.sendall(("%d %d %s" % (s.getsockname()[1], c.getsockname()[1], me and me.getpeername()[1])).encode())
    c.close()
    if me:
        s.accept()[0].close()
        me.close()
    os.environ.pop("INNER")
`;

t.test("a remapped port is the old one inside and the new one outside, also after reattaches", async (t) => {
  needs("python3");
  const [inside, outside, second, third] = [await freePort(), await freePort(), await freePort(), await freePort()];
  let pod: Pod = await launch("python3", ["-c", server(inside)], {
    env,
    stdio: "log",
    remap: { port: { [inside]: outside } },
  });
  await logged(pod, "READY");
  const told = `${inside} ${inside} ${inside}`;
  t.equal(await say(outside), told);
  await t.rejects(say(inside), { code: "ECONNREFUSED" });
  t.match((await pod.inspect()).ports, { [inside]: outside });

  const image = await pod.detach();
  pod.remove({ force: true });
  const { reattach } = await import("virt-run");
  pod = await reattach(image, { stdio: "log", remap: { port: { [inside]: second } } });
  t.equal(await say(second), told, "it moved");
  await t.rejects(say(outside), { code: "ECONNREFUSED" });
  const again = await pod.detach();
  pod.remove({ force: true });
  const { out } = await virtRun(["reattach", "-d", "--remap", `port:${inside}=${third}`, again.path]);
  pod = await connect(out.trim());
  t.equal(await say(third), told, "and again, by the command line");
  await pod.destroy();
  pod.remove();
  image.remove();
  again.remove();
});

t.test("a pod that had no rules is given a port at reattach; addresses too", async (t) => {
  needs("python3");
  const [inside, outside] = [await freePort(), await freePort()];
  const pod = await launch("python3", ["-c", server(inside)], { env, stdio: "log" });
  await logged(pod, "READY");
  const image = await pod.detach();
  pod.remove({ force: true });
  const { reattach } = await import("virt-run");
  const again = await reattach(image, {
    stdio: "log",
    remap: { port: { [inside]: outside }, addr: { "127.0.0.1": "127.0.0.2" } },
  });
  await t.rejects(say(outside), { code: "ECONNREFUSED" }, "it listens on 127.0.0.2");
  const said = await new Promise<string>((resolve, reject) =>
    createConnection({ port: outside, host: "127.0.0.2" })
      .on("data", (b) => resolve(b.toString()))
      .on("error", reject),
  );
  t.equal(said, `${inside} ${inside} ${inside}`);
  await again.destroy();
  again.remove();
  image.remove();
});

t.test("rules change while the pod runs, as far as its filter covers them", async (t) => {
  const cwd = directory();
  writeFileSync(join(cwd, "file"), "text\n");
  const script = "while :; do cat file >/dev/null 2>said || mv said denied; sleep 0.02; done";
  const pod = await launch("/bin/sh", ["-c", script], { cwd, env, stdio: "log", cover: ["open"] });
  await t.rejects(pod.setRules([{ on: "kill", deny: "EPERM" }]), { code: "ERR_NOT_COVERED" });
  const file = join(cwd, "rules.json");
  writeFileSync(file, JSON.stringify({ rules: [{ on: "open", path: join(cwd, "file"), deny: "EACCES" }] }));
  t.match(await virtRun(["rules", pod.id, "--set", file]), { code: 0, out: /^1 .*"deny":"EACCES"/ });
  const { until } = await import("./support/pods.js");
  await until("the rule to hold", () => {
    try {
      return readFileSync(join(cwd, "denied"), "utf8").includes("Permission denied");
    } catch {
      return false;
    }
  });
  t.match((await json("rules", pod.id))["rules"], [{ on: "open", deny: "EACCES" }]);
  t.match((await json("inspect", pod.id))["rules"], [{ on: "open", deny: "EACCES" }]);
  const after = await cycle(await connect(pod.id));
  t.match((await after.inspect()).rules, [{ on: "open", deny: "EACCES" }], "an image keeps them");
  t.match(await virtRun(["rules", after.id, "--clear"]), { code: 0, out: "no rules\n" });
  await after.destroy();
  after.remove();
});

t.test("what is no rule is refused before anything starts, and the error says where", async (t) => {
  const wrong: [unknown, RegExp][] = [
    [{ on: "opne", deny: "EPERM" }, /rule 1: 'on' has 'opne'/],
    [{ on: "open" }, /exactly one of/],
    [{ on: "open", deny: "EPERM", pass: true }, /exactly one of/],
    [{ on: "open", deny: "EWHAT" }, /'deny' is the name of an error/],
    [{ deny: "EPERM" }, /'on' says which calls/],
    [{ on: "open", path: "relative", deny: "EPERM" }, /'path' is an absolute path/],
    [{ on: "open", colour: "red", deny: "EPERM" }, /'colour' is unknown/],
    [{ on: "connect", address: "10.0.0.0/40", deny: "EPERM" }, /no network/],
    [{ on: "connect", address: "ten", deny: "EPERM" }, /no IP address/],
    [{ on: "connect", port: "9-3", deny: "EPERM" }, /'port' is a port/],
    [{ on: "exec", redirect: "/bin/ls" }, /'redirect' gives another path to open/],
    [{ on: "unlink", redirect: { port: 3 } }, /'redirect' gives another address to bind/],
    [{ on: "bind", redirect: {} }, /'redirect' is a path, or/],
    [{ on: "unlink", access: "read", pass: true }, /'access' is about 'open'/],
    [{ on: "open", deny: "EPERM", timeoutMs: 3 }, /'timeoutMs' belongs to 'ask'/],
    [{ on: "open", ask: true, default: { deny: "no" } }, /'default' is the name of an error/],
    ["rule", /rule 1: it is an object/],
  ];
  for (const [rule, message] of wrong) {
    await t.rejects(launch("true", [], { rules: [rule as Rule] }), { code: "ERR_RULE", message });
  }
  await t.rejects(launch("true", [], { remap: { port: { 80: 99999 } } }), { code: "ERR_REMAP" });
  await t.rejects(launch("true", [], { remap: { port: { 80: 90, 81: 90 } } }), {
    code: "ERR_REMAP",
    message: /collide/,
  });
  await t.rejects(launch("true", [], { remap: { addr: { "10.0.0.1": "::1" } } }), { code: "ERR_REMAP" });
  await t.rejects(launch("true", [], { cover: ["opne" as "open"] }), {
    code: "ERR_RULE",
    message: /'cover' has 'opne'/,
  });
  await t.rejects(launch("true", [], { hooks: { opne: () => {} } as never }), {
    code: "ERR_RULE",
    message: /'hooks' has 'opne'/,
  });
  t.match(await virtRun(["run", "--cover", "opne", "true"]), { code: 125, err: /'cover' has 'opne'.*\(ERR_RULE\)/ });
  const file = join(directory(), "rules.json");
  writeFileSync(file, "[{]");
  t.match(await virtRun(["run", "--rule", file, "true"]), { code: 125, err: /rules.json: .*\(ERR_RULE\)/ });
  writeFileSync(file, "3");
  t.match(await virtRun(["run", "--rule", file, "true"]), { code: 125, err: /a list of rules is expected/ });
});

t.test("a 32-bit program is refused, not let through", async (t) => {
  const cwd = directory();
  // An ELF header for the 80386 and nothing else.
  const header = Buffer.alloc(128);
  header.write("\x7fELF\x01\x01\x01", "latin1");
  header.writeUInt16LE(2, 16);
  header.writeUInt16LE(3, 18);
  writeFileSync(join(cwd, "old"), header, { mode: 0o755 });
  const { out, effects } = await run(`${python('import os; os.execv("./old", ["old"])')}; echo went on`, [], { cwd });
  t.match(out, /Exec format error(.|\n)*went on/);
  t.match(
    effects.find((e: Effect) => e.result === "ENOEXEC"),
    { kind: "execute", path: join(cwd, "old") },
  );
});
