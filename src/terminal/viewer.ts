/**
 * A viewer of a pod's terminal: this process's own terminal, in raw mode, shows it and types into it.
 */
import type { ControlConnection } from "../control/connection.js";
import { FrameType, uint32s } from "../control/protocol.js";
import { VirtError } from "../errors.js";
import { attachReadOnly, attachRedraw } from "../pod/launch.js";

export interface ViewOptions {
  /** "ctrl-],d" and the like; the keys that leave without ending anything. */
  detachKeys?: string | undefined;
  readOnly?: boolean;
  /** Attach this connection to the pod's own terminal first (an exec session views its own already). */
  attach: boolean;
  /** A session's own end; without it the end of the pod's first program, or of the pod. */
  until?: Promise<unknown>;
  /** The program has drawn before: make it do so again. */
  redraw?: boolean;
}

/** Ends when the pod (or session) ends, or when the detach keys were typed ("left"). */
export async function view(connection: ControlConnection, options: ViewOptions): Promise<"ended" | "left"> {
  const keys = parseKeys(options.detachKeys ?? "ctrl-],d");
  const { stdin, stdout } = process;
  let leave = () => {};
  const over = new Promise<"ended" | "left">((resolve) => {
    leave = () => resolve("left");
    connection.once("gone", () => resolve("ended"));
    connection.once("close", () => resolve("ended"));
    connection.on("exited", (end) => {
      if (end.first && !options.until) resolve("ended");
    });
    void options.until?.then(() => resolve("ended"));
  });
  connection.on("output", (_, bytes) => {
    if (stdout.write(bytes)) return;
    connection.pause();
    stdout.once("drain", () => connection.resume());
  });
  const resize = () => {
    const size = Buffer.alloc(4);
    size.writeUInt16LE(stdout.rows ?? 24, 0);
    size.writeUInt16LE(stdout.columns ?? 80, 2);
    connection.send(FrameType.resize, size);
  };
  if (options.attach) {
    const flags = (options.readOnly ? attachReadOnly : 0) | (options.redraw ? attachRedraw : 0);
    // A pod that ends meanwhile ends the view: its output may have come all the same.
    await connection.request(FrameType.attach, uint32s(flags)).catch((e: VirtError) => {
      if (e.code !== "ERR_POD_GONE") throw e;
    });
  }
  if (stdout.isTTY) {
    if (!options.readOnly) resize();
    stdout.on("resize", resize);
  }
  const raw = stdin.isTTY === true;
  if (raw) stdin.setRawMode(true);
  const filter = new DetachKeys(keys, leave);
  const type = (bytes: Buffer) => {
    const rest = filter.take(bytes);
    if (rest.length > 0 && !options.readOnly && !connection.send(FrameType.input, rest)) {
      stdin.pause();
      void connection.drained().then(() => stdin.resume());
    }
  };
  stdin.on("data", type);
  stdin.on("end", () => connection.send(FrameType.input, Buffer.from([4])));
  try {
    return await over;
  } finally {
    stdin.off("data", type);
    stdin.pause();
    if (raw) stdin.setRawMode(false);
    stdout.off("resize", resize);
  }
}

/** Finds the detach keys in what is typed; holds back what may be their beginning. @internal */
export class DetachKeys {
  #held: number[] = [];
  readonly #keys: Buffer;
  readonly #found: () => void;

  constructor(keys: Buffer, found: () => void) {
    this.#keys = keys;
    this.#found = found;
  }

  take(bytes: Buffer): Buffer {
    if (this.#keys.length === 0) return bytes;
    const out: number[] = [];
    for (const byte of bytes) {
      this.#held.push(byte);
      // What was held may be the beginning of the keys only from a later byte on: "aab" in "aaab".
      while (this.#held.some((b, i) => b !== this.#keys[i])) out.push(this.#held.shift() as number);
      if (this.#held.length < this.#keys.length) continue;
      this.#held = [];
      this.#found();
      return Buffer.from(out);
    }
    return Buffer.from(out);
  }
}

/** "ctrl-p,ctrl-q" or "ctrl-],d" as bytes; "" for none. Errors: ERR_USAGE. */
export function parseKeys(text: string): Buffer {
  if (text === "") return Buffer.alloc(0);
  return Buffer.from(
    text.split(/[, ]+/).map((key) => {
      const control = /^ctrl-([a-z@[\\\]^_])$/i.exec(key)?.[1];
      if (control !== undefined) return control.toUpperCase().charCodeAt(0) & 0x1f;
      if (key.length === 1) return key.charCodeAt(0);
      throw new VirtError("ERR_USAGE", `'${key}' is no key: a character, or ctrl-X`);
    }),
  );
}
