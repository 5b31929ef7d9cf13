import fc from "fast-check";
import { expect, test } from "vitest";
import { fullJitterMs } from "./backoff";
import { MINUTE, SECOND } from "./time";

const backoffs = fc.record({
  attempt: fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 2 ** 31 })),
  baseMs: fc.integer({ min: 0, max: MINUTE }),
  capMs: fc.integer({ min: 0, max: 10 * MINUTE }),
});
const uniform = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

test("a delay is a whole number from 0 up to the cap, and below the doubled base", () => {
  fc.assert(
    fc.property(backoffs, uniform, (backoff, share) => {
      const delayMs = fullJitterMs({ ...backoff, random: () => share });
      expect(Number.isInteger(delayMs)).toBe(true);
      expect(delayMs).toBeGreaterThanOrEqual(0);
      expect(delayMs).toBeLessThanOrEqual(backoff.capMs);
      expect(delayMs).toBeLessThanOrEqual(
        // Infinity times 0 is no number.
        backoff.baseMs * 2 ** Math.min(backoff.attempt - 1, 100),
      );
    }),
  );
});

test.each([
  [1, SECOND],
  [2, 2 * SECOND],
  [3, 4 * SECOND],
  [7, MINUTE],
  [5_000, MINUTE],
])("attempt %i waits up to %i ms", (attempt, ceilingMs) => {
  const wait = (share: number) =>
    fullJitterMs({ attempt, baseMs: SECOND, capMs: MINUTE, random: () => share });
  expect(wait(0)).toBe(0);
  expect(wait(0.5)).toBe(ceilingMs / 2);
  expect(wait(1 - Number.EPSILON)).toBe(ceilingMs - 1);
});

test.each([0, -3])("an attempt before the first (%i) waits as the first", (attempt) => {
  expect(fullJitterMs({ attempt, baseMs: SECOND, capMs: MINUTE, random: () => 0.5 })).toBe(500);
});
