/**
 * What an image says of the host it was made on, and what a host must have to take it.
 */
import { readFileSync } from "node:fs";
import { hostname, machine, release } from "node:os";
import { pageBytes } from "./format.js";
import type { Manifest } from "./manifest.js";

/** This host, as an image describes it. */
export function describeHost(): Manifest["host"] {
  const cpuinfo = readFileSync("/proc/cpuinfo", "utf8");
  const field = (key: string) => new RegExp(`^${key}\\s*: (.*)$`, "m").exec(cpuinfo)?.[1] ?? "";
  return {
    name: hostname(),
    kernel: release(),
    arch: machine(),
    pageSizeBytes: pageBytes,
    cpu: {
      model: field("model name"),
      features: field("flags")
        .split(" ")
        .filter((f) => programFeatures.has(f))
        .sort(),
    },
  };
}

/**
 * Features a program can come to depend on when it looks at cpuid: instruction sets, by their names in /proc/cpuinfo.
 * Others there (virtualisation, errata, what only the kernel uses) do not matter to a moved program.
 */
const programFeatures = new Set(
  `fpu cx8 cmov mmx fxsr sse sse2 ht syscall mmxext fxsr_opt rdtscp lm 3dnowext 3dnow pni pclmulqdq ssse3 fma cx16 sse4_1
   sse4_2 movbe popcnt aes xsave avx f16c rdrand lahf_lm abm sse4a misalignsse 3dnowprefetch xop fma4 tbm fsgsbase bmi1
   hle avx2 bmi2 erms rtm avx512f avx512dq rdseed adx avx512ifma clflushopt clwb avx512cd sha_ni avx512bw avx512vl
   xsaveopt xsavec avx_vnni avx512_bf16 clzero avx512vbmi avx512_vbmi2 gfni vaes vpclmulqdq avx512_vnni avx512_bitalg
   avx512_vpopcntdq rdpid cldemote movdiri movdir64b fsrm avx512_vp2intersect serialize amx_bf16 avx512_fp16 amx_tile
   amx_int8 avx_ifma avx_ne_convert amx_fp16 avx_vnni_int8 sha512 sm3 sm4 cmpccxadd avx10 apx_f pku waitpkg enqcmd`.split(
    /\s+/,
  ),
);
