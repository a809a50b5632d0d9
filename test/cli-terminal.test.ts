/**
 * The command line at a terminal: what is typed and shown, several viewers, a detach under them; and the tour.
 */
import t from "tap";
import { leaveNothing } from "./support/apps.js";
import { background, json, virtRun, virtRunning, virtRunOnTerminal } from "./support/cli.js";
import { until } from "./support/pods.js";

leaveNothing(t);

t.test("terminals: size, leaving and coming back, keys, detach under a viewer", async (t) => {
  const run = virtRunOnTerminal(
    ["run", "--name", "shell", "-e", "PS1=ready$ ", "bash", "--norc"],
    "stty rows 33 columns 111; ",
  );
  const type = (text: string, what: RegExp, on = run) => {
    const since = on.said.out.length;
    on.child.stdin?.write(text);
    return until(`${what} after ${JSON.stringify(text)}; it shows ${JSON.stringify(on.said.out)}`, () =>
      what.test(on.said.out.slice(since)),
    );
  };
  await until("a prompt", () => run.said.out.includes("ready$ "));
  await type("stty size\r", /33 111/);
  await type("sh -c 'echo going; exec sleep 1000'\r", /going\r/);
  await type("\x03", /\^C.*ready\$ /s);
  await type("\x1dd", /left shell, which runs on/);
  t.match(await run.ended, { code: 0 });

  const again = virtRunOnTerminal(["attach", "shell"], "stty rows 40 columns 99; ");
  await type("\r", /ready\$ /, again);
  await type("stty size\r", /40 99/, again);
  const look = virtRunOnTerminal(["attach", "-r", "shell"]);
  await until("both to view it", async () => (await json("inspect", "shell"))["viewers"] === 2);
  await type("echo seen $((40 + 2))\r", /seen 42/, again);
  await until("the other viewer to see it", () => look.said.out.includes("seen 42"));
  look.child.stdin?.write("echo not $((1 + 1)) typed\r");
  t.match(await virtRun(["detach", "shell", "-o", "shell"]), { code: 0 });
  t.match(await again.ended, { code: 125, out: /was detached/ });
  t.match(await look.ended, { code: 125 });
  t.notMatch(again.said.out, /not 2 typed/, "one who only looks cannot type");

  const back = virtRunOnTerminal(["reattach", "shell"], "stty rows 50 columns 120; ");
  await type("\r", /ready\$ /, back);
  await type("stty size\r", /50 120/, back);
  t.match(await virtRun(["exec", "-t", "shell", "tty"]), { code: 0, out: /^\/dev\/pts\/\d+\r\n$/ });
  await type("exit 12\r", /exit/, back);
  t.match(await back.ended, { code: 12 });
  for (let n = 0; n < 3; n++)
    t.match(
      await virtRunOnTerminal(["sh", "-c", "echo quick; exit 15"]).ended,
      { code: 15, out: /quick/ },
      "one that is done at once",
    );
  t.match(await virtRunOnTerminal(["no-such-program"]).ended, { code: 127, out: /ERR_NOT_FOUND/ });
  t.match(await virtRun(["attach", "shell"]), { code: 125, err: /ERR_POD_GONE/ });

  const inherits = virtRunning(["run", "--name", "inherits", "sh", "-c", "echo up; exec sleep 1000"]);
  await until("it runs", () => inherits.said.out.includes("up"));
  t.match(await virtRun(["attach", "inherits"]), { code: 125, err: /no terminal or streams.*\(ERR_NO_TERMINAL\)/ });
  await virtRun(["rm", "-f", "inherits"]);
  await inherits.ended;

  await background("--name", "plain", "sleep", "1000");
  t.match(
    await virtRun(["run", "-t", "--rm", "sh", "-c", "test -t 1 && exit 13"]),
    { code: 13 },
    "-t without a terminal",
  );
  t.match(await virtRunOnTerminal(["run", "--no-tty", "--rm", "sh", "-c", "tty; exit 14"]).ended, { code: 14 });
});

t.test("tour", async (t) => {
  t.match(await virtRun(["tour", "--fast"]), { code: 0 });
});
