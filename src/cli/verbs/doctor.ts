import { existsSync, readFileSync } from "node:fs";
import type { Command } from "commander";
import { describeHost } from "../../image/host.js";
import { native } from "../../native.js";
import { imagesDirectory, podsDirectory, socketDirectory } from "../../pod/paths.js";
import { exitWith } from "../execute.js";
import { jsonOption, verb } from "../options.js";
import { printJson } from "../report.js";

interface Finding {
  name: string;
  ok: boolean;
  /** virt-run cannot work without it. */
  needed: boolean;
  message: string;
  hint?: string;
}

/** `virt-run doctor`: what this host can do and what to change. Exit 1 if something that is needed is missing. */
export function command(): Command {
  const c = verb(
    "doctor",
    "show what this host can do and what to change; exit 1 if something is missing",
    "doctor",
  ).addOption(jsonOption());
  return c.action((o: { json?: boolean }) => {
    const probe = native.probe();
    const findings = [...features(probe.features), ...directories()];
    const host = describeHost();
    const ok = findings.every((f) => f.ok || !f.needed);
    if (o.json) {
      printJson({
        ok,
        kernel: probe.kernel,
        arch: probe.arch,
        node: process.version,
        user: process.geteuid?.(),
        cpu: host.cpu,
        findings,
      });
    } else {
      const lines = [
        `kernel ${probe.kernel} on ${probe.arch}, Node ${process.version}, ${process.geteuid?.() === 0 ? "root" : `user ${process.geteuid?.()}`}`,
        `CPU ${host.cpu.model}`,
      ];
      for (const f of findings) {
        lines.push(`  ${f.ok ? "ok  " : f.needed ? "NO  " : "—   "}${f.name.padEnd(24)} ${f.message}`);
        if (!f.ok && f.hint) lines.push(`        ${f.hint}`);
      }
      lines.push(ok ? "virt-run works here." : "virt-run cannot work here yet.");
      process.stdout.write(`${lines.join("\n")}\n`);
    }
    exitWith(c, ok ? 0 : 1);
  });
}

const explained: Record<string, { needed: boolean; yes: string; no: string; hint: () => string }> = {
  namespaces: { needed: true, yes: "pods can be made", no: "pods cannot be made", hint: namespaceHint },
  isolation: {
    needed: false,
    yes: "--ro, --rw, --hide and --no-net can be had",
    no: "--ro, --rw, --hide and --no-net cannot be had",
    hint: () => `needs kernel 5.12, and user namespaces (for root too): ${namespaceHint()}`,
  },
  timeNamespace: {
    needed: false,
    yes: "clocks go on from where they were",
    no: "CLOCK_MONOTONIC will jump at reattach",
    hint: () => "needs kernel 5.6 with CONFIG_TIME_NS",
  },
  kcmp: {
    needed: true,
    yes: "shared handles are recognised",
    no: "handles cannot be compared",
    hint: () => "needs a kernel with CONFIG_KCMP",
  },
  pidfdGetfd: {
    needed: true,
    yes: "handles can be taken",
    no: "handles cannot be taken",
    hint: () => "needs kernel 5.6",
  },
  checkpointRestore: {
    needed: true,
    yes: "pids and thread addresses can be had back",
    no: "threads cannot be rebuilt",
    hint: () => "needs a kernel with CONFIG_CHECKPOINT_RESTORE",
  },
  userfaultfd: {
    needed: false,
    yes: "pages are put in place fast",
    no: "pages are written through /proc instead, slower",
    hint: () => "needs kernel 5.11 with CONFIG_USERFAULTFD",
  },
  pagemapScan: {
    needed: false,
    yes: "pages are found fast",
    no: "pages are found by reading pagemap, slower",
    hint: () => "needs kernel 6.7",
  },
};

function features(probed: Record<string, true | string>): Finding[] {
  return Object.entries(explained).map(([name, e]) => {
    const result = probed[name];
    const ok = result === true;
    return {
      name,
      ok,
      needed: e.needed,
      message: ok ? e.yes : `${e.no} (${result})`,
      ...(ok ? {} : { hint: e.hint() }),
    };
  });
}

/** Why user namespaces may be forbidden, and how to allow them: the usual three ways distributions do it. */
function namespaceHint(): string {
  const setting = (path: string) => (existsSync(path) ? readFileSync(path, "utf8").trim() : undefined);
  if (setting("/proc/sys/kernel/unprivileged_userns_clone") === "0")
    return "sysctl -w kernel.unprivileged_userns_clone=1";
  if (setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") === "1")
    return "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for virt-init that allows userns";
  if (setting("/proc/sys/user/max_user_namespaces") === "0") return "sysctl -w user.max_user_namespaces=15000";
  return "user namespaces are forbidden here (a container's seccomp profile?); run as root, or allow unshare(2)";
}

function directories(): Finding[] {
  return [
    ["sockets", socketDirectory],
    ["pods", podsDirectory],
    ["images", imagesDirectory],
  ].map(([name, find]) => {
    try {
      return { name: name as string, ok: true, needed: true, message: (find as () => string)() };
    } catch (e) {
      return {
        name: name as string,
        ok: false,
        needed: true,
        message: (e as Error).message,
        hint: "remove it; virt-run makes its own with the right owner and mode",
      };
    }
  });
}
