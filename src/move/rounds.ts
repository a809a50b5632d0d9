/**
 * When copying before the stop is enough: what the stop would take now, and whether another round would make it shorter.
 */

/** A round of copying while the pod runs. */
export interface CopyRound {
  /** What went across in it, in bytes. */
  sentBytes: number;
  /** What was written to meanwhile and has to go again, in bytes. */
  dirtyBytes: number;
  /** False: the kernel does not say what was written, so everything has to go again. */
  tracked: boolean;
  /** How long it took. */
  ms: number;
}

/** What is wanted of the stop. */
export interface RoundsGoal {
  /** How long the pod may stand still. */
  downtimeMs: number;
  /** What of that goes by whatever there is to send: freezing, kernel state, building, commit. */
  fixedMs: number;
  mostRounds: number;
}

/** What a round showed. */
export interface RoundVerdict {
  /**
   * Whether to copy once more: "again". Otherwise why not: the rest fits the goal, it does not shrink, there were enough
   * rounds, nobody can say what the rest is.
   */
  next: "again" | "fits" | "steady" | "most" | "untracked";
  /** Of the newest rounds; 0 if nothing was sent. */
  bytesPerSecond: number;
  /** How long the pod would stand still if it stopped now. */
  expectedStopMs: number;
}

/** A round says how fast the way is only if it sent this much: small ones measure round trips. */
const tellingBytes = 1 << 20;
/** A rest that is more than this of the last one has not shrunk. */
const shrinksTo = 0.85;

/**
 * What to do after the rounds so far, of which there is at least one.
 *
 * @example
 * const { next, expectedStopMs } = judgeRounds(rounds, { downtimeMs: 100, fixedMs: 30, mostRounds: 30 });
 */
export function judgeRounds(rounds: readonly CopyRound[], goal: RoundsGoal): RoundVerdict {
  const last = rounds.at(-1) as CopyRound;
  const bytesPerSecond = measuredRate(rounds);
  const restMs = last.dirtyBytes === 0 ? 0 : bytesPerSecond === 0 ? 0 : (last.dirtyBytes / bytesPerSecond) * 1000;
  const expectedStopMs = Math.round(goal.fixedMs + restMs);
  const next = !last.tracked
    ? "untracked"
    : last.dirtyBytes === 0 || expectedStopMs <= goal.downtimeMs
      ? "fits"
      : rounds.length >= goal.mostRounds
        ? "most"
        : isSteady(rounds)
          ? "steady"
          : "again";
  return { next, bytesPerSecond, expectedStopMs };
}

/** Twice in a row the rest was hardly less than before: once may be chance. */
function isSteady(rounds: readonly CopyRound[]): boolean {
  const [first, second, third] = rounds.slice(-3).map((r) => r.dirtyBytes);
  if (first === undefined || second === undefined || third === undefined) return false;
  return second > first * shrinksTo && third > second * shrinksTo;
}

/** Bytes a second over as many of the newest rounds as it takes to be telling. */
function measuredRate(rounds: readonly CopyRound[]): number {
  let bytes = 0;
  let ms = 0;
  for (const round of [...rounds].reverse()) {
    bytes += round.sentBytes;
    ms += round.ms;
    if (bytes >= tellingBytes && ms > 0) break;
  }
  return ms > 0 ? Math.round((bytes / ms) * 1000) : 0;
}
