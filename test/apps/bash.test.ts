/**
 * bash: a loop that starts a pipeline for each number it counts, and a background job that counts too.
 */
import t from "tap";
import { countedUp, fiveCycles, leaveNothing, linesWith } from "../support/apps.js";
import { needs } from "../support/packages.js";
import { logged, start, until } from "../support/pods.js";

leaveNothing(t);

const script = `
job() { local i=0; while :; do echo "job $((i++))"; sleep 0.01; done; }
job &
n=0
while kill -0 $!; do
  echo "$n of $$" | sed 's/^/main /' | cat
  ((n++))
done
echo "the background job is gone"
`;

t.test("a loop with a pipeline and a background job", async (t) => {
  const pod = await start(needs("bash"), ["-c", script]);
  await logged(pod, "main 5 ");
  const shell = linesWith(pod.logs(), "main ")[0]?.split(" of ")[1];
  let seen = { main: 0, job: 0 };
  const count = (log: Buffer) => ({
    main: countedUp(
      linesWith(log, "main ").map((line) => line.replace(` of ${shell}`, "")),
      "the loop",
    ),
    job: countedUp(linesWith(log, "job "), "the background job"),
  });
  const end = await fiveCycles(pod, async (pod) => {
    const before = seen;
    seen = await until("both to go on", () => {
      const now = count(pod.logs());
      return now.main > before.main + 5 && now.job > before.job + 5 && now;
    });
  });
  t.ok(seen.main > 25 && seen.job > 25, `counted to ${seen.main} and ${seen.job}`);
  t.notMatch(end.logs().toString(), "background job is gone");
  await end.kill("SIGTERM");
  t.match(await end.wait(), { code: null, signal: "SIGTERM" });
});
