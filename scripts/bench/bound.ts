/** What was counted: how many of how many. */
export interface Counted {
  readonly events: number;
  readonly trials: number;
}

/** How sure the bounds are that counts are stated with. */
export const CONFIDENCE = 0.95;

/** Halvings after which a share is known as exactly as numbers go. */
const HALVINGS = 60;

/**
 * The largest share that is still compatible with so few events: Clopper and Pearson's upper bound.
 * Seeing none proves no zero. With a greater share, so few would have been seen in fewer than one of
 * twenty such counts.
 */
export function shareAtMost({ events, trials }: Counted): number {
  if (events >= trials) return 1;
  let [low, high] = [events / trials, 1];
  for (let i = 0; i < HALVINGS; i++) {
    const middle = (low + high) / 2;
    if (likelihood({ events, trials }, middle) > 1 - CONFIDENCE) low = middle;
    else high = middle;
  }
  return high;
}

/** How likely at most so many events are. In logarithms: the ways to choose them overflow. */
function likelihood({ events, trials }: Counted, share: number): number {
  let log = trials * Math.log1p(-share);
  let sum = Math.exp(log);
  for (let i = 0; i < events; i++) {
    log += Math.log((trials - i) / (i + 1)) + Math.log(share) - Math.log1p(-share);
    sum += Math.exp(log);
  }
  return sum;
}

/** What several counts of the same came to. */
export const together = (counts: readonly Counted[]): Counted => ({
  events: counts.reduce((total, { events }) => total + events, 0),
  trials: counts.reduce((total, { trials }) => total + trials, 0),
});
