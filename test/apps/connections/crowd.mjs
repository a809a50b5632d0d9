// Opens N connections; each time it gets a line it sends a number on each of them, which must come back, and says `round`.
// crowd.mjs ADDRESS PORT N
import { connect } from "node:net";

const [host, port, most] = process.argv.slice(2);
const sockets = [];
let [round, back, connected] = [0, 0, 0];

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
  socket.on("data", (more) => {
    text += more;
    if (!text.endsWith("\n")) return;
    if (text !== `${round}\n`) fail(`'${text}' where ${round} should be`);
    text = "";
    if (++back === Number(most)) {
      back = 0;
      console.log(`round ${round}`);
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
