// npm's install step: node-gyp, which follows binding.gyp to cmake-js. node-gyp wants Node's headers even for that; those
// that lie beside the interpreter save it the download.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

const prefix = dirname(dirname(process.execPath));
const env = { ...process.env };
if (env.npm_config_nodedir === undefined && existsSync(join(prefix, "include/node/common.gypi")))
  env.npm_config_nodedir = prefix;
const { status, error } = spawnSync("node-gyp", ["rebuild"], { stdio: "inherit", env });
if (error) console.error(`node-gyp: ${error.message}; npm has one of its own and puts it into PATH`);
process.exit(status ?? 1);
