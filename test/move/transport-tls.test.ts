/**
 * The way over TLS: hosts know one another by key, since a person carried a code from one to the other; nobody else gets
 * through, whatever he shows.
 */
import { createHash, X509Certificate } from "node:crypto";
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { connect as connectTcp, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { type ConnectionOptions, connect, createServer as createTlsServer, type TLSSocket } from "node:tls";
import t, { type Test } from "tap";
import { enroll, offerEnrolment, withdrawEnrolment } from "../../src/move/transport/enroll.js";
import { loadIdentity } from "../../src/move/transport/identity.js";
import { openTransport } from "../../src/move/transport/index.js";
import { forgetPeer, loadPeers } from "../../src/move/transport/peers.js";
import { protocols, secureOptions } from "../../src/move/transport/tls.js";
import { leaveNothing, run } from "../support/apps.js";
import { virtRun, virtRunning } from "../support/cli.js";
import { sandbox } from "../support/env.js";
import { needs } from "../support/packages.js";
import { until } from "../support/pods.js";
import {
  echoes,
  keepsNoSockets,
  type OwnAgent,
  ownAgent,
  readAll,
  withConfiguration,
  writeAll,
} from "../support/transport.js";

leaveNothing(t);

let made = 0;

/** A configuration of its own: what a user on a host is. */
function newHost(): string {
  const directory = join(sandbox, `configuration-${made++}`);
  mkdirSync(directory);
  return directory;
}

const tls = (agent: { port: number }) => ({ kind: "tls", host: "127.0.0.1", port: agent.port }) as const;
const url = (agent: { port: number }) => `tls://127.0.0.1:${agent.port}`;

interface Pair {
  agent: OwnAgent;
  there: string;
  here: string;
}

/** An agent and a client that do not know each other. */
async function strangers(t: Test, options?: Record<string, unknown>): Promise<Pair> {
  const [there, here] = [newHost(), newHost()];
  return { agent: await ownAgent(t, there, options), there, here };
}

async function enrolled(t: Test, options?: Record<string, unknown>): Promise<Pair> {
  const pair = await strangers(t, options);
  const code = await withConfiguration(pair.there, () => offerEnrolment());
  await withConfiguration(pair.here, () => enroll(tls(pair.agent), code));
  return pair;
}

/** A connection that shows what it likes; resolves with what the agent says first, or how it refuses. */
function speak(agent: { port: number }, options: ConnectionOptions): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port: agent.port, rejectUnauthorized: false, ...options });
    socket.on("data", (bytes) => resolve(bytes.toString()));
    socket.on("error", (e: NodeJS.ErrnoException) => resolve(e.code ?? e.message));
    socket.on("close", () => resolve("closed"));
  }).then((said) => String(said));
}

t.test("keys are made once, and nobody else's", async (t) => {
  const host = newHost();
  await withConfiguration(host, async () => {
    const one = loadIdentity();
    t.same(loadIdentity(), one, "the same the next time");
    const directory = join(host, "virt-run");
    t.equal(statSync(directory).mode & 0o777, 0o700);
    t.equal(statSync(join(directory, "identity.pem")).mode & 0o777, 0o600);
    t.same(readdirSync(directory), ["identity.pem"], "nothing else is left of it");
    const certificate = new X509Certificate(one.cert);
    t.ok(certificate.verify(certificate.publicKey), "signed by itself");
    const spki = certificate.publicKey.export({ type: "spki", format: "der" });
    t.equal(one.fingerprint, `SHA256:${createHash("sha256").update(spki).digest("base64").replace("=", "")}`);
    writeFileSync(join(sandbox, "certificate.pem"), one.cert);
    const text = run(needs("openssl"), ["x509", "-noout", "-text", "-in", join(sandbox, "certificate.pem")]);
    t.match(
      text,
      /Version: 3(?:.|\n)*ecdsa-with-SHA256(?:.|\n)*Not After : Dec 31 23:59:59 9999 GMT(?:.|\n)*prime256v1/,
    );
    const verified = run(needs("openssl"), [
      "verify",
      "-CAfile",
      join(sandbox, "certificate.pem"),
      join(sandbox, "certificate.pem"),
    ]);
    t.match(verified, /: OK/, "OpenSSL finds nothing wrong with it");
    chmodSync(join(directory, "identity.pem"), 0o640);
    t.throws(() => loadIdentity(), { code: "ERR_UNSAFE_PATH" }, "a key that others may have read");
    chmodSync(join(directory, "identity.pem"), 0o600);
    chmodSync(directory, 0o755);
    t.throws(() => loadIdentity(), { code: "ERR_UNSAFE_PATH" }, "a directory that others may read");
    chmodSync(directory, 0o700);
    writeFileSync(join(directory, "peers.json"), '{"schemaVersion":1,"peers":[{}]}', { mode: 0o600 });
    t.throws(() => loadPeers(), { code: "ERR_BAD_VALUE" });
  });
  const two = await withConfiguration(newHost(), () => loadIdentity());
  t.not(two.fingerprint, await withConfiguration(host, () => loadIdentity().fingerprint));
});

t.test("a host that was enrolled", async (t) => {
  const { agent, there, here } = await enrolled(t);
  t.equal(agent.address, "127.0.0.1", "an agent that was told nothing else is for this host alone");
  await withConfiguration(here, async () => {
    const [peer] = loadPeers();
    t.match(peer, { client: false, agents: [url(agent)] }, "the agent is known here, and may not move pods here");
    await keepsNoSockets(t, async () => {
      const transport = await openTransport(url(agent));
      t.equal(transport.localAddressSeenByPeer, "127.0.0.1");
      await echoes(t, transport);
    });
  });
  await withConfiguration(there, () => {
    const [peer] = loadPeers();
    t.match(peer, { client: true, agents: [] }, "the client is known there, and may not be moved to");
  });
  await until("the agent to say so", () => agent.said.err.includes("receive ended with 0"));
});

t.test("several moves at the same time, and one that fails", async (t) => {
  const script = 'read -r line; echo "$VIRT_RUN_CONNECTION"; if [ "$line" = die ]; then kill -KILL $$; fi; exec cat';
  const { agent, here } = await enrolled(t, { receive: [needs("bash"), "-c", script] });
  await withConfiguration(here, async () => {
    const [one, two] = [await openTransport(url(agent)), await openTransport(url(agent))];
    await writeAll(one.writeFd, Buffer.from("live\n"));
    await writeAll(two.writeFd, Buffer.from("die\n"));
    t.match((await readAll(two.readFd)).toString(), /^127\.0\.0\.1 \d+ 127\.0\.0\.1 \d+\n$/, "its end is seen");
    await two.close();
    const coming = readAll(one.readFd);
    await writeAll(one.writeFd, Buffer.from("still here\n"));
    one.endWriting();
    t.match((await coming).toString(), /\nstill here\n$/, "the other goes on");
    await one.close();
  });
});

t.test("codes", async (t) => {
  const { agent, there, here } = await strangers(t);
  const offer = (validMs?: number) => withConfiguration(there, () => offerEnrolment(validMs));
  const tryCode = (code: string) => withConfiguration(here, () => enroll(tls(agent), code));
  const wrongOf = (code: string) => (code[0] === "A" ? "B" : "A") + code.slice(1);
  await t.rejects(tryCode("K7QM-2XPD-9F3H"), { code: "ERR_ENROLL", message: /expects nobody/ });
  await t.rejects(tryCode("short"), { code: "ERR_USAGE" });
  const first = await offer();
  t.match(first, /^[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){2}$/);
  const offered = readFileSync(join(there, "virt-run", "enroll.json"), "utf8");
  t.notOk(offered.includes(first) || offered.includes(first.replaceAll("-", "")), "the code itself is nowhere");
  for (const left of [2, 1, 0])
    await t.rejects(tryCode(wrongOf(first)), { code: "ERR_ENROLL", message: new RegExp(`wrong; .* ${left} times`) });
  await t.rejects(
    tryCode(first),
    { code: "ERR_ENROLL", message: /void/ },
    "three wrong ones, and the right one is none",
  );
  const second = await offer();
  await t.rejects(tryCode(first), { code: "ERR_ENROLL", message: /wrong/ }, "a new one replaces it");
  await tryCode(second.toLowerCase().replaceAll("-", " "));
  await t.rejects(tryCode(second), { code: "ERR_ENROLL", message: /has been used/ });
  const late = await offer(0);
  await t.rejects(tryCode(late), { code: "ERR_ENROLL", message: /too old/ });
  await t.rejects(tryCode(late), { code: "ERR_ENROLL", message: /expects nobody/ });
  const withdrawn = await offer();
  await withConfiguration(there, () => withdrawEnrolment());
  await t.rejects(tryCode(withdrawn), { code: "ERR_ENROLL", message: /expects nobody/ });
  t.equal(await withConfiguration(there, () => loadPeers().length), 1, "one was right");
});

t.test("somebody in the middle gets nothing", async (t) => {
  const { agent, there, here } = await strangers(t);
  const middle = await withConfiguration(newHost(), () => loadIdentity());
  const sockets = new Set<Socket>();
  // He has a key of his own, and passes on what each side says.
  const server = createTlsServer({
    ...secureOptions(middle),
    requestCert: true,
    ALPNProtocols: Object.values(protocols),
  });
  server.on("secureConnection", (client: TLSSocket) => {
    const options = { ...secureOptions(middle), ALPNProtocols: [client.alpnProtocol as string] };
    const onward = connect({ host: "127.0.0.1", port: agent.port, ...options });
    for (const socket of [client, onward]) sockets.add(socket.on("error", () => {}));
    client.pipe(onward);
    onward.pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const code = await withConfiguration(there, () => offerEnrolment());
  await t.rejects(
    withConfiguration(here, () => enroll(tls({ port }), code)),
    { code: "ERR_ENROLL", message: /wrong/ },
    "the right code, but over his keys",
  );
  t.same(await withConfiguration(here, () => loadPeers()), [], "nobody is known here");
  t.same(await withConfiguration(there, () => loadPeers()), [], "nor there");
  await withConfiguration(here, () => enroll(tls(agent), code));
  // The client knows the agent by now: at its address, not at his.
  await t.rejects(
    withConfiguration(here, () => openTransport(url({ port }))),
    { code: "ERR_NOT_ENROLLED" },
  );
  for (const socket of sockets) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
});

t.test("an agent that answers wrongly is not believed", async (t) => {
  const here = newHost();
  const liar = await withConfiguration(newHost(), () => loadIdentity());
  const server = createTlsServer({
    ...secureOptions(liar),
    requestCert: true,
    ALPNProtocols: Object.values(protocols),
  });
  const answers = [`{"proof":"${"0".repeat(64)}","name":"b"}\n`, '{"proof":1}\n', "[]\n", `${"x".repeat(4000)}`, ""];
  let answer = "";
  server.on("secureConnection", (socket) => socket.on("error", () => {}).once("data", () => socket.end(answer)));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  for (answer of answers) {
    const enrolling = withConfiguration(here, () => enroll(tls({ port }), "K7QM-2XPD-9F3H"));
    await t.rejects(enrolling, { code: /^ERR_(ENROLL|TRANSPORT)$/ }, answer.slice(0, 20));
  }
  t.same(await withConfiguration(here, () => loadPeers()), []);
  await new Promise((resolve) => server.close(resolve));
});

t.test("who is not let in", async (t) => {
  const { agent, there, here } = await enrolled(t);
  const stranger = newHost();
  await t.rejects(
    withConfiguration(stranger, () => openTransport(url(agent))),
    {
      code: "ERR_NOT_ENROLLED",
      message: /not known here/,
    },
  );
  const { key, cert } = await withConfiguration(stranger, () => loadIdentity());
  const ALPNProtocols = [protocols.move];
  t.match(await speak(agent, { ALPNProtocols, key, cert }), '{"refused":"unknown"}', "an unknown key");
  t.match(await speak(agent, { ALPNProtocols }), '{"refused":"unknown"}', "no certificate at all");
  const own = await withConfiguration(here, () => loadIdentity());
  t.match(await speak(agent, { ALPNProtocols, key: own.key, cert: own.cert }), '{"ok":true}', "the key that is known");
  const old = { ALPNProtocols, key: own.key, cert: own.cert, maxVersion: "TLSv1.2" } as const;
  t.match(await speak(agent, old), /PROTOCOL_VERSION/, "that key over TLS 1.2");
  t.match(await speak(agent, { key, cert, ALPNProtocols: ["virt-run-move/0"] }), /NO_APPLICATION_PROTOCOL/);
  t.match(await speak(agent, { key, cert }), "closed", "who does not say what for");
  await withConfiguration(there, async () => {
    const [peer] = loadPeers();
    await forgetPeer(peer?.fingerprint ?? "");
    await t.rejects(forgetPeer("nobody"), { code: "ERR_USAGE" });
  });
  await t.rejects(
    withConfiguration(here, () => openTransport(url(agent))),
    {
      code: "ERR_NOT_ENROLLED",
      message: /does not know this host/,
    },
  );
});

t.test("an agent with another key, or none, or another version, or no agent", async (t) => {
  const { agent, here } = await enrolled(t);
  await agent.stop();
  await t.rejects(
    withConfiguration(here, () => openTransport(url(agent))),
    { code: "ERR_UNREACHABLE" },
  );
  const other = await ownAgent(t, newHost(), { port: agent.port });
  await t.rejects(
    withConfiguration(here, () => openTransport(url(agent))),
    { code: "ERR_HOST_KEY" },
  );
  await other.stop();
  const identity = await withConfiguration(newHost(), () => loadIdentity());
  const newer = createTlsServer({ ...secureOptions(identity), ALPNProtocols: ["virt-run-move/2"] });
  await new Promise<void>((resolve) => newer.listen(agent.port, "127.0.0.1", resolve));
  await t.rejects(
    withConfiguration(here, () => openTransport(url(agent))),
    { code: "ERR_REMOTE_VERSION" },
  );
  await new Promise((resolve) => newer.close(resolve));
  const plain = createServer((socket) =>
    socket
      .on("error", () => {})
      .resume()
      .end("220 mail\r\n"),
  );
  await new Promise<void>((resolve) => plain.listen(agent.port, "127.0.0.1", resolve));
  await t.rejects(
    withConfiguration(here, () => openTransport(url(agent))),
    { code: "ERR_TRANSPORT" },
  );
  await new Promise((resolve) => plain.close(resolve));
  const mute = createServer();
  const held = new Set<Socket>();
  mute.on("connection", (socket) => held.add(socket.on("error", () => {})));
  await new Promise<void>((resolve) => mute.listen(agent.port, "127.0.0.1", resolve));
  await t.rejects(
    withConfiguration(here, () => openTransport(url(agent), { connectTimeoutMs: 50 })),
    { code: "ERR_UNREACHABLE", message: /does not answer/ },
  );
  const abort = new AbortController();
  mute.once("connection", () => abort.abort());
  await t.rejects(
    withConfiguration(here, () => openTransport(url(agent), { signal: abort.signal })),
    { code: "ERR_ABORTED" },
  );
  for (const socket of held) socket.destroy();
  await new Promise((resolve) => mute.close(resolve));
});

t.test("who says nothing, and who comes too often", async (t) => {
  const { agent, there, here } = await enrolled(t, { limits: { sessions: 1 } });
  await withConfiguration(here, async () => {
    const one = await openTransport(url(agent));
    await writeAll(one.writeFd, Buffer.from("x"));
    await until("the move to begin", () => agent.said.err.includes("moves a pod here"));
    await t.rejects(openTransport(url(agent)), { code: "ERR_TRANSPORT", message: /no more pods/ });
    await one.close();
    await until("its end", () => agent.said.err.includes("receive ended"));
    await echoes(t, await openTransport(url(agent)), 1);
  });
  await agent.stop();
  const hasty = await ownAgent(t, there, { limits: { pending: 2, speakMs: 500 } });
  const silent = [1, 2, 3, 4].map(() => {
    const socket = connectTcp(hasty.port, "127.0.0.1").resume();
    return new Promise((resolve) => socket.on("error", () => {}).on("close", resolve));
  });
  await Promise.all(silent);
  t.pass("connections without a handshake are closed");
  const identity = await withConfiguration(here, () => loadIdentity());
  const known = { ...secureOptions(identity), ALPNProtocols: [protocols.move] };
  // On a slow machine the handshake alone may take too long.
  await until("the agent to say so", async () => {
    const socket = connect({ host: "127.0.0.1", port: hasty.port, ...known });
    socket.on("error", () => {}).on("end", () => socket.destroy()); // ends are half of one here
    await new Promise((resolve) => socket.on("close", resolve).resume());
    return hasty.said.err.includes("says nothing");
  });
  await hasty.stop();
  const limited = await ownAgent(t, newHost(), { limits: { perAddress: 3, windowMs: 600_000 } });
  const answers = [];
  for (let i = 0; i < 5; i++) answers.push(await speak(limited, { ALPNProtocols: [protocols.move] }));
  t.match(answers.slice(0, 3), Array(3).fill('{"refused":"unknown"}\n'));
  t.notMatch(answers.slice(3).join(), "refused", `beyond the rate there is no answer: ${answers.slice(3)}`);
});

t.test("an agent that is killed is the end of its moves", async (t) => {
  const { agent, here } = await enrolled(t);
  await withConfiguration(here, async () => {
    const transport = await openTransport(url(agent));
    await writeAll(transport.writeFd, Buffer.from("x"));
    const coming = readAll(transport.readFd);
    await until("the move to begin", () => agent.said.err.includes("moves a pod here"));
    agent.child.kill("SIGKILL");
    await coming;
    await transport.close();
  });
  await agent.ended; // receive sees the end and goes: leaveNothing() looks
});

t.test("serve, enroll and peers as a user has them", async (t) => {
  const [there, here] = [newHost(), newHost()];
  const at = (directory: string) => ({ env: { ...process.env, XDG_CONFIG_HOME: directory } });
  const serving = virtRunning(["serve", "--listen", ":0"], at(there));
  await until("the agent to listen", () => serving.said.out.includes("\n"));
  t.match(serving.said.out, /^127\.0\.0\.1:\d+\n$/, "this host alone");
  const target = `tls://${serving.said.out.trim()}`;
  const { out: code } = await virtRun(["serve", "--enroll"], at(there));
  t.match(await virtRun(["enroll", target, "AAAA-AAAA-AAAA"], at(here)), {
    code: 1,
    err: /\(ERR_ENROLL\)\n {2}`virt-run serve --enroll`/,
  });
  t.match(
    await virtRun(["enroll", target], { ...at(here), input: code }),
    { code: 0, out: /SHA256:/ },
    "the code from standard input",
  );
  t.match(await virtRun(["enroll", "ssh://b", code], at(here)), { code: 2, err: /ERR_USAGE/ });
  const { out } = await virtRun(["peers", "--json"], at(there));
  const { peers } = JSON.parse(out) as { peers: { fingerprint: string }[] };
  t.match(peers, [{ client: true, agents: [], fingerprint: /^SHA256:/ }]);
  await withConfiguration(here, async () => {
    const transport = await openTransport(target);
    await writeAll(transport.writeFd, Buffer.from("x"));
    transport.endWriting();
    t.match((await readAll(transport.readFd)).toString(), /"type":"failed"/, "virt-run receive answers");
    await transport.close();
  });
  t.match(await virtRun(["peers"], at(here)), { code: 0, out: new RegExp(`no +${target}`) });
  t.match(await virtRun(["peers", "--rm", peers[0]?.fingerprint ?? ""], at(there)), { code: 0 });
  t.match(await virtRun(["peers", "--rm", "nobody"], at(there)), { code: 2, err: /ERR_USAGE/ });
  await t.rejects(
    withConfiguration(here, () => openTransport(target)),
    { code: "ERR_NOT_ENROLLED" },
  );
  t.match(await virtRun(["serve", "--listen", target.slice(6)], at(there)), { code: 1, err: /ERR_PORT_IN_USE/ });
  t.match(await virtRun(["serve", "--listen", "no-address"], at(there)), { code: 2, err: /ERR_USAGE/ });
  serving.child.kill("SIGTERM");
  t.match(await serving.ended, { code: 0 });
});
