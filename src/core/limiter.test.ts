import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type Arrival,
  decide,
  decideSpread,
  isDecidable,
  type LimitPolicy,
  shardPolicy,
  shardsFor,
  SHARDS_MAX,
} from "./limiter";
import { HOUR, MINUTE, SECOND } from "./time";

const START_MS = 1_790_000_000_000;

const policies = fc.record({
  max: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 1_000_000 })),
  windowMs: fc.integer({ min: SECOND, max: HOUR }),
});

/** One request: how the clock moved since the one before, and what is asked for. */
interface Step {
  readonly moveMs: number;
  readonly weight: number;
}

const steps = (moves: fc.Arbitrary<number>) =>
  fc.array(fc.record({ moveMs: moves, weight: fc.integer({ min: 1, max: 6 }) }), {
    size: "max",
    minLength: 1,
    maxLength: 400,
  });

/** Mostly crowds, some pauses, and a clock that is set back and forth. */
const anyClock = fc.oneof(
  { weight: 6, arbitrary: fc.constant(0) },
  { weight: 4, arbitrary: fc.integer({ min: 0, max: 50 }) },
  { weight: 2, arbitrary: fc.integer({ min: 0, max: 10 * SECOND }) },
  { weight: 1, arbitrary: fc.integer({ min: -2 * HOUR, max: 2 * HOUR }) },
);

/** What a table does with the verdicts of one key. */
class Key {
  arrival: Arrival = null;
  readonly policy: LimitPolicy;

  constructor(policy: LimitPolicy) {
    this.policy = policy;
  }

  ask(nowMs: number, weight = 1): ReturnType<typeof decide> {
    const verdict = decide(this.arrival, nowMs, this.policy, { weight });
    if (verdict.ok) this.arrival = verdict.arrivalMs;
    else if (verdict.mendedMs !== null) this.arrival = verdict.mendedMs;
    return verdict;
  }
}

/** Plays a history; `forwardMs` is how far the clock has ever moved ahead, steps back left out. */
function play(policy: LimitPolicy, history: readonly Step[]) {
  const key = new Key(policy);
  const admitted: { forwardMs: number; weight: number }[] = [];
  let nowMs = START_MS;
  let forwardMs = 0;
  for (const { moveMs, weight } of history) {
    nowMs += moveMs;
    forwardMs += Math.max(0, moveMs);
    if (key.ask(nowMs, weight).ok) admitted.push({ forwardMs, weight });
  }
  return { key, nowMs, admitted };
}

describe("what passes", () => {
  test("in any interval is at most the burst and what was replenished, whatever the clock does", () => {
    fc.assert(
      fc.property(policies, steps(anyClock), (policy, history) => {
        const { admitted } = play(policy, history);
        // The surplus over the rate since its lowest point is the fullest interval that ends here.
        let taken = 0;
        let lowest = Infinity;
        let fullest = 0;
        for (const { forwardMs, weight } of admitted) {
          const replenished = (policy.max * forwardMs) / policy.windowMs;
          lowest = Math.min(lowest, taken - replenished);
          taken += weight;
          fullest = Math.max(fullest, taken - replenished - lowest);
        }
        // Rates of a million do not divide evenly; a thousandth of a request is the arithmetic's.
        expect(fullest).toBeLessThanOrEqual(policy.max + 1e-3);
      }),
    );
  });

  test.each([
    { max: 30, windowMs: 5 * MINUTE },
    { max: 7, windowMs: MINUTE },
    { max: 18_000, windowMs: MINUTE },
    { max: 100_000, windowMs: MINUTE },
  ])("at once is exactly the burst: $max in $windowMs ms", (policy) => {
    const key = new Key(policy);
    let wrong = 0;
    for (let n = policy.max; n > 0; n--) {
      const { ok, remaining } = key.ask(START_MS);
      if (!ok || remaining !== n - 1) wrong += 1;
    }
    expect(wrong).toBe(0);
    expect(key.ask(START_MS)).toMatchObject({ ok: false, remaining: 0 });
  });

  test.each([
    { max: 1_000_000, windowMs: MINUTE },
    { max: 70_001, windowMs: MINUTE },
    { max: 999, windowMs: 7 * SECOND },
  ])("over time is at most its rate, taken to the last: $max in $windowMs ms", (policy) => {
    const key = new Key(policy);
    let passed = 0;
    for (let ms = 0; ms < 2_000; ms++) {
      const weight = decide(key.arrival, START_MS + ms, policy, { weight: 0 }).remaining;
      if (weight > 0 && key.ask(START_MS + ms, weight).ok) passed += weight;
    }
    const allowed = policy.max + (policy.max * 1_999) / policy.windowMs;
    expect(passed).toBeLessThanOrEqual(allowed);
    expect(passed).toBeGreaterThan(0.98 * allowed);
  });

  test("over a boundary of windows is no second burst", () => {
    const policy = { max: 120, windowMs: MINUTE };
    const key = new Key(policy);
    let passed = 0;
    for (let i = 0; i < 240; i++)
      if (key.ask(START_MS - 1 + Math.floor(i / 120) * 2).ok) passed += 1;
    expect(passed).toBe(120);
  });

  test("is never more than the burst in one request", () => {
    const policy = { max: 5, windowMs: MINUTE };
    expect(decide(null, START_MS, policy, { weight: 5 }).ok).toBe(true);
    expect(decide(null, START_MS, policy, { weight: 6 }).ok).toBe(false);
  });
});

describe("a refusal", () => {
  test("names the first millisecond at which the same request passes", () => {
    fc.assert(
      fc.property(policies, steps(anyClock), (policy, history) => {
        const { key, nowMs } = play(policy, history);
        const weight = Math.min(policy.max, history.at(-1)?.weight ?? 1);
        for (let nthRefusal = 0; nthRefusal < 5;) {
          const verdict = key.ask(nowMs, weight);
          if (verdict.ok) continue;
          nthRefusal += 1;
          const { remaining, resetMs, retryAfterMs } = verdict;
          const untouched = decide(key.arrival, nowMs, policy, { weight: 0 });
          if (remaining !== untouched.remaining || resetMs !== untouched.resetMs)
            throw new Error("it took something all the same");
          const at = (ms: number) => decide(key.arrival, ms, policy, { weight }).ok;
          const around = [at(nowMs + retryAfterMs - 1), at(nowMs + retryAfterMs)];
          if (around[0] === true || around[1] === false || retryAfterMs < 1)
            throw new Error(`inexact: ${retryAfterMs} ms`);
          // Whoever waits takes his turn, and the next one is measured from there.
          key.ask(nowMs + retryAfterMs, weight);
        }
      }),
      { numRuns: 25 },
    );
  });

  test("changes nothing while the clock runs forward", () => {
    fc.assert(
      fc.property(policies, steps(fc.nat(5 * SECOND)), (policy, history) => {
        const key = new Key(policy);
        let nowMs = START_MS;
        for (const { moveMs, weight } of history) {
          nowMs += moveMs;
          const before = key.arrival;
          if (!key.ask(nowMs, weight).ok && key.arrival !== before) throw new Error("it wrote");
        }
      }),
    );
  });

  test.each([
    ["after the clock was set back a day", { max: 10, windowMs: MINUTE }, -24 * HOUR],
    ["after the window was shortened", { max: 10, windowMs: SECOND }, 0],
  ])("lasts no longer than two windows %s", (_, later, moveMs) => {
    const before = new Key({ max: 10, windowMs: MINUTE });
    for (let i = 0; i < 10; i++) before.ask(START_MS);
    const key = new Key(later);
    key.arrival = before.arrival;
    const verdict = key.ask(START_MS + moveMs);
    if (verdict.ok) throw new Error("nothing was left to take");
    expect(verdict.retryAfterMs).toBeLessThanOrEqual(2 * later.windowMs);
    expect(key.ask(START_MS + moveMs + verdict.retryAfterMs).ok).toBe(true);
  });

  test("is not mended for clocks that merely differ", () => {
    const key = new Key({ max: 10, windowMs: MINUTE });
    for (let i = 0; i < 10; i++) key.ask(START_MS);
    expect(key.ask(START_MS - 5 * SECOND)).toMatchObject({
      ok: false,
      retryAfterMs: 11 * SECOND,
      mendedMs: null,
    });
  });
});

test("the whole burst is back when the reset says so", () => {
  fc.assert(
    fc.property(policies, steps(fc.nat(SECOND)), (policy, history) => {
      const { key, nowMs } = play(policy, history);
      const { resetMs } = decide(key.arrival, nowMs, policy, { weight: 0 });
      expect(decide(key.arrival, nowMs + resetMs, policy, { weight: policy.max }).ok).toBe(true);
    }),
  );
});

describe("the shards of a limit", () => {
  test("add up to its burst and rate, each with a part of it", () => {
    fc.assert(
      fc.property(policies, (policy) => {
        const shards = shardsFor(policy);
        const parts = Array.from({ length: shards }, (_, i) => shardPolicy(policy, i, shards));
        expect(parts.reduce((sum, { max }) => sum + max, 0)).toBe(policy.max);
        expect(Math.min(...parts.map(({ max }) => max))).toBeGreaterThanOrEqual(1);
        expect(new Set(parts.map(({ windowMs }) => windowMs))).toEqual(new Set([policy.windowMs]));
      }),
    );
  });

  test.each([
    [{ max: 16, windowMs: 5 * MINUTE }, 1],
    // Two a second is little, but all of it may come at once.
    [{ max: 120, windowMs: MINUTE }, 8],
    [{ max: 16, windowMs: SECOND }, 4],
    [{ max: 18_000, windowMs: MINUTE }, SHARDS_MAX],
    [{ max: 5_000, windowMs: SECOND }, SHARDS_MAX],
    // More than four a second each, but there is no burst to split any further.
    [{ max: 3, windowMs: 10 }, 2],
    [{ max: 1, windowMs: 1 }, 1],
  ])("are as many as its rate and burst need: %j", (policy, shards) => {
    expect(shardsFor(policy)).toBe(shards);
  });
});

describe("a request too heavy for one shard", () => {
  /** A limit of shards that are asked together, and what a table does with the verdicts. */
  class Spread {
    readonly arrivals: Arrival[];
    readonly policy: LimitPolicy;

    constructor(policy: LimitPolicy, shards: number) {
      this.policy = policy;
      this.arrivals = Array.from({ length: shards }, () => null);
    }

    ask(nowMs: number, weight: number, reserveMs = 0): ReturnType<typeof decideSpread> {
      const verdict = decideSpread(this.arrivals, nowMs, this.policy, { weight, reserveMs });
      if (verdict.ok) for (const [shard, ms] of verdict.arrivals) this.arrivals[shard] = ms;
      return verdict;
    }
  }

  test("takes the whole burst at once, to the last, and no more", () => {
    const key = new Spread({ max: 1_000, windowMs: MINUTE }, 64);
    expect(key.ask(START_MS, 990)).toMatchObject({ ok: true, waitMs: 0, remaining: 10 });
    expect(key.ask(START_MS, 11)).toMatchObject({ ok: false, remaining: 10 });
    expect(key.ask(START_MS, 10)).toMatchObject({ ok: true, remaining: 0 });
    expect(new Spread({ max: 5, windowMs: MINUTE }, 2).ask(START_MS, 6).ok).toBe(false);
  });

  test("over any history passes at most burst and rate, and is told when it will", () => {
    const histories = fc.array(
      fc.record({
        gapMs: fc.nat(900),
        weight: fc.integer({ min: 1, max: 40 }),
        reserveMs: fc.constantFrom(0, 0, 500, 2_000),
      }),
      { minLength: 20, maxLength: 60, size: "max" },
    );
    fc.assert(
      fc.property(fc.integer({ min: 40, max: 200 }), histories, (max, history) => {
        const policy = { max, windowMs: 2 * SECOND };
        const key = new Spread(policy, 8);
        const passed: { atMs: number; weight: number }[] = [];
        let nowMs = START_MS;
        for (const { gapMs, reserveMs, weight } of history) {
          nowMs += gapMs;
          const verdict = key.ask(nowMs, weight, reserveMs);
          if (!verdict.ok) {
            const at = (ms: number) => decideSpread(key.arrivals, ms, policy, { weight }).ok;
            const { retryAfterMs } = verdict;
            expect([at(nowMs + retryAfterMs - 1), at(nowMs + retryAfterMs)]).toEqual([false, true]);
            continue;
          }
          // It goes when its turn comes, not when it asked.
          passed.push({ atMs: nowMs + verdict.waitMs, weight });
        }
        passed.sort((a, b) => a.atMs - b.atMs);
        for (const [i, from] of passed.entries()) {
          let taken = 0;
          for (const { atMs, weight } of passed.slice(i)) {
            taken += weight;
            expect(taken).toBeLessThanOrEqual(max + (max * (atMs - from.atMs)) / 2_000 + 1e-6);
          }
        }
      }),
      { numRuns: 40 },
    );
  });

  test("reserves a turn no further ahead than asked for", () => {
    const key = new Spread({ max: 60, windowMs: MINUTE }, 4);
    expect(key.ask(START_MS, 60).ok).toBe(true);
    expect(key.ask(START_MS, 40, 30 * SECOND).ok).toBe(false);
    expect(key.ask(START_MS, 40, MINUTE)).toMatchObject({ ok: true, waitMs: 40 * SECOND });
    expect(key.ask(START_MS + 59 * SECOND, 20)).toMatchObject({ ok: false, retryAfterMs: SECOND });
  });

  test("takes of idle shards for the time of its turn: they do not fill up again until then", () => {
    const key = new Spread({ max: 40, windowMs: 40 * SECOND }, 4);
    expect(key.ask(START_MS, 20).ok).toBe(true);
    expect(key.ask(START_MS, 40, 40 * SECOND)).toMatchObject({ ok: true, waitMs: 40 * SECOND });
    expect(key.ask(START_MS + 40 * SECOND, 1)).toMatchObject({ ok: false, remaining: 0 });
  });

  test("is not held up by a clock that was set back", () => {
    const key = new Spread({ max: 40, windowMs: SECOND }, 4);
    key.ask(START_MS + HOUR, 40);
    const verdict = key.ask(START_MS, 40);
    expect(verdict).toMatchObject({ ok: false, retryAfterMs: SECOND });
    expect(key.ask(START_MS, 40, SECOND)).toMatchObject({ ok: true, waitMs: SECOND });
  });
});

test.each([
  [{ max: NaN, windowMs: 1 }, {}],
  [{ max: Infinity, windowMs: 1 }, {}],
  [{ max: 2 ** 53, windowMs: 1 }, {}],
  [{ max: 1, windowMs: 2 ** 53 }, {}],
  [{ max: 1, windowMs: -1 }, {}],
  [{ max: 1, windowMs: 1.5 }, {}],
  [{ max: 1, windowMs: 1 }, { weight: 0 }],
  [{ max: 1, windowMs: 1 }, { weight: -1 }],
  [{ max: 1, windowMs: 1 }, { weight: NaN }],
  [{ max: 10, windowMs: 1 }, { weight: 11 }],
  [
    { max: 10, windowMs: MINUTE },
    { weight: 21, reserveMs: HOUR },
  ],
  [{ max: 1, windowMs: 1 }, { reserveMs: NaN }],
  [{ max: 1, windowMs: 1 }, { reserveMs: Infinity }],
])("%j with %j is nothing to decide on", (policy, demand) => {
  expect(isDecidable(policy, demand)).toBe(false);
});

test.each([
  [{ max: 1, windowMs: 1 }, {}],
  [{ max: 7, windowMs: 2 ** 53 - 1 }, { weight: 7 }],
  [{ max: 2 ** 53 - 1, windowMs: 1 }, {}],
  [
    { max: 10, windowMs: MINUTE },
    { weight: 20, reserveMs: HOUR },
  ],
])("%j with %j is decided on", (policy, demand) => {
  expect(isDecidable(policy, demand)).toBe(true);
});

describe("a reservation", () => {
  const policy: LimitPolicy = { max: 4, windowMs: MINUTE };

  test("is a turn later on, one after the other, no further ahead than asked for", () => {
    let arrival: Arrival = null;
    const waits: (number | null)[] = [];
    for (let i = 0; i < 8; i++) {
      const verdict = decide(arrival, START_MS, policy, { reserveMs: 30 * SECOND });
      waits.push(verdict.ok ? verdict.waitMs : null);
      if (verdict.ok) arrival = verdict.arrivalMs;
    }
    expect(waits).toEqual([0, 0, 0, 0, 15 * SECOND, 30 * SECOND, null, null]);
  });

  test("keeps the limit at the times the callers go, for any history", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ gapMs: fc.nat(20_000), reserveMs: fc.nat(90_000) }), {
          maxLength: 80,
        }),
        (history) => {
          let arrival: Arrival = null;
          let nowMs = START_MS;
          const going: number[] = [];
          for (const { gapMs, reserveMs } of history) {
            nowMs += gapMs;
            const verdict = decide(arrival, nowMs, policy, { reserveMs });
            if (!verdict.ok) continue;
            arrival = verdict.arrivalMs;
            expect(verdict.waitMs).toBeLessThanOrEqual(Math.min(reserveMs, MINUTE));
            going.push(nowMs + verdict.waitMs);
          }
          for (const [i, fromMs] of going.entries())
            for (const [j, toMs] of going.entries())
              if (j >= i)
                expect(j - i + 1).toBeLessThanOrEqual(
                  policy.max + (policy.max * (toMs - fromMs + 1)) / MINUTE,
                );
        },
      ),
    );
  });
});
