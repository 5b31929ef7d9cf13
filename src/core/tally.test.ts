import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { count, type Settled, sum, type Tally } from "./tally";

const START_MS = 1_790_000_000_000;
const WINDOW_MS = 100;

const call = (settled: Partial<Settled> = {}): Settled => ({
  outcome: "success",
  slow: false,
  retries: 0,
  generation: 0,
  ...settled,
});

const at = (afterMs: number) => ({ nowMs: START_MS + afterMs, windowMs: WINDOW_MS });

/** The tally of calls that ended so long after the start. */
const tallyOf = (...calls: readonly (readonly [number, Partial<Settled>])[]): Tally => {
  let tally: Tally | null = null;
  for (const [afterMs, settled] of calls) tally = count(tally, call(settled), at(afterMs));
  if (tally === null) throw new Error("no call was counted");
  return tally;
};

const sumAt = (afterMs: number, tallies: readonly Tally[], generation = 0) =>
  sum(tallies, { generation, ...at(afterMs) });

const FAILED = { outcome: "failure" } as const;

describe("a window", () => {
  test.each([
    ["at once", 0, 3],
    ["before its first half has passed", 49, 3],
    ["in its second half", 99, 3],
    ["when the half of its first calls has passed out", 100, 1],
    ["before the half of its last call has", 149, 1],
    ["when all have passed out", 150, 0],
  ])("counts %s", (_, afterMs, calls) => {
    const tally = tallyOf([0, {}], [49, FAILED], [50, {}]);
    expect(sumAt(afterMs, [tally]).calls).toBe(calls);
  });

  test("loses nothing of its last half and holds nothing beyond the whole, whatever the gaps", () => {
    const gaps = fc.array(fc.nat(130), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(gaps, fc.nat(150), (waits, restMs) => {
        const ends: number[] = [];
        let afterMs = 0;
        for (const waitMs of waits) ends.push((afterMs += waitMs));
        const tally = tallyOf(...ends.map((endMs) => [endMs, FAILED] as const));
        const nowMs = afterMs + restMs;
        const since = (ms: number) => ends.filter((endMs) => endMs > nowMs - ms).length;
        const { calls, failures } = sumAt(nowMs, [tally]);
        expect(failures).toBe(calls);
        expect(calls).toBeGreaterThanOrEqual(since(WINDOW_MS / 2));
        expect(calls).toBeLessThanOrEqual(since(WINDOW_MS));
      }),
    );
  });

  test("a clock that is set back loses nothing", () => {
    const tally = tallyOf([50, {}], [0, FAILED], [-1_000, FAILED]);
    expect(sumAt(0, [tally])).toMatchObject({ calls: 3, failures: 2 });
  });
});

describe("what a call counts for", () => {
  test("is each in its own count, and neutral in none but its retries", () => {
    const tally = tallyOf(
      [0, { retries: 2 }],
      [0, { slow: true }],
      [0, { ...FAILED, slow: true, retries: 1 }],
      [0, { outcome: "neutral", retries: 1 }],
    );
    expect(sumAt(0, [tally])).toEqual({ calls: 3, failures: 1, slow: 2, retries: 4, run: 1 });
  });

  test("of an earlier generation is forgotten with the first call of the next", () => {
    const before = tallyOf([0, FAILED], [1, FAILED]);
    expect(sumAt(1, [before], 1)).toMatchObject({ calls: 0, run: 0 });
    const after = count(before, call({ outcome: "neutral", generation: 1 }), at(2));
    expect(sumAt(2, [after], 1)).toEqual({ calls: 0, failures: 0, slow: 0, retries: 0, run: 0 });
    expect(sumAt(2, [after], 0)).toMatchObject({ calls: 0, run: 0 });
  });
});

describe("failures in a row", () => {
  test("are those of all slots since any slot's last success, however long ago", () => {
    const [a, b] = [tallyOf([0, FAILED], [30, FAILED]), tallyOf([10, FAILED], [20, {}])];
    expect(sumAt(30, [a]).run).toBe(2);
    expect(sumAt(30, [a, b]).run).toBe(1);
    expect(sumAt(10_000, [a, b])).toMatchObject({ calls: 0, run: 1 });
  });

  test("go on over neutral calls, and end with a success", () => {
    const row = tallyOf([0, FAILED], [1, { outcome: "neutral" }], [2, FAILED]);
    expect(sumAt(2, [row]).run).toBe(2);
    expect(sumAt(3, [count(row, call(), at(3))]).run).toBe(0);
  });

  test("count beside a success of the same moment in another slot", () => {
    expect(sumAt(5, [tallyOf([5, FAILED]), tallyOf([5, {}])]).run).toBe(1);
  });

  test("are a hundred at most in one slot, the newest", () => {
    const many = Array.from({ length: 130 }, (_, i) => [i, FAILED] as const);
    const tally = tallyOf(...many);
    expect(tally.runMs).toHaveLength(100);
    expect(tally.runMs.at(-1)).toBe(START_MS + 129);
    expect(sumAt(129, [tally]).run).toBe(100);
  });
});
