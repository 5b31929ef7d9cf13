import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type CacheState,
  type Freshness,
  freshnessAt,
  goneAtMs,
  type StaleWindows,
} from "./freshness";

const WINDOWS: StaleWindows = { revalidateMs: 50, onErrorMs: 1_000 };
const answer = (failedUntilMs: number | null = null): CacheState => ({
  kind: "answer",
  freshUntilMs: 100,
  failedUntilMs,
});

describe("an answer", () => {
  test.each<[number, Freshness]>([
    [0, { kind: "fresh" }],
    [99, { kind: "fresh" }],
    [100, { kind: "stale", askFromMs: null }],
    [149, { kind: "stale", askFromMs: null }],
    [150, { kind: "error_only", askFromMs: null }],
    [1_099, { kind: "error_only", askFromMs: null }],
    [1_100, { kind: "gone" }],
  ])("at %i ms", (nowMs, expected) => {
    expect(freshnessAt(answer(), WINDOWS, nowMs)).toEqual(expected);
  });

  test.each<[number, Freshness]>([
    [99, { kind: "fresh" }],
    [100, { kind: "stale", askFromMs: 120 }],
    [119, { kind: "stale", askFromMs: 120 }],
    [120, { kind: "stale", askFromMs: null }],
  ])("whose renewal failed, at %i ms", (nowMs, expected) => {
    expect(freshnessAt(answer(120), WINDOWS, nowMs)).toEqual(expected);
  });

  test("that failed to be renewed when it is old is served without asking", () => {
    expect(freshnessAt(answer(300), WINDOWS, 200)).toEqual({ kind: "error_only", askFromMs: 300 });
    expect(freshnessAt(answer(2_000), WINDOWS, 1_500)).toEqual({
      kind: "negative",
      askFromMs: 2_000,
    });
  });

  test("is not served stale where the windows are shut", () => {
    const shut = { revalidateMs: 0, onErrorMs: 0 };
    expect(freshnessAt(answer(), shut, 100)).toEqual({ kind: "gone" });
    expect(freshnessAt(answer(), { ...shut, revalidateMs: 10 }, 105).kind).toBe("stale");
    expect(freshnessAt(answer(), { ...shut, onErrorMs: 10 }, 105).kind).toBe("error_only");
  });
});

test.each<[number, Freshness]>([
  [99, { kind: "negative", askFromMs: 100 }],
  [100, { kind: "gone" }],
])("a failure alone, at %i ms", (nowMs, expected) => {
  expect(freshnessAt({ kind: "failure", failedUntilMs: 100 }, WINDOWS, nowMs)).toEqual(expected);
});

const ms = fc.integer({ min: 0, max: 5_000 });
const windows = fc.record({ revalidateMs: ms, onErrorMs: ms });
const ORDER = ["fresh", "stale", "error_only", "gone"];
/** How far an answer has aged; one that is only remembered to have failed has nothing to serve. */
const age = (freshness: Freshness) =>
  ORDER.indexOf(freshness.kind === "negative" ? "gone" : freshness.kind);

describe("of every answer", () => {
  const history = fc.record({
    freshUntilMs: ms,
    failedUntilMs: fc.option(ms, { nil: null }),
    windows,
    times: fc.array(ms, { minLength: 2, maxLength: 40, size: "max" }),
  });

  test("age only grows, and it is servable exactly until it is gone", () => {
    fc.assert(
      fc.property(history, ({ times, windows: stale, ...fields }) => {
        let oldest = 0;
        const goneAt = goneAtMs(fields.freshUntilMs, stale);
        for (const nowMs of times.sort((a, b) => a - b)) {
          const found = freshnessAt({ kind: "answer", ...fields }, stale, nowMs);
          expect(age(found)).toBeGreaterThanOrEqual(oldest);
          oldest = age(found);
          expect(oldest === 3).toBe(nowMs >= goneAt);
          if ("askFromMs" in found && found.askFromMs !== null)
            expect(found.askFromMs).toBeGreaterThan(nowMs);
        }
      }),
      { numRuns: 1_000 },
    );
  });

  test("a remembered failure changes when is asked again, never what is served", () => {
    fc.assert(
      fc.property(history, ms, ({ times, windows: stale, freshUntilMs }, failedUntilMs) => {
        for (const nowMs of times) {
          const state = { kind: "answer", freshUntilMs } as const;
          const without = freshnessAt({ ...state, failedUntilMs: null }, stale, nowMs);
          const failed = freshnessAt({ ...state, failedUntilMs }, stale, nowMs);
          expect(age(failed)).toBe(age(without));
          if (nowMs >= failedUntilMs) expect(failed).toEqual(without);
        }
      }),
      { numRuns: 1_000 },
    );
  });
});
