import fc from "fast-check";
import type { Definition } from "../../../scripts/bench/engine/app";
import { JobHistory } from "./jobHistory";

interface Seen {
  readonly reached: Map<string, number>;
  transactions: number;
  conflicts: number;
}

const STEPS_MIN = 100;
const histories = fc.array(fc.nat(Number.MAX_SAFE_INTEGER), {
  size: "max",
  minLength: STEPS_MIN,
  maxLength: 2 * STEPS_MIN,
});

/** Plays many histories, each with other numbers; what is wrong in one fails with its steps. */
export async function playHistories(app: Definition, runs: number): Promise<Seen> {
  const seen: Seen = { reached: new Map(), transactions: 0, conflicts: 0 };
  const seeds = fc.nat(2 ** 31 - 1);
  await fc.assert(
    fc.asyncProperty(seeds, fc.boolean(), histories, async (seed, large, steps) => {
      const history = new JobHistory(app, seed, large);
      await history.play(steps);
      for (const [what, times] of history.reached)
        seen.reached.set(what, (seen.reached.get(what) ?? 0) + times);
      seen.transactions += history.transactions;
      seen.conflicts += history.conflicts;
    }),
    // Shrinking would play hundreds of histories more; the seed and the steps are reported anyway.
    { numRuns: runs, endOnFailure: true },
  );
  return seen;
}
