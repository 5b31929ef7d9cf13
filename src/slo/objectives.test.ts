import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { DAY, MINUTE } from "../core/time";
import {
  BASELINE,
  budgetLeft,
  burnRate,
  judge,
  type Measured,
  type Objective,
  objectivesOf,
} from "./objectives";

const OBJECTIVE: Objective = {
  key: "route:chatPost",
  name: "/api/chat",
  minAvailability: 0.95,
  maxP95Ms: 12_000,
  maxDegradedRate: 0.1,
};
const measured = (change: Partial<Measured> = {}): Measured => ({
  windowMs: 15 * MINUTE,
  total: 100,
  failed: 0,
  degraded: 0,
  p95Ms: 800,
  ...change,
});

describe("an objective", () => {
  test.each([
    ["nothing failed", measured(), "met", []],
    ["exactly the budget failed", measured({ failed: 5 }), "met", []],
    ["one more failed", measured({ failed: 6 }), "breached", ["availability"]],
    ["it took as long as promised", measured({ p95Ms: 12_000 }), "met", []],
    ["it took longer", measured({ p95Ms: 12_001 }), "breached", ["latency"]],
    ["a tenth was stale", measured({ degraded: 10 }), "met", []],
    ["more than a tenth was stale", measured({ degraded: 11 }), "breached", ["degraded"]],
    [
      "all of it is broken",
      measured({ failed: 100, degraded: 100, p95Ms: 60_000 }),
      "breached",
      ["availability", "latency", "degraded"],
    ],
    ["nothing was timed", measured({ p95Ms: null }), "met", []],
    ["too little was seen", measured({ total: 19, failed: 19 }), "insufficient", []],
    ["just enough was seen", measured({ total: 20, failed: 20 }), "breached", ["availability"]],
    ["nothing was seen", measured({ total: 0 }), "insufficient", []],
  ] as const)("when %s", (_, counted, state, breaches) => {
    const result = judge(OBJECTIVE, counted);
    expect([result.state, result.breaches.map(({ promise }) => promise)]).toEqual([
      state,
      breaches,
    ]);
  });

  test("is breached with what was measured and what was promised", () => {
    const [breach] = judge(OBJECTIVE, measured({ failed: 10 })).breaches;
    expect(breach).toMatchObject({ actual: 0.1, name: "/api/chat", key: "route:chatPost" });
    expect(breach?.limit).toBeCloseTo(0.05, 10);
    expect(breach?.burnRate).toBeCloseTo(2, 10);
  });
});

describe("the error budget", () => {
  test("is gone in a day when 28 days of it burn at 28", () => {
    const { burnRate: rate, budgetSpent } = judge(
      { ...OBJECTIVE, minAvailability: 0.99 },
      measured({ windowMs: DAY, total: 1_000, failed: 280 }),
    );
    expect([rate, budgetSpent].map((n) => Number(n.toFixed(6)))).toEqual([28, 1]);
  });

  test("is whole at first, gone at its limit and overspent beyond", () => {
    expect(budgetLeft({ total: 0, failed: 0 }, OBJECTIVE)).toBe(1);
    expect(budgetLeft({ total: 100, failed: 5 }, OBJECTIVE)).toBeCloseTo(0, 10);
    expect(budgetLeft({ total: 100, failed: 10 }, OBJECTIVE)).toBeCloseTo(-1, 10);
  });

  test("is breached exactly when it burns faster than it lasts", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 20, max: 100_000 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.integer({ min: 1, max: 999 }),
        (total, share, thousandths) => {
          const objective = { ...OBJECTIVE, minAvailability: thousandths / 1_000 };
          const failed = Math.floor(total * share);
          // In whole numbers, where nothing is rounded.
          const isOver = failed * 1_000 > total * (1_000 - thousandths);
          expect(judge(objective, measured({ total, failed })).state).toBe(
            isOver ? "breached" : "met",
          );
        },
      ),
      { numRuns: 2_000 },
    );
  });

  test("burns at the ratio of what failed to what may", () => {
    expect(burnRate(0.01, { ...OBJECTIVE, minAvailability: 0.999 })).toBeCloseTo(10, 8);
  });
});

test("every endpoint and provider of the baseline is an objective of its own", () => {
  const keys = objectivesOf(BASELINE).map(({ key }) => key);
  expect(new Set(keys).size).toBe(keys.length);
  expect(keys).toEqual([
    "route:chatPost",
    "route:gmailPush",
    "route:whatsappReceive",
    ...Object.keys(BASELINE.providers).map((id) => `provider:${id}`),
  ]);
});
