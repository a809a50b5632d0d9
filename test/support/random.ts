/**
 * Random numbers that come again: a test prints the seed it fails with, and VIRT_RUN_SEED=n runs that one alone.
 */

/** Mulberry32: 32 bits of state, good enough to choose with. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** At least 0, below 1. */
  fraction(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let n = this.#state;
    n = Math.imul(n ^ (n >>> 15), n | 1);
    n ^= n + Math.imul(n ^ (n >>> 7), n | 61);
    return ((n ^ (n >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number, at least 0 and below `limit`. */
  below(limit: number): number {
    return Math.floor(this.fraction() * limit);
  }

  chance(probability: number): boolean {
    return this.fraction() < probability;
  }

  pick<T>(list: readonly T[]): T {
    if (list.length === 0) throw new Error("nothing to pick from");
    return list[this.below(list.length)] as T;
  }
}

/** `count` seeds, or the one that VIRT_RUN_SEED asks for. */
export function seeds(count: number): number[] {
  const wanted = process.env["VIRT_RUN_SEED"];
  return wanted === undefined ? Array.from({ length: count }, (_, i) => i + 1) : [Number(wanted)];
}
