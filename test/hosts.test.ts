/**
 * The hosts that other tests use (support/hosts.ts): they reach each other, can be unplugged, slowed down and switched off, an
 * ordinary user is one there too, and a pod lives, leaves and comes back on them.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { isRoot, leaveNothing, linesWith } from "./support/apps.js";
import { sandbox } from "./support/env.js";
import { makeHosts } from "./support/hosts.js";
import { leftovers } from "./support/leftovers.js";
import { needs } from "./support/packages.js";
import { until } from "./support/pods.js";

leaveNothing(t);

/** Answers whoever sends it something: TCP and UDP, IPv4 and IPv6, on a port that the kernel chooses for both. */
const echo = join(sandbox, "echo.mjs");
writeFileSync(
  echo,
  `import { createServer } from "node:net";
   import { createSocket } from "node:dgram";
   const server = createServer((s) => s.pipe(s).on("error", () => {})).listen(0, "::", () => {
     const { port } = server.address();
     const udp = createSocket("udp6", (m, r) => udp.send(m, r.port, r.address));
     udp.bind(port, () => console.log("port " + port));
   });`,
);
/** Sends a word every 20 ms and prints what comes back. */
const ask = join(sandbox, "ask.mjs");
writeFileSync(
  ask,
  `import { connect } from "node:net";
   import { createSocket } from "node:dgram";
   const [kind, host, port] = process.argv.slice(2);
   const tell = (bytes) => console.log("back " + bytes);
   let n = 0;
   if (kind === "tcp") {
     const s = connect(Number(port), host).on("data", tell);
     setInterval(() => s.write(String(n++ % 10)), 20);
   } else {
     const s = createSocket(host.includes(":") ? "udp6" : "udp4", tell);
     setInterval(() => s.send(String(n++ % 10), Number(port), host), 20);
   }`,
);

t.test("hosts reach each other", async (t) => {
  const [a, b] = await makeHosts(t, ["a", "b"]);
  if (!a || !b) throw new Error("no hosts");
  t.equal((await a.run(needs("id"), ["-u"])).trim(), String(process.getuid?.()), "the user is who it was");
  t.match(await a.run(needs("id"), ["-u", "-n"]), /\w/);
  if (!isRoot) await t.rejects(a.run(needs("ip"), ["link", "set", "eth0", "down"]), "and may not do what root may");
  t.notOk((await a.run("/bin/cat", ["/proc/net/dev"])).includes("switch"));

  const server = b.node(echo);
  const port = await until("a port", () => linesWith(server.said.out, "port ")[0]);
  const asked = [
    ["tcp", b.address],
    ["tcp", b.address6],
    ["udp", b.address],
    ["udp", b.address6],
  ].map((words) => a.node(ask, [...words, port]));
  const answers = () => asked.map(({ said }) => said.out.length);
  await until({ toString: () => `all to answer: ${asked.map(({ said }) => said.err)}` }, () =>
    answers().every((n) => n > 20),
  );

  b.cut();
  // Nothing to wait for: packets that do not come. TCP's first is sent again after 200 ms.
  await new Promise((resolve) => setTimeout(resolve, 400));
  const seen = answers();
  await new Promise((resolve) => setTimeout(resolve, 400));
  t.strictSame(answers(), seen, "nothing comes while the link is cut");
  b.restore();
  await until("all to answer again", () => answers().every((n, i) => n > (seen[i] as number) + 20));

  const bytes = 2 << 20;
  const fetch = async () => {
    const began = performance.now();
    const there = `exec 3<>/dev/tcp/${b.address}/${port}; head -c ${bytes} /dev/zero >&3 & head -c ${bytes} <&3 >/dev/null`;
    await a.run(needs("bash"), ["-c", there]);
    return performance.now() - began;
  };
  if (a.slow(16e6)) t.ok((await fetch()) > 800, "2 MiB take a second each way at 16 Mbit/s");
  else t.comment("this kernel cannot slow a link down (tbf)");

  await b.crash();
  t.match(await server.ended, { signal: "SIGKILL" }, "a host that is switched off runs nothing");
  for (const { child } of asked) child.kill("SIGKILL");
});

t.test("a pod on a host", async (t) => {
  const [a, b] = await makeHosts(t, ["a", "b"]);
  if (!a || !b) throw new Error("no hosts");
  const image = join(sandbox, "on-a.image");
  const counting = 'i=0; while :; do echo "n $i"; i=$((i+1)); sleep 0.01; done';
  t.match(await a.virtRun(["run", "-d", "--name", "counter", "sh", "-c", counting]), { code: 0, err: "" });
  const log = async () => linesWith((await a.virtRun(["logs", "counter"])).out, "n ");
  await until("it to count", async () => (await log()).length > 5);
  t.match((await b.virtRun(["ps", "-a", "-q"])).out, "", "b knows nothing of it");
  t.match(await a.virtRun(["detach", "counter", "-o", image]), { code: 0 });
  t.notMatch((await a.virtRun(["ps"])).out, /running/);
  t.match(await a.virtRun(["reattach", image, "-d"]), { code: 0 });
  await until("it to go on", async () => (await log()).length > 5);
  t.match(await a.virtRun(["stop", "-t", "0", "counter"]), { code: 0 });
});

t.test("nothing is left of them", async (t) => {
  // A network namespace goes with its last process.
  t.strictSame(leftovers(), []);
});
