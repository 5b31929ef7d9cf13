import { expect, test } from "vitest";
import { sampledIncrement } from "./sampling";

test.each([
  [0, 1],
  [99, 1],
  [100, 2],
  [199, 2],
  [200, 4],
  [399, 4],
  [400, 8],
  [1e9, 8],
])("a counter at %i moves by %i, that much more rarely", (count, weight) => {
  expect(sampledIncrement(count, () => 0)).toBe(weight);
  expect(sampledIncrement(count, () => 1 / weight - 1e-9)).toBe(weight);
  if (weight > 1) expect(sampledIncrement(count, () => 1 / weight)).toBe(0);
});

test("a counter stands at the number of events, on average", () => {
  const events = 2_000;
  const runs = 400;
  const random = uniform(20_261);
  let sum = 0;
  let writes = 0;
  for (let run = 0; run < runs; run++) {
    let count = 0;
    for (let i = 0; i < events; i++) {
      const added = sampledIncrement(count, random);
      count += added;
      if (added > 0) writes += 1;
    }
    sum += count;
  }
  // Standard error of the mean over these runs is below 0.3 %; four of them.
  expect(Math.abs(sum / runs / events - 1)).toBeLessThan(0.012);
  expect(writes / runs).toBeLessThan(events / 4);
});

/** A generator of its own, so that the test says the same on every run. */
function uniform(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
