// `full-disk.mjs DIRECTORY PROGRAM`, where DIRECTORY is on a file system too small for the program's memory: launches
// it, tries to detach and to snapshot it there, and prints as JSON what came of it.
import { readdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { launch } from "virt-run";

const [directory, program] = process.argv.slice(2);
const pod = await launch(program, [], { stdio: "log", cwd: "/" });
const laps = () => pod.logs().toString().split("\n").slice(0, -1);
const goesOn = async () => {
  const before = laps().length;
  for (let i = 0; i < 1000 && pod.running && laps().length < before + 20; i++) await sleep(10);
  return laps().length >= before + 20 && laps().every((line, i) => line === `lap ${i + 1}`);
};
const results = [];
for (const kind of ["detach", "snapshot", "detach"]) {
  const went = await goesOn();
  const error = await pod[kind]({ image: `${directory}/image` }).catch((e) => e);
  const { code, errnoName, message } = error;
  results.push({ kind, went, code, errnoName, message, left: readdirSync(directory), goesOn: await goesOn() });
}
await pod.destroy();
pod.remove();
console.log(JSON.stringify(results));
process.exit(0);
