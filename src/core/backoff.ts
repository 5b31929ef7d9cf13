interface Backoff {
  /** Which attempt just failed; the first is 1. */
  readonly attempt: number;
  readonly baseMs: number;
  readonly capMs: number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

/**
 * Delay before the next attempt, in milliseconds: uniform between 0 and the capped exponential.
 * Full jitter spreads a crowd of retries better than any jitter that keeps a minimum.
 */
export function fullJitterMs({ attempt, baseMs, capMs, random }: Backoff): number {
  return Math.floor(random() * ceilingMs(attempt, baseMs, capMs));
}

function ceilingMs(attempt: number, baseMs: number, capMs: number): number {
  // 2 ** 1024 is Infinity and Infinity * 0 is NaN, so the exponent is bounded first.
  const doublings = Math.min(Math.max(attempt - 1, 0), 52);
  return Math.min(capMs, baseMs * 2 ** doublings);
}
