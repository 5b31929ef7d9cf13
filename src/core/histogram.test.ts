import { DDSketch } from "@datadog/sketches-js";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  add,
  decode,
  EMPTY,
  encode,
  type Histogram,
  merge,
  quantileMs,
  RELATIVE_ERROR,
  total,
} from "./histogram";

const QUANTILES = [0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1];

const bytesOf = (histogram: Histogram): number[] => [...new Uint8Array(encode(histogram))];
const of = (latencies: readonly number[]): Histogram => latencies.reduce(add, EMPTY);

/** Latencies as they come: mostly near each other, some far out, and any number in between. */
const latency = fc.oneof(
  fc.integer({ min: 0, max: 400 }),
  fc.integer({ min: 0, max: 3_600_000 }),
  fc.double({ min: 0, max: 3_600_000, noNaN: true }),
);
const latencies = fc.array(latency, { minLength: 1, size: "max", maxLength: 200 });

describe("percentiles", () => {
  test("are within five percent, or a millisecond, of the latency they stand for", () => {
    fc.assert(
      fc.property(latencies, (all) => {
        const sorted = [...all].sort((a, b) => a - b);
        for (const quantile of QUANTILES) {
          const exact = sorted[Math.floor(quantile * (sorted.length - 1))] ?? 0;
          const estimate = quantileMs(of(all), quantile) ?? -1;
          const error = Math.abs(estimate - exact);
          expect(error).toBeLessThanOrEqual(Math.max(1, exact * RELATIVE_ERROR * (1 + 1e-9)));
        }
      }),
      { numRuns: 50 },
    );
  });

  test("are those of Datadog's sketch of the same accuracy", () => {
    const slow = fc.array(fc.double({ min: 1.001, max: 3_600_000, noNaN: true }), {
      minLength: 1,
      size: "max",
      maxLength: 200,
    });
    fc.assert(
      fc.property(slow, (all) => {
        const sketch = new DDSketch({ relativeAccuracy: RELATIVE_ERROR });
        for (const value of all) sketch.accept(value);
        for (const quantile of QUANTILES)
          expect(quantileMs(of(all), quantile)).toBeCloseTo(sketch.getValueAtQuantile(quantile), 6);
      }),
      { numRuns: 50 },
    );
  });

  test("of nothing are nothing", () => {
    expect(quantileMs(EMPTY, 0.5)).toBeNull();
  });

  test.each([
    [-5, 1],
    [Number.NaN, 1],
    [0, 1],
    [1, 1],
    [Number.POSITIVE_INFINITY, 3_600_000],
    [86_400_000, 3_600_000],
  ])("a latency of %d ms counts as %d", (value, counted) => {
    expect(quantileMs(of([value]), 0.5)).toBeCloseTo(quantileMs(of([counted]), 0.5) ?? -1, 6);
  });
});

test("histograms add up in any order to the histogram of everything", () => {
  fc.assert(
    fc.property(latencies, latencies, latencies, (a, b, c) => {
      const whole = of([...a, ...b, ...c]);
      expect(bytesOf(merge([of(c), merge([of(a), of(b)])]))).toEqual(bytesOf(whole));
      expect(total(whole)).toBe(a.length + b.length + c.length);
    }),
    { numRuns: 50 },
  );
});

describe("the stored form", () => {
  test("is read back as it was, large counts included", () => {
    const counts = fc.array(
      fc.tuple(fc.integer({ min: 0, max: 151 }), fc.integer({ min: 1, max: 2 ** 45 })),
    );
    fc.assert(
      fc.property(counts, (entries) => {
        const histogram = new Map(entries);
        const sorted = [...histogram].sort(([a], [b]) => a - b);
        expect([...decode(encode(histogram))]).toEqual(sorted);
      }),
    );
  });

  test("of a minute of ordinary traffic takes less than 150 bytes, and of any minute 600", () => {
    // 1,000 latencies around 300 ms with a long tail: the shape that providers show.
    const ordinary = Array.from({ length: 1_000 }, (_, i) => 40 * Math.exp((i / 1_000) * 5));
    expect(encode(of(ordinary)).byteLength).toBeLessThan(150);
    const everything = new Map(Array.from({ length: 152 }, (_, bucket) => [bucket, 100_000]));
    expect(encode(everything).byteLength).toBeLessThan(620);
  });

  test("that ends within a number is refused", () => {
    expect(() => decode(new Uint8Array([3, 0x80]).buffer)).toThrow("ends within a number");
  });
});
