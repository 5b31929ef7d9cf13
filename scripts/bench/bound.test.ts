import fc from "fast-check";
import { expect, test } from "vitest";
import { shareAtMost } from "./bound";

/** How likely at most so many events are, added up as the definition says. */
function likelihood({ events, trials }: { events: number; trials: number }, share: number): number {
  let [sum, ways] = [0, 1];
  for (let i = 0; i <= events; i++) {
    sum += ways * share ** i * (1 - share) ** (trials - i);
    ways *= (trials - i) / (i + 1);
  }
  return sum;
}

test.each([
  // One-sided bounds as tables of Clopper and Pearson's have them.
  { events: 0, trials: 10, share: 0.2589 },
  { events: 1, trials: 10, share: 0.3942 },
  { events: 5, trials: 10, share: 0.7776 },
  { events: 0, trials: 100, share: 0.0295 },
  { events: 2, trials: 100, share: 0.0616 },
])("$events of $trials is a share of at most $share with 95 % confidence", ({ share, ...seen }) => {
  expect(shareAtMost(seen)).toBeCloseTo(share, 4);
});

test("none of many is what the rule of three says, and one more event makes it more", () => {
  for (const trials of [1_000, 20_000, 400_000]) {
    const none = shareAtMost({ events: 0, trials });
    expect(none * trials).toBeCloseTo(-Math.log(0.05), 1);
    expect(shareAtMost({ events: 1, trials }) * trials).toBeCloseTo(4.744, 1);
  }
});

test("at the bound so few events are as unlikely as the confidence leaves room for", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 200 }), fc.nat(200), (trials, drawn) => {
      const events = drawn % trials;
      const share = shareAtMost({ events, trials });
      expect(share).toBeGreaterThan(events / trials);
      expect(likelihood({ events, trials }, share)).toBeCloseTo(0.05, 6);
    }),
  );
});

test("what always happened, or was never tried, has no bound", () => {
  expect(shareAtMost({ events: 7, trials: 7 })).toBe(1);
  expect(shareAtMost({ events: 0, trials: 0 })).toBe(1);
});
