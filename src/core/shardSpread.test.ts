import { describe, expect, test } from "vitest";
import { countedRate, perSecondAt, placeOf, type Rate, SPREAD_MAX } from "./shardSpread";

/** A pseudorandom sequence that is the same in every run. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

interface Attempt {
  readonly atMs: number;
  readonly tries: number;
  /** What it read and will write when it commits; null while it has not begun. */
  readonly begun: {
    readonly seen: ReadonlyMap<number, number>;
    readonly shard: number;
    readonly weight: number;
  } | null;
}

/**
 * Counts at a rate, in transactions of 15 ± 4.5 ms that fail when somebody wrote what they read and
 * try again as the platform does: four times, after up to 100 ms doubling.
 */
function simulate(rateAt: (atMs: number) => number, forMs: number, seed = 1) {
  const random = randomFrom(seed);
  const queue: Attempt[] = [];
  const push = (attempt: Attempt): void => {
    let at = queue.length;
    while (at > 0 && (queue[at - 1]?.atMs ?? 0) > attempt.atMs) at--;
    queue.splice(at, 0, attempt);
  };
  for (let atMs = 0; atMs < forMs;) {
    atMs += (-Math.log(1 - random()) * 1_000) / rateAt(atMs);
    push({ atMs, tries: 0, begun: null });
  }
  const events = queue.length;
  const versions = new Map<number, number>();
  const version = (shard: number): number => versions.get(shard) ?? 0;
  let rate: Rate | null = null;
  let attempts = 0;
  let lost = 0;
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    const { atMs, begun, tries } = next;
    if (begun === null) {
      attempts++;
      const { shard, weight } = placeOf(rate, atMs, random);
      // The director is read on a stale snapshot: only what is written is depended on.
      const seen = new Map([[shard, version(shard)]]);
      push({ atMs: atMs + 10.5 + 9 * random(), tries, begun: { seen, shard, weight } });
    } else if ([...begun.seen].every(([shard, saw]) => version(shard) === saw)) {
      versions.set(begun.shard, version(begun.shard) + 1);
      if (begun.shard === 0) rate = countedRate(rate, begun.weight, atMs);
    } else if (tries === 4) lost++;
    else push({ atMs: atMs + random() * 100 * 2 ** tries, tries: tries + 1, begun: null });
  }
  return { documents: versions.size, conflicts: (attempts - events) / events, lost, rate };
}

describe("counters that spread by their rate", () => {
  test.each([0.2, 1, 2])("stay in a few documents at %d/s", (perSecond) => {
    const { documents, lost } = simulate(() => perSecond, 60_000);
    expect(documents).toBeLessThanOrEqual(2 + 3 * perSecond);
    expect(lost).toBe(0);
  });

  test("make room for a crowd of 50 that comes at once, out of silence", () => {
    for (let seed = 1; seed <= 10; seed++) {
      const { conflicts, lost } = simulate((atMs) => (atMs < 5 ? 10_000 : 0.001), 500, seed);
      expect(lost).toBe(0);
      expect(conflicts).toBeLessThan(2.5);
    }
  });

  test.each([5, 10, 20, 50, 100, 200])("conflict in at most a sixth of %d/s", (perSecond) => {
    const { conflicts, documents, lost } = simulate(() => perSecond, 30_000);
    expect(conflicts).toBeLessThan(1 / 6);
    expect(lost).toBeLessThanOrEqual(1);
    expect(documents).toBeLessThanOrEqual(Math.min(SPREAD_MAX, Math.max(8, perSecond)) + 1);
  });

  test("follow a burst that comes out of silence", () => {
    const { conflicts, lost } = simulate((atMs) => (atMs < 20_000 ? 0.5 : 200), 25_000);
    expect(conflicts).toBeLessThan(0.3);
    expect(lost).toBeLessThanOrEqual(3);
  });

  test("know the rate", () => {
    const rates = Array.from({ length: 20 }, (_, seed) => {
      const { rate } = simulate(() => 40, 5_000, seed + 1);
      return perSecondAt(rate, 5_000);
    });
    const mean = rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
    expect(mean).toBeGreaterThan(25);
    expect(mean).toBeLessThan(60);
  });
});

test("a rate fades while nothing is counted", () => {
  const rate = countedRate(null, 30, 1_000);
  expect(perSecondAt(rate, 1_000)).toBe(30);
  expect(perSecondAt(rate, 2_000)).toBeCloseTo(30 / Math.E);
  expect(perSecondAt(rate, 60_000)).toBeLessThan(1e-9);
  // The clock of another machine may lag.
  expect(perSecondAt(rate, 900)).toBe(30);
});
