#!/usr/bin/env node
/**
 * The file that `virt-run` is: bundled into one CommonJS file (tools/bundle-cli.mjs), because most of what Node takes to
 * launch a program would otherwise be loading modules one by one.
 */
import { main } from "./main.js";

// Exiting at once spares taking Node apart; on Linux nothing that was written is still waiting (process I/O in Node's
// documentation).
void main(process.argv.slice(2)).then((code) => process.exit(code));
