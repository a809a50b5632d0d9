/**
 * sqlite3 in the middle of a transaction: its file locks must be there again, or another process could write in between.
 */
import { join } from "node:path";
import t from "tap";
import type { Pod } from "virt-run";
import { fiveCycles, leaveNothing, run } from "../support/apps.js";
import { sandbox } from "../support/env.js";
import { needs } from "../support/packages.js";
import { logged, start } from "../support/pods.js";
import { typeInto } from "../support/terminal.js";

leaveNothing(t);

const journals = {
  /** The cache is so small that pages go to the file before the end: an exclusive lock, and a journal that matters. */
  delete: { pragma: "PRAGMA journal_mode = delete; PRAGMA cache_size = 2; PRAGMA cache_spill = 1;", readable: false },
  /** Locks in shared memory, readers beside the writer. */
  wal: { pragma: "PRAGMA journal_mode = wal;", readable: true },
} as const;

const inputs = {
  "a pipe": { stdio: "pipe", say: (pod: Pod, text: string) => pod.stdin?.write(text) },
  "a terminal": { stdio: "terminal", say: typeInto },
} as const;

for (const [journal, { pragma, readable }] of Object.entries(journals)) {
  for (const [what, { stdio, say }] of Object.entries(inputs)) {
    t.test(`journal_mode ${journal}, told through ${what}`, async (t) => {
      const file = join(sandbox, `${journal}-${stdio}.db`);
      /** What another process gets from the file, or its complaint. */
      const other = (sql: string): string => {
        try {
          return run(needs("sqlite3"), [file, sql]).trim();
        } catch (e) {
          return String((e as { stderr?: Buffer }).stderr ?? e);
        }
      };
      let mark = 0;
      /** Says something, and waits until the answer to a question after it shows that it is done. */
      const tell = async (pod: Pod, sql: string) => {
        mark++;
        await say(pod, `${sql} SELECT 'mark' || ${mark};\n`);
        await logged(pod, `mark${mark}\n`.replace("\n", stdio === "terminal" ? "\r\n" : "\n"));
      };
      let rows = 0;
      const insert = (n: number) => {
        rows += n;
        return `INSERT INTO t SELECT value, hex(randomblob(500)) FROM generate_series(${rows - n + 1}, ${rows});`;
      };

      const pod = await start(needs("sqlite3"), [file], { stdio });
      await tell(pod, `${pragma} CREATE TABLE t (n INTEGER PRIMARY KEY, text);`);
      await tell(pod, `${insert(100)} BEGIN; ${insert(200)}`);
      const refused = /database is locked/;
      t.match(other("INSERT INTO t VALUES (-1, '')"), refused, "locked to begin with");
      const proof = async (pod: Pod, cycle: number) => {
        const write = other("INSERT INTO t VALUES (-1, '')");
        if (!refused.test(write)) throw new Error(`another process could write: ${write}`);
        const read = other("SELECT count(*) FROM t");
        if (readable ? read !== "100" : !refused.test(read)) throw new Error(`another process could read: ${read}`);
        await tell(pod, insert(200 * cycle));
      };
      const end = await fiveCycles(pod, proof, stdio === "pipe" ? { reattach: { stdio } } : {});
      await tell(end, "COMMIT; PRAGMA integrity_check;");
      t.notMatch(end.logs().toString(), /Error|error|malformed/);
      t.equal(other("SELECT count(*), sum(n), min(length(text)) FROM t"), `${rows}|${(rows * (rows + 1)) / 2}|1000`);
      t.equal(other("PRAGMA integrity_check"), "ok");
      t.equal(other("INSERT INTO t VALUES (-1, '')"), "", "and nothing is locked any more");
      await say(end, ".exit 7\n");
      t.match(await end.ended(), { code: 7 });
    });
  }
}
