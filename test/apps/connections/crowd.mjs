// Opens N connections; each time it gets a line it sends a number on each of them, and says `round` when all are back.
// crowd.mjs ADDRESS PORT N
import { connect } from "node:net";

const [host, port, most] = process.argv.slice(2);
const sockets = [];
const back = [];
let [round, connected] = [0, 0];

function fail(what) {
  console.error(`WRONG: ${what}`);
  process.exit(1);
}

function open() {
  const socket = connect(Number(port), host);
  sockets.push(socket);
  socket.setEncoding("utf8");
  socket.on("connect", () => {
    if (++connected === Number(most)) console.log("connected");
    else if (sockets.length < Number(most)) open();
  });
  let text = "";
  let next = 1;
  socket.on("data", (more) => {
    text += more;
    const lines = text.split("\n");
    text = lines.pop();
    for (const line of lines) {
      if (line !== String(next)) fail(`'${line}' where ${next} should be`);
      back[next] = (back[next] ?? 0) + 1;
      if (back[next] === Number(most)) console.log(`round ${next}`);
      next++;
    }
  });
  socket.on("error", (e) => fail(e.message));
  socket.on("close", () => fail("closed"));
}
for (let i = 0; i < Math.min(50, Number(most)); i++) open();
process.stdin.on("data", () => {
  round++;
  for (const socket of sockets) socket.write(`${round}\n`);
});
