// An agent with options of a test's: says where it listens, and ends when its standard input does.
import { startAgent } from "../../dist/move/transport/agent.js";

const agent = await startAgent({ ...JSON.parse(process.argv[2]), log: (text) => process.stderr.write(`${text}\n`) });
process.stdout.write(`${JSON.stringify({ address: agent.address, port: agent.port })}\n`);
process.stdin.resume();
process.stdin.on("end", () => {
  agent.cut();
  void agent.close().then(() => process.exit(0));
});
