// Servers for clients in a pod, and clients for servers in one.
//   count.mjs serve ADDRESS PORT        sends back each line it gets, which must be a number that is one more than the last
//   count.mjs download ADDRESS PORT N   answers HTTP with N bytes that are as good as random; their sha256 is its account
//   count.mjs udp ROLE ADDRESS PORT [N] both send numbers 60 times a second and check those of the other; N times some may be missing
//   count.mjs call ADDRESS [PORT]       the client of `serve`; an address with a / is that of a unix socket
import { createCipheriv, createHash } from "node:crypto";
import { createSocket } from "node:dgram";
import { createServer as createHttp } from "node:http";
import { connect, createServer } from "node:net";
import { createInterface } from "node:readline";
import { finish, onStop, progress, wrong } from "./report.mjs";

const [kind, ...words] = process.argv.slice(2);
const listening = () => console.log("listening");
const at = ([host, port]) => (host.includes("/") ? { path: host } : { host, port: Number(port) });

/** Lines that are 0, 1, 2 … */
function counts(socket, each) {
  let next = 0;
  const lines = createInterface({ input: socket }).on("line", (line) => {
    if (line !== String(next)) wrong(`'${line}' where ${next} should be`);
    next++;
    progress();
    each(line);
  });
  // Whoever is killed with an answer unread resets the connection; one that is reset before that makes no progress.
  const failed = (e) => e.code === "ECONNRESET" || e.code === "EPIPE" || wrong(e.message);
  lines.on("error", failed);
  socket.on("error", failed);
}

const does = {
  serve() {
    let connections = 0;
    createServer((socket) => {
      connections++;
      counts(socket, (line) => socket.write(`${line}\n`));
    }).listen(at(words), listening);
    onStop(() => finish({ connections }));
  },
  call() {
    const socket = connect(at(words));
    let sent = 1;
    counts(socket, () => setTimeout(() => socket.write(`${sent++}\n`), 1));
    socket.write("0\n");
    onStop(() => finish());
  },
  download() {
    let sha256 = "";
    createHttp((_, answer) => {
      const cipher = createCipheriv("aes-128-ctr", Buffer.alloc(16, 7), Buffer.alloc(16));
      const zeros = Buffer.alloc(1 << 20);
      const hash = createHash("sha256");
      let left = Number(words[2]);
      answer.writeHead(200, { "content-length": left });
      const more = () => {
        while (left > 0) {
          const bytes = cipher.update(zeros.subarray(0, Math.min(left, zeros.length)));
          left -= bytes.length;
          hash.update(bytes);
          progress();
          if (!answer.write(bytes)) return answer.once("drain", more);
        }
        sha256 = hash.digest("hex");
        answer.end();
      };
      more();
    }).listen(at(words), listening);
    onStop(() => finish({ sha256 }));
  },
  udp() {
    const [role, host, port, most = "0"] = words;
    const socket = createSocket(host.includes(":") ? "udp6" : "udp4");
    let [sent, got, gaps] = [0, 0, 0];
    let peer = role === "call" ? { port: Number(port), address: host } : undefined;
    socket.on("message", (message, from) => {
      peer ??= from;
      const number = Number(message);
      if (number > got && gaps < Number(most)) gaps++;
      else if (number !== got) wrong(`${message} where ${got} should be`);
      got = number + 1;
      progress();
    });
    setInterval(() => peer && socket.send(String(sent++), peer.port, peer.address), 1000 / 60);
    if (role === "serve") socket.bind(Number(port), host, listening);
    onStop(() => finish({ sent, got }));
  },
};
does[kind]();
