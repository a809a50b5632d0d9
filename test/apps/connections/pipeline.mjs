// A client of redis that keeps N requests in flight on one connection and checks each answer, in order: a counter that
// must go up by one each time, and texts of all lengths that come back as they are. pipeline.mjs HOST PORT N
import { connect } from "node:net";
import { finish, onStop, progress, wrong } from "./report.mjs";

const [host, port, most] = process.argv.slice(2);
const text = "abcdefghijklmnopqrstuvwxyz0123456789".repeat(200);
const socket = connect(Number(port), host);
const expected = []; // answers, in the order of the requests
let sent = 0;
let stopping = false;
let rest = Buffer.alloc(0);

function fill() {
  let requests = "";
  while (!stopping && expected.length < Number(most)) {
    const n = sent++;
    if (n % 2 === 0) {
      requests += "INCR counter\r\n";
      expected.push(`:${n / 2 + 1}\r\n`);
    } else {
      const word = `${n}.${text.slice(0, (n * 7919) % (n % 101 === 0 ? 7000 : 60))}`;
      requests += `*2\r\n$4\r\nECHO\r\n$${word.length}\r\n${word}\r\n`;
      expected.push(`$${word.length}\r\n${word}\r\n`);
    }
  }
  if (requests) socket.write(requests, "latin1");
}

socket.on("connect", fill);
socket.on("data", (bytes) => {
  rest = rest.length ? Buffer.concat([rest, bytes]) : bytes;
  let at = 0;
  while (expected.length > 0) {
    const next = expected[0];
    if (rest.length - at < next.length) break;
    const got = rest.toString("latin1", at, at + next.length);
    if (got !== next) wrong(`'${got.slice(0, 80)}' where '${next.slice(0, 80)}' should be`);
    at += next.length;
    expected.shift();
    progress();
  }
  rest = rest.subarray(at);
  if (expected.length === 0 && rest.length > 0) wrong(`'${rest}' where nothing was asked`);
  if (stopping && expected.length === 0) finish();
  fill();
});
socket.on("close", () => wrong("closed"));
onStop(() => {
  stopping = true;
});
