/**
 * A pod that is moved from host to host, with a client on another one who notices nothing but a pause.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { leaveNothing } from "./support/apps.js";
import { sandbox } from "./support/env.js";
import { type Host, makeHosts } from "./support/hosts.js";
import { until } from "./support/pods.js";

leaveNothing(t);

let images = 0;

/** From one host to another, by way of an image on a disk that both see. */
async function move(t: Test, name: string, from: Host, to: Host): Promise<void> {
  const image = join(sandbox, `moved-${images++}`);
  const left = await from.virtRun(["detach", name, "-o", image, "--hold-at", from.address]);
  t.equal(left.code, 0, `detached on ${from.name}: ${left.err}`);
  const come = await to.virtRun(["reattach", image, "-d"]);
  t.equal(come.code, 0, `reattached on ${to.name}: ${come.err}`);
}

/** What `ps` says of the pods on a host. */
async function states(host: Host): Promise<string[]> {
  const { out } = await host.virtRun(["ps", "--json"]);
  const { pods } = JSON.parse(out) as {
    pods: { state: string; holding?: { forwarding?: string; connections: number } }[];
  };
  return pods.map(
    (p) => `${p.state}${p.holding ? ` ${p.holding.forwarding ?? "holding"} ${p.holding.connections}` : ""}`,
  );
}

// Sends back what it gets, half a second behind at first: much is on its way at any moment.
const echo = `
import socket, sys, time
s = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("READY", flush=True)
c, peer = s.accept()
me = c.getsockname()
while True:
    time.sleep(0.002)
    data = c.recv(20000)
    if not data: break
    assert c.getsockname() == me and c.getpeername() == peer
    c.sendall(data)
c.sendall(b"that was all")
c.shutdown(socket.SHUT_WR)
print("DONE", flush=True)
time.sleep(1000)
`;

// Sends numbered words without waiting, and checks every byte of what comes back.
const client = `
import socket, sys, threading, time, os
c = socket.create_connection((sys.argv[1], int(sys.argv[2])))
stop = sys.argv[3]
sent = 0
def write():
    global sent
    while not os.path.exists(stop):
        c.sendall(b"".join(b"%015d\\n" % n for n in range(sent, sent + 1000)))
        sent += 1000
    c.shutdown(socket.SHUT_WR)
w = threading.Thread(target=write); w.start()
f = c.makefile("rb"); n = 0
while True:
    line = f.read(16)
    if len(line) < 16: break
    assert line == b"%015d\\n" % n, (line, n)
    n += 1
    if n % 1000 == 0: print("got", n, flush=True)
w.join()
assert line == b"that was all", line
assert n == sent, (n, sent)
print("COMPLETE", n, flush=True)
`;

t.test("there, on, and back, with much on its way", { timeout: 120_000 }, async (t) => {
  const [a, b, c, peer] = (await makeHosts(t, ["a", "b", "c", "peer"])) as [Host, Host, Host, Host];
  for (const [name, text] of Object.entries({ echo, client })) writeFileSync(join(sandbox, `${name}.py`), text);
  const stop = join(sandbox, "stop");
  await a.virtRun(["run", "-d", "--name", "echo", "--", "python3", join(sandbox, "echo.py"), "7000"]);
  await until("the server", async () => (await a.virtRun(["logs", "echo"])).out.includes("READY"));
  const running = peer.start("python3", [join(sandbox, "client.py"), a.address, "7000", stop]);
  const got = () => Number(/got (\d+)\n(?!.*\n)/s.exec(running.said.out)?.[1] ?? 0);
  const goesOn = async (where: string) => {
    const before = got();
    await until({ toString: () => `bytes to flow on ${where}: ${running.said.err}` }, () => got() > before + 20_000);
  };
  await goesOn("a");
  await move(t, "echo", a, b);
  await goesOn("b");
  t.strictSame(await states(a), ["detached connected 1"]);
  await move(t, "echo", b, c);
  await goesOn("c");
  await until("the host in between to have nothing left of it", async () => (await states(b)).length === 0);
  await b.crash();
  await goesOn("c, without b");
  await move(t, "echo", c, a);
  await goesOn("a again");
  writeFileSync(stop, "");
  const said = await running.ended;
  t.match(said, { code: 0, out: /COMPLETE \d+\n$/ }, said.err);
  await until("the holder to end", async () => (await states(a)).join() === "running");
  await a.virtRun(["rm", "-f", "echo"]);
});
