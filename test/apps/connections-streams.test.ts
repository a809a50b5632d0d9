/**
 * Servers in a pod with streams that are under way while it is away: TLS, plain TCP, WebSockets, and a server in Go with many
 * keep-alive connections. Both ends know every byte that has to come.
 */
import { join } from "node:path";
import t from "tap";
import { freePort, leaveNothing, run, sources } from "../support/apps.js";
import { sandbox } from "../support/env.js";
import { needs } from "../support/packages.js";
import { account, atEach, cycles, goesOn, loggedBy } from "../support/places.js";

leaveNothing(t);

const node = process.execPath;
const script = (name: string) => join(sources, "connections", name);

const key = join(sandbox, "key.pem");
const certificate = join(sandbox, "certificate.pem");
t.before(() => {
  const subject = ["-subj", "/CN=localhost", "-days", "2", "-keyout", key, "-out", certificate];
  run(needs("openssl"), ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", ...subject]);
});

for (const kind of ["tls", "tcp"]) {
  atEach(["here", "back"], `a stream over ${kind}, both ways`, async (t, at) => {
    const port = String(await freePort());
    const pod = await at.launch(node, [script("stream.mjs"), "serve", kind, at.any, port, key, certificate]);
    await loggedBy(pod, "listening");
    const caller = at.outside(node, [script("stream.mjs"), "call", kind, at.pods, port]);
    await goesOn(caller, 50);
    await cycles(at, pod, () => goesOn(caller, 50));
    const there = await account<Ends>(caller);
    t.equal(await pod.ended(), 0, "the server found every byte");
    const here = JSON.parse((await pod.logs()).trim().split("\n").at(-1) ?? "") as Ends;
    t.strictSame([there.got, there.sha256], [here.sent, here.sha256Sent], `${there.got} bytes from the pod`);
    t.strictSame([here.got, here.sha256], [there.sent, there.sha256Sent], `${here.got} bytes to the pod`);
    t.comment(`the longest pause was ${there.longestMs} ms`);
  });
}

interface Ends {
  got: number;
  sent: number;
  sha256: string;
  sha256Sent: string;
  longestMs: number;
}

atEach(["here", "on"], "WebSockets", async (t, at) => {
  const port = String(await freePort());
  const pod = await at.launch(node, [script("websocket.mjs"), "serve", at.any, port]);
  await loggedBy(pod, "listening");
  const caller = at.outside(node, [script("websocket.mjs"), "call", at.pods, port]);
  await goesOn(caller, 100);
  await cycles(at, pod, () => goesOn(caller, 100));
  const { count, longestMs } = await account(caller);
  t.pass(`${count} messages came back; the longest pause was ${longestMs} ms`);
  await pod.kill("SIGKILL");
  await pod.ended();
});

const program = join(sandbox, "serve");
t.before(() =>
  run(needs("go"), ["build", "-o", program, join(sources, "go", "serve.go")], {
    cwd: sandbox,
    env: { PATH: process.env["PATH"], HOME: sandbox, GOCACHE: join(sandbox, "go-cache"), CGO_ENABLED: "0" },
  }),
);

atEach(["here", "back"], "Go with 100 keep-alive connections", async (t, at) => {
  const port = String(await freePort());
  const pod = await at.launch(program, [`${at.any}:${port}`]);
  await loggedBy(pod, "listening");
  const caller = at.outside(node, [script("keep-alive.mjs"), "call", at.pods, port, "100"]);
  await goesOn(caller, 500);
  await cycles(at, pod, () => goesOn(caller, 500));
  const { count, longestMs, connections } = await account(caller);
  t.equal(connections, 100, "none was made anew");
  t.comment(`${count} answers, the longest pause was ${longestMs} ms`);
  await pod.kill("SIGKILL");
  await pod.ended();
});
