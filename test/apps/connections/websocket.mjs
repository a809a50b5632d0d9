// A WebSocket server that sends every message back, and its client, with 20 messages of all sizes in flight on each of 5
// connections. websocket.mjs serve|call HOST PORT
import { randomBytes } from "node:crypto";
import { WebSocket, WebSocketServer } from "ws";
import { finish, onStop, progress, wrong } from "./report.mjs";

const [role, host, port] = process.argv.slice(2);
const connections = 5;

function call(stopped) {
  const socket = new WebSocket(`ws://${host}:${port}/`, { perMessageDeflate: false });
  const flying = [];
  let n = 0;
  const send = () => {
    const message = randomBytes([1, 125, 126, 5000, 66_000][n++ % 5]);
    flying.push(message);
    socket.send(message);
  };
  socket.on("open", () => {
    for (let i = 0; i < 20; i++) send();
  });
  socket.on("message", (bytes) => {
    if (!bytes.equals(flying.shift())) wrong(`message ${n - flying.length} is another`);
    progress();
    if (!stopped.now) setImmediate(send);
    else if (flying.length === 0) socket.close(1000, "enough");
  });
  socket.on("error", (e) => wrong(e.message));
  socket.on("close", (code) => {
    if (code !== 1000) wrong(`closed with ${code}`);
    if (++stopped.count === connections) finish({ connections });
  });
}

if (role === "serve") {
  const server = new WebSocketServer({ host, port: Number(port) }, () => console.log("listening"));
  server.on("connection", (socket) => socket.on("message", (bytes) => socket.send(bytes)));
} else {
  const stopped = { now: false, count: 0 };
  for (let i = 0; i < connections; i++) call(stopped);
  onStop(() => {
    stopped.now = true;
  });
}
