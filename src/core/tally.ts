/**
 * What a breaker and a retry budget remember of calls. A tally rides on one bulkhead slot and is
 * written by the settlement that frees the slot anyway, so counting costs no document of its own;
 * readers add the tallies of a pool up.
 */
export interface Tally {
  /** Breaker generation the counts belong to: those of an earlier one say nothing. */
  readonly generation: number;
  /** Start of the current half of the window, in epoch milliseconds. */
  readonly halfFromMs: number;
  /** Counts of the current half of the window, and of the one before. */
  readonly current: Counts;
  readonly previous: Counts;
  /** Last success through this slot, in epoch milliseconds; 0 for none. */
  readonly lastSuccessMs: number;
  /** Times of the failures through this slot since its last success, the newest `RUN_MAX`. */
  readonly runMs: readonly number[];
}

export interface Counts {
  readonly calls: number;
  readonly failures: number;
  readonly slow: number;
  readonly retries: number;
}

export interface Settled {
  /** `neutral` says nothing about the provider's health and counts for neither rate. */
  readonly outcome: "success" | "failure" | "neutral";
  readonly slow: boolean;
  /** Requests sent beyond the first. */
  readonly retries: number;
  readonly generation: number;
}

export interface TallySum extends Counts {
  /** Failures of the whole pool since the last success of any of its slots. */
  readonly run: number;
}

export const NO_COUNTS: Counts = { calls: 0, failures: 0, slow: 0, retries: 0 };

/** Failure times kept per slot: the largest threshold of consecutive failures. */
const RUN_MAX = 100;

/** The tally with one more call in it. `null` stands for a slot that has counted nothing yet. */
export function count(
  tally: Tally | null,
  settled: Settled,
  { nowMs, windowMs }: { readonly nowMs: number; readonly windowMs: number },
): Tally {
  const base =
    tally?.generation === settled.generation
      ? turned(tally, nowMs, windowMs)
      : empty(settled.generation, nowMs);
  const current = {
    calls: base.current.calls + (settled.outcome === "neutral" ? 0 : 1),
    failures: base.current.failures + (settled.outcome === "failure" ? 1 : 0),
    slow: base.current.slow + (settled.slow ? 1 : 0),
    retries: base.current.retries + settled.retries,
  };
  switch (settled.outcome) {
    case "neutral":
      return { ...base, current };
    case "success":
      return { ...base, current, lastSuccessMs: nowMs, runMs: [] };
    case "failure":
      return { ...base, current, runMs: [...base.runMs, nowMs].slice(-RUN_MAX) };
  }
}

/** What a pool's slots counted together within the window, in one generation. */
export function sum(
  tallies: readonly Tally[],
  {
    generation,
    nowMs,
    windowMs,
  }: { readonly generation: number; readonly nowMs: number; readonly windowMs: number },
): TallySum {
  const ours = tallies.filter((tally) => tally.generation === generation);
  const lastSuccessMs = Math.max(0, ...ours.map((tally) => tally.lastSuccessMs));
  let counts = NO_COUNTS;
  let run = 0;
  for (const tally of ours) {
    const { current, previous, runMs } = turned(tally, nowMs, windowMs);
    counts = add(add(counts, current), previous);
    // A failure in the millisecond of a success elsewhere counts: which came first is not known.
    run += runMs.filter((failedMs) => failedMs >= lastSuccessMs).length;
  }
  return { ...counts, run };
}

const empty = (generation: number, nowMs: number): Tally => ({
  generation,
  halfFromMs: nowMs,
  current: NO_COUNTS,
  previous: NO_COUNTS,
  lastSuccessMs: 0,
  runMs: [],
});

/** The tally as it stands now: halves that have passed move on and out. */
function turned(tally: Tally, nowMs: number, windowMs: number): Tally {
  const halfMs = windowMs / 2;
  const passed = Math.floor((nowMs - tally.halfFromMs) / halfMs);
  if (passed <= 0) return tally;
  return {
    ...tally,
    // Halves follow on each other whenever they are looked at, or calls would outlive the window.
    halfFromMs: tally.halfFromMs + passed * halfMs,
    current: NO_COUNTS,
    previous: passed === 1 ? tally.current : NO_COUNTS,
  };
}

const add = (a: Counts, b: Counts): Counts => ({
  calls: a.calls + b.calls,
  failures: a.failures + b.failures,
  slow: a.slow + b.slow,
  retries: a.retries + b.retries,
});
