import * as fc from "fast-check";
import { expect, test } from "vitest";
import { growingGapsMs } from "./waits";

test.each([
  [{ firstMs: 250, totalMs: 8_000, looks: 6 }, [250, 421, 710, 1_197, 2_018, 3_404]],
  [{ firstMs: 50, totalMs: 60_000, looks: 6 }, [50, 194, 756, 2_945, 11_460, 44_595]],
  [{ firstMs: 1_000, totalMs: 2_500, looks: 6 }, [1_000, 1_500]],
  [{ firstMs: 5_000, totalMs: 1_000, looks: 6 }, [1_000]],
  [{ firstMs: 100, totalMs: 1_000, looks: 1 }, [1_000]],
])("%o", (wait, gaps) => {
  expect(growingGapsMs(wait)).toEqual(gaps);
});

test("gaps start at the first, never shrink, and fill the wait with as many looks as allowed", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5_000 }),
      fc.integer({ min: 1, max: 120_000 }),
      fc.integer({ min: 1, max: 10 }),
      (firstMs, totalMs, looks) => {
        const gaps = growingGapsMs({ firstMs, totalMs, looks });
        expect(gaps.reduce((sum, gap) => sum + gap, 0)).toBe(totalMs);
        expect(gaps.length).toBe(
          Math.max(1, Math.min(looks, Math.floor(totalMs / Math.min(firstMs, totalMs)))),
        );
        if (gaps.length > 1) expect(gaps[0]).toBe(firstMs);
        for (const [i, gap] of gaps.entries()) expect(gap).toBeGreaterThanOrEqual(gaps[i - 1] ?? 0);
      },
    ),
    { numRuns: 2_000 },
  );
});
