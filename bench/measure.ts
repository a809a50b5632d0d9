/**
 * Ratios measured side by side: what is compared runs alternately in one process, so that a slow moment of the machine
 * falls on both.
 */

export interface Row {
  what: string;
  ours: string;
  against: string;
  ratio: number | undefined;
  /** The ratio (or figure) that should not be exceeded, or fallen below. */
  goal: string;
  met: boolean;
}

export const rows: Row[] = [];

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

export function timed<T>(f: () => Promise<T>): Promise<{ ms: number; value: T }> {
  const start = performance.now();
  return f().then((value) => ({ ms: performance.now() - start, value }));
}

/** Prints a row as soon as it is known. */
export function report(row: Row): void {
  rows.push(row);
  const ratio = row.ratio === undefined ? "" : row.ratio.toFixed(2);
  process.stdout.write(
    `${row.met ? "ok  " : "MISS"} ${row.what.padEnd(58)} ${row.ours.padStart(12)} ${row.against.padStart(16)} ${ratio.padStart(6)}${row.goal === "" ? "" : `   goal ${row.goal}`}\n`,
  );
}

/** ours / anchor from alternating runs: the median of the pairs' ratios, with the medians of both shown. */
export function reportRatio(what: string, ours: number[], anchor: number[], most: number, unit = "ms"): void {
  const ratio = median(ours.map((o, i) => o / (anchor[i] as number)));
  report({
    what,
    ours: `${median(ours).toFixed(1)} ${unit}`,
    against: `of ${median(anchor).toFixed(1)} ${unit}`,
    ratio,
    goal: `≤ ${most}`,
    met: ratio <= most,
  });
}

/** inside / outside of a throughput: at least `least`. */
export function reportShare(what: string, inside: number[], outside: number[], least: number, unit: string): void {
  const ratio = median(inside.map((o, i) => o / (outside[i] as number)));
  report({
    what,
    ours: `${median(inside).toFixed(0)} ${unit}`,
    against: `of ${median(outside).toFixed(0)} ${unit}`,
    ratio,
    goal: `≥ ${least}`,
    met: ratio >= least,
  });
}

/** Of a figure; without a goal if `most` is infinite. */
export function reportMost(what: string, values: number[], most: number, unit: string): void {
  const value = median(values);
  report({
    what,
    ours: `${value.toFixed(1)} ${unit}`,
    against: "",
    ratio: undefined,
    goal: Number.isFinite(most) ? `≤ ${most} ${unit}` : "",
    met: value <= most,
  });
}
