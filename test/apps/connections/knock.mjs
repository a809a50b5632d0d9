// A client that says something and goes when it has its answer, which it prints. knock.mjs WORD ADDRESS [PORT]
import { connect } from "node:net";

const [word, host, port] = process.argv.slice(2);
const socket = connect(host.includes("/") ? { path: host } : { host, port: Number(port) }, () => {
  console.log("connected");
  socket.write(`${word}\n`);
});
socket.setEncoding("utf8");
socket.on("data", (text) => {
  console.log(`answer ${text.trim()}`);
  socket.end();
});
