// Timers, a worker thread and an HTTP server that tells of them. Argument: the port.
import { createServer } from "node:http";
import { Worker } from "node:worker_threads";

const state = { ticks: 0, immediates: 0, workerTicks: 0, wrongSums: 0, wentBack: 0, longestGapMs: 0, requests: 0 };

// A worker that computes and has a timer of its own; it answers every message.
const worker = new Worker(
  `const { parentPort } = require("node:worker_threads");
   parentPort.on("message", (n) => {
     let sum = 0;
     for (let i = 0; i <= n; i++) sum += i;
     setTimeout(() => parentPort.postMessage({ n, sum }), 1);
   });`,
  { eval: true },
);
worker.on("message", ({ n, sum }) => {
  if (sum !== (n * (n + 1)) / 2) state.wrongSums++;
  state.workerTicks++;
  worker.postMessage(n + 1);
});
worker.postMessage(1000);

let last = process.hrtime.bigint();
setInterval(() => {
  const now = process.hrtime.bigint();
  const gapMs = Number(now - last) / 1e6;
  if (gapMs < 0) state.wentBack++;
  state.longestGapMs = Math.max(state.longestGapMs, gapMs);
  last = now;
  state.ticks++;
}, 5);

(function again() {
  state.immediates++;
  setTimeout(() => setImmediate(again), 3);
})();

createServer((request, response) => {
  state.requests++;
  if (request.url === "/forget-gap") state.longestGapMs = 0;
  response.setHeader("connection", "close");
  response.end(JSON.stringify(state));
}).listen(Number(process.argv[2]), "127.0.0.1", () => console.log("listening"));
