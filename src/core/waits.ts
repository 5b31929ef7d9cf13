/** Halvings of the interval the growth lies in: enough for gaps exact to the millisecond. */
const BISECTIONS = 50;

/**
 * Gaps between the looks of somebody who waits for what will not call him: the first is `firstMs`,
 * each is longer than the one before by one and the same factor, and all together they last
 * `totalMs`. What is done soon is seen soon, and a long wait costs no more looks than a short one.
 * At most `looks` gaps; fewer where the first ones fill the time already.
 */
export function growingGapsMs(wait: {
  readonly firstMs: number;
  readonly totalMs: number;
  readonly looks: number;
}): number[] {
  const { firstMs, totalMs } = wait;
  if (firstMs >= totalMs) return [totalMs];
  const looks = Math.min(wait.looks, Math.floor(totalMs / firstMs));
  const gaps = grown(firstMs, growthOf(firstMs, totalMs, looks), looks);
  const spent = gaps.slice(0, -1).reduce((sum, gap) => sum + gap, 0);
  // The last look is at the end, whatever was lost in rounding.
  return [...gaps.slice(0, -1), totalMs - spent];
}

/** The factor, 1 or more, with which `looks` gaps add up to the total. */
function growthOf(firstMs: number, totalMs: number, looks: number): number {
  let [low, high] = [1, Math.max(1, totalMs / firstMs)];
  for (let i = 0; i < BISECTIONS; i++) {
    const middle = (low + high) / 2;
    const sum = grown(firstMs, middle, looks).reduce((total, gap) => total + gap, 0);
    if (sum < totalMs) low = middle;
    else high = middle;
  }
  return low;
}

const grown = (firstMs: number, growth: number, looks: number): number[] =>
  Array.from({ length: looks }, (_, i) => Math.floor(firstMs * growth ** i));
