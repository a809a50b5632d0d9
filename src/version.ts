import { createRequire } from "node:module";

/**
 * This virt-run's version, as package.json has it (semver).
 *
 * @example
 * console.log(`virt-run ${version}`);
 */
export const version: string = (createRequire(import.meta.url)("../package.json") as { version: string }).version;
