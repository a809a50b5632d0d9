/**
 * The command `virt-run`. The first word that is a verb is the verb; anything else is a program to run. Each verb is
 * a module of its own, loaded when it is called: `virt-run -- true` loads next to nothing.
 */
import { aliases, type Verb, verbs } from "./verbs.js";

function verbOf(word: string | undefined): Verb | undefined {
  if (word === undefined) return "help";
  if (word === "--help" || word === "-h") return "help";
  if (word === "--version" || word === "-V") return "version";
  return Object.hasOwn(verbs, word) ? (word as Verb) : aliases[word];
}

/** Runs the command line; gives the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const verb = verbOf(args[0]);
  const rest = verb === undefined ? [...args] : args.slice(1);
  try {
    // Nothing to parse before a program: no need for the parser.
    if (verb === undefined && !(args[0] as string).startsWith("-")) return await runPlainly(rest);
    if (verb === undefined && args[0] === "--" && args.length > 1) return await runPlainly(rest.slice(1));
    const { execute } = await import("./execute.js");
    return await execute(verb ?? "run", rest);
  } catch (e) {
    const { reportError } = await import("./report.js");
    return reportError(e, { json: false, launching: verb === undefined || verb === "run" });
  }
}

async function runPlainly(words: string[]): Promise<number> {
  const { runProgram } = await import("./run-program.js");
  return runProgram(words, {});
}
