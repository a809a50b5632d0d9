// What the programs at the ends of connections share: a line `n COUNT` now and then, an account as JSON at the end, and an end
// that comes when standard input says so. Anything that is wrong ends the program with what it was.

let count = 0;
let last = performance.now();
let longestMs = 0;
let ending;

process.on("uncaughtException", (e) => {
  console.error(e.stack);
  process.exit(1);
});

/** One more exchange went well; the longest time between two of them is part of the account. */
export function progress(more = 1) {
  const now = performance.now();
  longestMs = Math.max(longestMs, now - last);
  last = now;
  count += more;
}

setInterval(() => console.log(`n ${count}`), 20).unref();

/** Calls `stop` when the test asks for the end; it then calls finish(). */
export function onStop(stop) {
  process.stdin.once("data", stop); // its end says nothing: a pod has no input
}

export function finish(more = {}) {
  if (ending) return;
  ending = true;
  process.stdout.write(`${JSON.stringify({ count, longestMs: Math.round(longestMs), ...more })}\n`, () => process.exit(0));
}

export function wrong(what) {
  throw new Error(`WRONG: ${what}`);
}
