/**
 * The terminal of a pod as tests use it: what is typed into it, and what it has shown since (the pod's log has it all).
 */
import type { Pod } from "virt-run";
import { FrameType, uint32s } from "../../src/control/protocol.js";
import { until } from "./pods.js";

const viewed = new WeakSet<Pod>();

/** Views the pod's terminal through the pod's own connection, so that it can be typed into. */
async function view(pod: Pod): Promise<void> {
  if (viewed.has(pod)) return;
  viewed.add(pod);
  await pod.connection.request(FrameType.attach, uint32s(0));
}

/** Types text as a user would; "\r" is the return key, "\x03" is ctrl-C. */
export async function typeInto(pod: Pod, text: string): Promise<void> {
  await view(pod);
  pod.connection.send(FrameType.input, Buffer.from(text));
}

/** Gives the terminal another size, as a viewer does whose window changes. */
export async function resize(pod: Pod, rows: number, columns: number): Promise<void> {
  await view(pod);
  const size = Buffer.alloc(4);
  size.writeUInt16LE(rows, 0);
  size.writeUInt16LE(columns, 2);
  pod.connection.send(FrameType.resize, size);
}

/** All that the terminal has shown, without the sequences that move the cursor and set colours (ECMA-48). */
export function shown(pod: Pod): string {
  return (
    pod
      .logs()
      .toString()
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they begin with escape
      .replace(/\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])/g, "")
  );
}

/** Waits for something on the terminal that is not older than `since` (the length of shown() then). */
export function shows(pod: Pod, what: RegExp, since = 0): Promise<RegExpExecArray> {
  const told = {
    toString: () => `${what} on the terminal, which shows ${JSON.stringify(shown(pod).slice(since).slice(-400))}`,
  };
  return until(told, () => {
    const match = what.exec(shown(pod).slice(since));
    if (!match && !pod.running) throw new Error(`the pod ended without ${what}: ${shown(pod).slice(-800)}`);
    return match ?? undefined;
  });
}
