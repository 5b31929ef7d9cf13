import { expect, test } from "vitest";
import { SEED_MAX } from "./options";
import { seededRandom } from "./engine/random";
import { seedsOf } from "./figures";

const DRAWS = 4;

const begin = (seed: number): string => {
  const random = seededRandom(seed);
  return Array.from({ length: DRAWS }, () => random()).join();
};

test("the same seed draws the same numbers, which are uniform at both ends of the seeds", () => {
  for (const seed of [0, SEED_MAX, ...seedsOf({ seed: SEED_MAX, seeds: 1 })]) {
    expect(begin(seed)).toBe(begin(seed));
    const random = seededRandom(seed);
    const drawn = Array.from({ length: 10_000 }, () => random());
    expect(Math.min(...drawn)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...drawn)).toBeLessThan(1);
    for (let tenth = 0; tenth < 10; tenth++) {
      const share = drawn.filter((value) => Math.floor(value * 10) === tenth).length / drawn.length;
      expect(share).toBeGreaterThan(0.08);
      expect(share).toBeLessThan(0.12);
    }
  }
});

test("seeds that differ draw other numbers, where they are beyond 32 bits as well", () => {
  const seeds = [0, 1, 2 ** 31, 2 ** 32 - 1].flatMap((low) =>
    [0, 1, 2, 999, 2 ** 21 - 1].map((high) => high * 2 ** 32 + low),
  );
  expect(new Set(seeds.map(begin)).size).toBe(seeds.length);
});

test("a seed must be a whole number from 0 on", () => {
  for (const seed of [-1, 0.5, Number.NaN, 2 ** 53])
    expect(() => seededRandom(seed)).toThrow(RangeError);
});

test("the histories of one run, and those of any other, draw from seeds of their own", () => {
  // 2 ** 29 apart: a thousand times that is a multiple of 2 ** 32.
  const asked = [
    0,
    1,
    2,
    2 ** 29,
    2 ** 29 + 1,
    261_121,
    SEED_MAX - 2 ** 29,
    SEED_MAX - 1,
    SEED_MAX,
  ];
  const drawn = asked
    .flatMap((seed) => seedsOf({ seed, seeds: 100 }))
    // A backend draws the ids of its documents from the seed after its own.
    .flatMap((seed) => [seed, seed + 1]);
  expect(new Set(drawn.map(begin)).size).toBe(drawn.length);
});
