/**
 * Parses a verb's options with commander and runs it. Usage errors are 2, or 125 when a program was to be launched.
 */
import { CommanderError } from "commander";
import { VirtError } from "../errors.js";
import { reportError } from "./report.js";
import { type Verb, verbs } from "./verbs.js";

/** Verbs after which the words belong to a program, so that their own failures must not look like its. */
const launching = new Set<Verb>(["run", "exec", "reattach", "attach"]);

export async function execute(verb: Verb, words: string[]): Promise<number> {
  const command = (await verbs[verb]()).command();
  // A usage error may come before the parser has seen the option.
  const json = () =>
    command.opts<{ json?: boolean }>().json === true ||
    (command.options.some((o) => o.long === "--json") && words.includes("--json"));
  let code = 0;
  command.exitOverride().configureOutput({
    outputError: (text, write) => {
      if (!json()) write(text.replace(/^error: /, "virt-run: "));
    },
  });
  // An image beyond `ulimit -f` is an error to be told (EFBIG), not the end of us.
  process.on("SIGXFSZ", () => {});
  try {
    await command.parseAsync(words, { from: "user" });
    code = exitCodes.get(command) ?? 0;
  } catch (e) {
    if (e instanceof CommanderError) {
      if (e.exitCode === 0) return 0;
      if (json()) {
        const usage = new VirtError("ERR_USAGE", e.message.replace(/^error: /, ""));
        return reportError(usage, { json: true, launching: launching.has(verb) });
      }
      return launching.has(verb) ? 125 : 2;
    }
    return reportError(e, { json: json(), launching: launching.has(verb) });
  }
  return code;
}

const exitCodes = new WeakMap<object, number>();

/** What a verb's action calls to end with another code than 0. */
export function exitWith(command: object, code: number): void {
  exitCodes.set(command, code);
}
