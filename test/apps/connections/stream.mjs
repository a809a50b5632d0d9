// A connection that carries a stream of bytes both ways at once, which either end can make by itself and so check, byte by
// byte; over TLS or plain. stream.mjs serve|call tls|tcp HOST PORT [KEY CERTIFICATE]. The caller stops it; both ends then tell
// how many bytes they got, and their sha256.
import { createCipheriv, createHash } from "node:crypto";
import net from "node:net";
import tls from "node:tls";
import { readFileSync } from "node:fs";
import { finish, onStop, progress, wrong } from "./report.mjs";

const [role, kind, host, port, key, cert] = process.argv.slice(2);
const piece = 40_000; // more than a TLS record, and no multiple of one

/** Bytes that are as good as random and the same every time. */
function keystream(name) {
  const cipher = createCipheriv("aes-128-ctr", Buffer.from(name.padEnd(16)), Buffer.alloc(16));
  const zeros = Buffer.alloc(1 << 20);
  return (length) => cipher.update(zeros.subarray(0, length));
}

function run(socket) {
  const make = keystream(role);
  const check = keystream(role === "serve" ? "call" : "serve");
  const hashes = { got: createHash("sha256"), sent: createHash("sha256") };
  let [got, sent] = [0, 0];
  let stopping = false;
  const send = () => {
    // One piece at a time: the stream goes on for as long as the other end reads.
    const bytes = make(piece);
    hashes.sent.update(bytes);
    sent += bytes.length;
    if (stopping) socket.end(bytes);
    else socket.write(bytes, () => setTimeout(send, 1));
  };
  socket.on("data", (bytes) => {
    if (!bytes.equals(check(bytes.length))) wrong(`a byte after ${got}`);
    hashes.got.update(bytes);
    got += bytes.length;
    progress();
  });
  socket.on("end", () => {
    if (role === "serve") stopping = true;
    const end = { got, sha256: hashes.got.digest("hex") };
    const tell = () => ({ ...end, sent, sha256Sent: hashes.sent.copy().digest("hex") });
    if (role === "call") return finish(tell());
    socket.on("close", () => finish(tell()));
  });
  socket.on("error", (e) => wrong(e.message));
  if (role === "call") onStop(() => (stopping = true));
  send();
}

if (role === "serve") {
  const options = kind === "tls" ? { key: readFileSync(key), cert: readFileSync(cert) } : {};
  const server = (kind === "tls" ? tls : net).createServer({ ...options, allowHalfOpen: true }, run);
  server.listen(Number(port), host, () => console.log("listening"));
} else {
  const options = { host, port: Number(port), rejectUnauthorized: false, allowHalfOpen: true };
  const socket = kind === "tls" ? tls.connect(options, () => run(socket)) : net.connect(options, () => run(socket));
}
