// An HTTP server that tells on which connection a request came and as the how many-th, and a client with keep-alive connections
// that checks both: none is ever made anew. keep-alive.mjs serve|call HOST PORT [CONNECTIONS]
import { Agent, createServer, request } from "node:http";
import { finish, onStop, progress, wrong } from "./report.mjs";

const [role, host, port, connections = "1"] = process.argv.slice(2);

function serve() {
  let number = 0;
  const server = createServer((asked, answer) => {
    asked.socket.requests++;
    answer.end(`${asked.socket.number} ${asked.socket.requests} ${asked.url}`);
  });
  server.on("connection", (socket) => Object.assign(socket, { number: ++number, requests: 0 }));
  server.keepAliveTimeout = 0;
  server.listen(Number(port), host, () => console.log("listening"));
}

function call(stopped) {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  let [number, requests] = ["", 0];
  const ask = () => {
    const path = `/${Math.random()}`;
    const asked = request({ host, port, path, agent }, (answer) => {
      let text = "";
      answer.setEncoding("utf8").on("data", (more) => {
        text += more;
      });
      answer.on("end", () => {
        const [on, count, of] = text.split(" ");
        requests++;
        number ||= on;
        if (on !== number || Number(count) !== requests || of !== path)
          wrong(`'${text}' where '${number} ${requests} ${path}' should be`);
        progress();
        if (!stopped.now) setTimeout(ask, 2);
        else if (++stopped.count === Number(connections)) finish({ connections: stopped.count });
      });
    });
    asked.on("error", (e) => wrong(e.stack));
    asked.end();
  };
  ask();
}

if (role === "serve") serve();
else {
  const stopped = { now: false, count: 0 };
  for (let i = 0; i < Number(connections); i++) call(stopped);
  onStop(() => {
    stopped.now = true;
  });
}
