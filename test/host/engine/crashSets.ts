const LARGE_EVERY = 50;
const LARGE_PARTS = 1_500;

/** How many documents a set has: mostly two, sometimes more than the store writes at one go. */
export function partsOf(set: number): number {
  return set % LARGE_EVERY === 7 ? LARGE_PARTS : 2;
}
