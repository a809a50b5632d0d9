/**
 * Rules as bytes: the mirror of native/interpose/rules.cc.
 */
import type { CompiledRule } from "./rules.js";

/** Bytes in the order they are added: the mirror of native/sys/wire.h. */
export class Writer {
  readonly #parts: Buffer[] = [];

  number(bytes: 1 | 2 | 4 | 8, n: number | bigint): this {
    const part = Buffer.alloc(8);
    part.writeBigInt64LE(BigInt.asIntN(64, BigInt(n)));
    this.#parts.push(part.subarray(0, bytes));
    return this;
  }

  text(text: string | Buffer): this {
    const bytes = Buffer.from(text as string);
    this.number(4, bytes.length);
    this.#parts.push(bytes);
    return this;
  }

  done(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

export function encodeRules(rules: readonly CompiledRule[]): Buffer {
  const out = new Writer().number(4, rules.length);
  for (const r of rules) {
    out.number(4, r.kinds).text(r.path).text(r.program).text(r.address).number(1, r.prefix);
    out.number(2, r.portFrom).number(2, r.portTo).number(4, r.family);
    out.number(1, r.verdict).number(4, r.errno).text(r.toPath).text(r.toAddress).number(4, r.toPort);
    out.number(4, r.timeoutMs).number(1, r.fallback).number(4, r.fallbackErrno);
  }
  return out.done();
}
