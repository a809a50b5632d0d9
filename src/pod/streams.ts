/**
 * A piped program's streams as Node's own.
 */
import { PassThrough, type Readable, Writable } from "node:stream";
import type { ControlConnection } from "../control/connection.js";
import { FrameType } from "../control/protocol.js";

/** The program's streams over a control connection, with back-pressure both ways. */
export function pipedStreams(connection: ControlConnection): { stdin: Writable; stdout: Readable; stderr: Readable } {
  const outputs = { 1: new PassThrough(), 2: new PassThrough() };
  connection.on("output", (stream, bytes) => {
    const output = outputs[stream];
    if (output.destroyed || output.write(Buffer.from(bytes))) return;
    connection.pause();
    output.once("drain", () => connection.resume());
  });
  const end = () => {
    outputs[1].end();
    outputs[2].end();
  };
  connection.on("gone", end);
  connection.on("close", end);
  const stdin = new Writable({
    write(chunk: Buffer, _encoding, done) {
      connection.send(FrameType.input, chunk);
      void connection.drained().then(() => done());
    },
    final(done) {
      connection.send(FrameType.input, Buffer.alloc(0));
      done();
    },
  });
  return { stdin, stdout: outputs[1], stderr: outputs[2] };
}
