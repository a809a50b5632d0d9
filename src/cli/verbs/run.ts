import { readFileSync } from "node:fs";
import { type Command, Option } from "commander";
import { VirtError } from "../../errors.js";
import { parseRemaps } from "../../remap/path.js";
import type { Recording } from "../../rules/interposition.js";
import { type CallName, parseRules } from "../../rules/rules.js";
import { exitWith } from "../execute.js";
import { collect, verb } from "../options.js";
import { runProgram } from "../run-program.js";

/** `virt-run run`: launches a program. */
export function command(): Command {
  const c = verb(
    "run",
    "launch a program in a pod; the word run may be left out",
    "-d --name cache redis-server --port 7000",
    "run --remap path:/data=/mnt/data -e TZ=UTC make test",
    "run --ro / --rw $PWD --hide ~/.ssh --no-net make",
  )
    .argument("<command...>", "the program and its arguments")
    .option("--name <name>", "a name for the pod (default: its id)")
    .option("-d, --detached", "in the background; print the pod's id")
    .option("-i, --interactive", "with -d: keep standard input open, empty, instead of /dev/null")
    .option("-t, --tty", "give it a terminal (automatic when standard input and output are one)")
    .option("--no-tty", "give it no terminal")
    .option("-e, --env <KEY[=VALUE]>", "set an environment variable; ours are passed on; may be repeated", collect)
    .option("--env-file <file>", "environment variables from a file of KEY=VALUE lines; -e wins", collect)
    .option("-w, --workdir <dir>", "working directory, as the pod sees it (default: this one)")
    .option("--hostname <name>", "host name inside the pod, and in its /etc/hostname")
    .option("--machine-id <id>", "what /etc/machine-id says in the pod: 32 hexadecimal digits, or random")
    .option("--ro <path>", "it cannot be written in the pod, with all below it; may be repeated", collect)
    .option("--rw <path>", "it can, though it lies in a read-only one; may be repeated", collect)
    .option("--hide <path>", "something empty is there in the pod; may be repeated", collect)
    .option("--no-net", "no network but the pod's own loopback")
    .option("--rm", "forget the pod and its log when it has ended (not when it was detached)")
    .option("--label <key=value>", "a label, for ps --filter; may be repeated", collect)
    .option("--remap <rule>", "path:OLD=NEW, port:OLD=NEW or addr:OLD=NEW: what it knows as OLD is NEW here", collect)
    .option("--rule <file>", "rules for its system calls, as JSON (docs/interposer.md); may be repeated", collect)
    .option("--cover <call>", "a kind of call that rules set later may be about; may be repeated", collect)
    .addOption(
      new Option("--record <what>", "keep a journal of what it does outside, for virt-run effects")
        .choices(["none", "default", "all"])
        .default("default"),
    )
    .option("--detach-keys <keys>", "keys that leave the terminal; the program runs on", "ctrl-],d")
    .option("--status-fd <n>", "write JSON lines to this descriptor: started, then exited or detached", Number)
    .passThroughOptions();
  return c.action(async (words: string[], o: Record<string, unknown>) => {
    const remaps = ((o["remap"] as string[] | undefined) ?? []).map((rule) =>
      /^(path|port|addr):/.test(rule) ? rule : `path:${rule}`,
    );
    const rules = ((o["rule"] as string[] | undefined) ?? []).flatMap((file) =>
      parseRules(readFileSync(file, "utf8"), file),
    );
    const code = await runProgram(words, {
      ...(o["name"] === undefined ? {} : { name: o["name"] as string }),
      env: environment(o["env"] as string[] | undefined, o["envFile"] as string[] | undefined),
      ...(o["workdir"] === undefined ? {} : { cwd: o["workdir"] as string }),
      ...(o["hostname"] === undefined ? {} : { hostname: o["hostname"] as string }),
      ...(o["machineId"] === undefined ? {} : { machineId: o["machineId"] as string }),
      isolate: {
        readOnly: (o["ro"] as string[] | undefined) ?? [],
        writable: (o["rw"] as string[] | undefined) ?? [],
        hide: (o["hide"] as string[] | undefined) ?? [],
        ...(o["net"] === false ? { network: "none" as const } : {}),
      },
      labels: labels(o["label"] as string[] | undefined),
      remap: parseRemaps(remaps),
      rules,
      cover: (o["cover"] as CallName[] | undefined) ?? [],
      removeAtEnd: o["rm"] === true,
      record: o["record"] as Recording,
      background: o["detached"] === true,
      ...(c.getOptionValueSource("tty") === undefined ? {} : { terminal: o["tty"] === true }),
      interactive: o["interactive"] === true,
      detachKeys: o["detachKeys"] as string,
      ...(o["statusFd"] === undefined ? {} : { statusFd: o["statusFd"] as number }),
    });
    exitWith(c, code);
  });
}

/** -e KEY passes our own value on, -e KEY=VALUE sets one; files hold KEY=VALUE lines and # comments. */
export function environment(settings: string[] = [], files: string[] = []): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { ...process.env };
  const lines = files.flatMap((f) =>
    readFileSync(f, "utf8")
      .split("\n")
      .filter((line) => line.trim() !== "" && !line.startsWith("#")),
  );
  for (const setting of [...lines, ...settings]) {
    const equals = setting.indexOf("=");
    if (equals === 0) throw new VirtError("ERR_USAGE", `'${setting}' has no variable name`);
    if (equals > 0) env[setting.slice(0, equals)] = setting.slice(equals + 1);
  }
  return env;
}

function labels(list: string[] = []): Record<string, string> {
  return Object.fromEntries(list.map((l) => [l.split("=")[0] as string, l.split("=").slice(1).join("=")]));
}
