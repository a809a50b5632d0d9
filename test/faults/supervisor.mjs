// A supervisor that may be killed: `supervisor.mjs detach|snapshot POD IMAGE` or `supervisor.mjs reattach IMAGE`.
// Prints "begin" when everything is loaded, then one line of JSON: what came of it.
import { writeSync } from "node:fs";
import { connect, openImage, reattach } from "virt-run";

const [what, subject, path] = process.argv.slice(2);
const pod = what === "reattach" ? undefined : await connect(subject);
// Loads all modules.
await (pod ? pod.status() : openImage(subject));
writeSync(1, "begin\n");
let result;
try {
  if (what === "reattach") result = { done: (await reattach(subject, { stdio: "log" })).id };
  else {
    const options = { image: path, withFiles: "all" };
    result = { done: (await (what === "detach" ? pod.detach(options) : pod.snapshot(options))).path };
  }
} catch (e) {
  result = { code: e.code, message: e.message };
}
writeSync(1, `${JSON.stringify(result)}\n`);
process.exit(0);
