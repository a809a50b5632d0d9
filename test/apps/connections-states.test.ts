/**
 * One socket at a time: what its program finds when it is back, and what its peer sees meanwhile (connections/states.py has the
 * cases). Each is also run without a detach, which shows that the case itself is what the kernel does.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { freePort, leaveNothing, sources } from "../support/apps.js";
import type { Running } from "../support/cli.js";
import { needs } from "../support/packages.js";
import { atEach, loggedBy, type Place, type Traveller } from "../support/places.js";
import { until } from "../support/pods.js";

leaveNothing(t);

const states = join(sources, "connections", "states.py");
const wanted = process.env["BEHAVIOUR"] ?? "";
const names = [
  "same",
  "half_closed_inside",
  "half_closed_outside",
  "reads_no_more",
  "closed_away",
  "reset_away",
  "reset_away_reader",
  "urgent_away",
  "urgent_signal",
  "async_signal",
  "chosen_signal",
  "full_both_ways",
  "waits",
  "shared",
  "connecting",
  "accepting",
  "udp_queue",
].filter((name) => name.includes(wanted));
/** Of addresses with ports; urgent bytes in unix sockets are of newer kernels, and not in every one. */
const notUnix = new Set(["urgent_away", "urgent_signal", "connecting", "accepting", "udp_queue"]);

async function says(peer: Running, text: string): Promise<void> {
  await until({ toString: () => `the peer to say '${text}': ${peer.said.out}${peer.said.err}` }, () => {
    if (peer.child.exitCode !== null && !peer.said.out.includes(text)) throw new Error(`the peer: ${peer.said.err}`);
    return peer.said.out.includes(text);
  });
}

let runs = 0;

async function behave(at: Place, name: string, address: string, port: string, leaves: boolean): Promise<void> {
  const go = join(at.directory, `go-${runs++}`);
  const peer = at.outside(needs("python3"), [states, "outside", name, address, port]);
  let pod: Traveller | undefined;
  try {
    await says(peer, "listening");
    pod = await at.launch(needs("python3"), [states, "inside", name, address, port, go]);
    await loggedBy(pod, "ready\n");
    if (leaves) await pod.detach();
    peer.child.stdin?.write("away\n");
    await says(peer, "done away");
    if (leaves) await pod.reattach();
    peer.child.stdin?.end("back\n");
    writeFileSync(go, "");
    const code = await pod.ended();
    if (code !== 0) throw new Error(`the program: ${(await pod.logs()).slice(-600)}`);
    const { code: end, err } = await peer.ended;
    if (end !== 0) throw new Error(`the peer: ${err.slice(-600)}`);
  } finally {
    peer.child.kill("SIGKILL");
    await pod?.kill("SIGKILL").catch(() => {}); // it has ended already, or was left in an image
  }
}

for (const kind of ["TCP", "IPv6", "unix"]) {
  atEach(["here"], kind, async (t, at) => {
    for (const name of names) {
      if (kind === "unix" && notUnix.has(name)) continue;
      for (const leaves of kind === "TCP" ? [false, true] : [true]) {
        const port = String(await freePort());
        const address = { TCP: at.others, IPv6: at.others6, unix: join(at.directory, `s-${runs}`) }[kind] as string;
        const what = leaves ? name : `${name}, untouched`;
        await behave(at, name, address, port, leaves).then(
          () => t.pass(what),
          (e: Error) => t.fail(`${what}: ${e.message}`),
        );
      }
    }
  });
}
