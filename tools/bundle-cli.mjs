// Bundles src/cli/bin.ts and what a plain `virt-run PROGRAM` needs into dist/cli/virt-run.cjs. Whatever is imported
// when it is called for (verbs, the option parser, detach …) stays in its own ES module.
import { chmodSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { build } from "esbuild";

const outfile = "dist/cli/virt-run.cjs";

/** Dynamic imports stay imports, by their path as seen from the bundle. */
const lateModules = {
  name: "late-modules",
  setup({ onResolve }) {
    onResolve({ filter: /^\./ }, ({ kind, path, importer }) => {
      if (kind !== "dynamic-import" || path === "./run-program.js") return undefined;
      const late = relative("src/cli", join(dirname(importer), path));
      return { path: late.startsWith(".") ? late : `./${late}`, external: true };
    });
  },
};

await build({
  entryPoints: ["src/cli/bin.ts"],
  outfile,
  bundle: true,
  platform: "node",
  target: "node20",
  format: "cjs",
  plugins: [lateModules],
  // Modules that look for files beside themselves lie in dist/, one level above the bundle.
  define: { "import.meta.url": "bundleUrl" },
  banner: {
    js: 'const bundleUrl = require("node:url").pathToFileURL(require("node:path").join(__dirname, "..", "bundle.js")).href;',
  },
  logLevel: "warning",
});
chmodSync(outfile, 0o755);
