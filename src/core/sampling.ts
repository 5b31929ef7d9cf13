/** Shards of a counter that crowds write to. */
export const COUNTER_SHARDS = 8;

const DOUBLING_COUNTS = [100, 200, 400];

/**
 * How much one event adds to a sampled counter that stands at `count`: 0 for most events once the
 * counter is hot, the weight for the others, so that its expectation stays the number of events.
 */
export function sampledIncrement(count: number, random: () => number): number {
  const weight = 2 ** DOUBLING_COUNTS.filter((threshold) => count >= threshold).length;
  return random() < 1 / weight ? weight : 0;
}
