import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { admit, type Breaker, type BreakerPolicy, CLOSED, retryAtMs, settle } from "./breaker";
import { MINUTE, SECOND } from "./time";

const START_MS = 1_790_000_000_000;
const POLICY: BreakerPolicy = {
  failureThreshold: 3,
  cooldownMs: MINUTE,
  probesMax: 1,
  probeLeaseMs: 20 * SECOND,
};

type Outcome = "success" | "failure" | "neutral";

interface Call {
  readonly admittedAtMs: number;
  readonly generation: number;
}

/** The breaker as a table holds it, driven as admission and settlement drive it. */
class Driven {
  breaker: Breaker = CLOSED;
  readonly policy: BreakerPolicy;

  constructor(policy: BreakerPolicy) {
    this.policy = policy;
  }

  start(nowMs: number): Call | { readonly retryAfterMs: number } {
    const verdict = admit(this.breaker, nowMs, this.policy);
    if (!verdict.admit) return { retryAfterMs: verdict.retryAfterMs };
    this.breaker = verdict.next;
    return { admittedAtMs: nowMs, generation: this.breaker.generation };
  }

  end(call: Call, outcome: Outcome, nowMs: number): void {
    this.breaker = settle(this.breaker, { ...call, outcome }, nowMs, this.policy);
  }
}

/**
 * The same breaker said naively: it remembers every call of its present phase by name, and looks
 * through the list whenever it is asked.
 */
class Naive {
  phase: "closed" | "open" | "half_open" = "closed";
  failures = 0;
  openings = 0;
  openUntilMs = 0;
  calls: { readonly id: number; readonly untilMs: number }[] = [];
  readonly policy: BreakerPolicy;

  constructor(policy: BreakerPolicy) {
    this.policy = policy;
  }

  probesAt(nowMs: number): number {
    return this.calls.filter(({ untilMs }) => untilMs > nowMs).length;
  }

  start(id: number, nowMs: number): boolean {
    if (this.phase === "open") {
      if (nowMs < this.openUntilMs) return false;
      this.enter("half_open");
    }
    if (this.phase === "half_open" && this.probesAt(nowMs) >= this.policy.probesMax) return false;
    this.calls.push({ id, untilMs: nowMs + this.policy.probeLeaseMs });
    this.known.add(id);
    return true;
  }

  end(id: number, outcome: Outcome, nowMs: number): void {
    if (!this.known.delete(id)) return;
    this.calls = this.calls.filter((call) => call.id !== id);
    if (outcome === "neutral" || this.phase === "open") return;
    if (outcome === "success") {
      this.failures = 0;
      if (this.phase === "half_open") {
        this.openings = 0;
        this.enter("closed");
      }
      return;
    }
    this.failures += 1;
    if (this.phase === "closed" && this.failures < this.policy.failureThreshold) return;
    this.openings += 1;
    this.failures = 0;
    const growth = Math.min(8, 2 ** (this.openings - 1));
    this.openUntilMs = nowMs + this.policy.cooldownMs * growth;
    this.enter("open");
  }

  /** Calls of the present phase; whoever is not in it is not heard. */
  private known = new Set<number>();

  private enter(phase: Naive["phase"]): void {
    this.phase = phase;
    this.known = new Set();
    this.calls = [];
  }
}

const policies = fc.record({
  failureThreshold: fc.integer({ min: 1, max: 4 }),
  cooldownMs: fc.integer({ min: 1, max: 50 }),
  probesMax: fc.integer({ min: 1, max: 3 }),
  probeLeaseMs: fc.integer({ min: 1, max: 40 }),
});

type Step =
  | { readonly kind: "start" }
  | { readonly kind: "end"; readonly which: number; readonly outcome: Outcome }
  | { readonly kind: "wait"; readonly ms: number };

const histories = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: fc.record({ kind: fc.constant("start" as const) }) },
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant("end" as const),
        which: fc.nat(),
        outcome: fc.constantFrom<Outcome[]>("success", "failure", "failure", "neutral"),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant("wait" as const),
        ms: fc.integer({ min: 0, max: 60 }),
      }),
    },
  ) satisfies fc.Arbitrary<Step>,
  { size: "max", minLength: 1, maxLength: 300 },
);

/** Plays overlapping calls, those never settled included; hands each moment to `look`. */
function play(
  policy: BreakerPolicy,
  history: readonly Step[],
  look: (driven: Driven, naive: Naive, nowMs: number) => void,
) {
  const driven = new Driven(policy);
  const naive = new Naive(policy);
  const inFlight: { id: number; call: Call }[] = [];
  let nowMs = START_MS;
  for (const [id, step] of history.entries()) {
    if (step.kind === "wait") nowMs += step.ms;
    if (step.kind === "start") {
      const call = driven.start(nowMs);
      if ("generation" in call !== naive.start(id, nowMs)) throw new Error("one of them admits");
      if ("generation" in call) inFlight.push({ id, call });
    }
    if (step.kind === "end" && inFlight.length > 0) {
      const [ended] = inFlight.splice(step.which % inFlight.length, 1);
      if (ended === undefined) throw new Error("one of them is taken");
      driven.end(ended.call, step.outcome, nowMs);
      naive.end(ended.id, step.outcome, nowMs);
    }
    look(driven, naive, nowMs);
  }
}

/** Whether a state says of its phase what the naive model says. */
function agree(state: Breaker["state"], naive: Naive, nowMs: number): boolean {
  switch (state.kind) {
    case "closed":
      return state.failures === naive.failures;
    case "open":
      return retryAtMs(state, naive.policy) === naive.openUntilMs;
    case "half_open": {
      const live = state.probeLeasesMs.filter((untilMs) => untilMs > nowMs);
      return live.length === naive.probesAt(nowMs) && live.length <= naive.policy.probesMax;
    }
  }
}

describe("over any overlapping history", () => {
  test("it is where a naive model is, and admits what that admits", () => {
    const reached = new Set<string>();
    fc.assert(
      fc.property(policies, histories, (policy, history) => {
        play(policy, history, ({ breaker: { state } }, naive, nowMs) => {
          reached.add(state.kind);
          if (state.kind !== naive.phase) throw new Error(`${state.kind}, not ${naive.phase}`);
          if (!agree(state, naive, nowMs)) throw new Error(JSON.stringify([state, naive, nowMs]));
        });
      }),
      { numRuns: 200 },
    );
    expect([...reached].sort()).toEqual(["closed", "half_open", "open"]);
  });

  test("waiting as long as a refusal says is enough, and a millisecond less is not", () => {
    fc.assert(
      fc.property(policies, histories, (policy, history) => {
        play(policy, history, ({ breaker }, _, nowMs) => {
          const verdict = admit(breaker, nowMs, policy);
          if (verdict.admit) return;
          const at = (ms: number) => admit(breaker, ms, policy).admit;
          if (!at(nowMs + verdict.retryAfterMs)) throw new Error("not enough");
          if (at(nowMs + verdict.retryAfterMs - 1)) throw new Error("too long");
        });
      }),
    );
  });

  test("an outcome of another generation changes nothing", () => {
    fc.assert(
      fc.property(policies, histories, fc.integer({ min: 1, max: 50 }), (policy, history, off) => {
        play(policy, history, ({ breaker }, _, nowMs) => {
          const outcome = { outcome: "failure" as const, admittedAtMs: nowMs };
          for (const generation of [breaker.generation - off, breaker.generation + off])
            if (settle(breaker, { ...outcome, generation }, nowMs, policy) !== breaker)
              throw new Error("it was heard");
        });
      }),
      { numRuns: 50 },
    );
  });
});

/** A breaker that has opened for the nth time at `nowMs`. */
function openedAt(nowMs: number, openings: number, policy = POLICY): Driven {
  const driven = new Driven(policy);
  driven.breaker = { state: { kind: "open", openedAtMs: nowMs, openings }, generation: 9 };
  return driven;
}

function halfOpen(policy = POLICY): { driven: Driven; probe: Call; nowMs: number } {
  const driven = openedAt(START_MS - MINUTE, 1, policy);
  const probe = driven.start(START_MS);
  if (!("generation" in probe)) throw new Error("the cooldown is over");
  return { driven, probe, nowMs: START_MS };
}

describe("closed", () => {
  test("it is not written while calls succeed", () => {
    const call = { ...CLOSED, admittedAtMs: START_MS, outcome: "success" as const };
    expect(admit(CLOSED, START_MS, POLICY)).toEqual({ admit: true, next: CLOSED });
    expect(settle(CLOSED, call, START_MS, POLICY)).toBe(CLOSED);
  });

  test("it opens on failures in a row, and a neutral outcome is not a gap in the row", () => {
    const driven = new Driven(POLICY);
    const outcomes = ["failure", "failure", "success", "failure", "neutral", "failure"] as const;
    for (const outcome of outcomes) {
      driven.end({ generation: 0, admittedAtMs: START_MS }, outcome, START_MS);
      expect(driven.breaker.state.kind).toBe("closed");
    }
    driven.end({ generation: 0, admittedAtMs: START_MS }, "failure", START_MS);
    expect(driven.breaker).toEqual({
      state: { kind: "open", openedAtMs: START_MS, openings: 1 },
      generation: 1,
    });
  });
});

describe("open", () => {
  test.each([
    [1, MINUTE],
    [2, 2 * MINUTE],
    [3, 4 * MINUTE],
    [4, 8 * MINUTE],
    [5, 8 * MINUTE],
    [5_000, 8 * MINUTE],
  ])("for the %i. time it stays open %i ms", (openings, cooldownMs) => {
    const driven = openedAt(START_MS, openings);
    expect(driven.start(START_MS)).toEqual({ retryAfterMs: cooldownMs });
    expect(driven.start(START_MS + cooldownMs - 1)).toEqual({ retryAfterMs: 1 });
    expect(driven.start(START_MS + cooldownMs)).toMatchObject({ generation: 10 });
  });

  test("a late success from before the trip does not close it", () => {
    const driven = new Driven(POLICY);
    const early = { generation: 0, admittedAtMs: START_MS };
    for (let i = 0; i < 3; i++) driven.end(early, "failure", START_MS);
    driven.end(early, "success", START_MS + 1);
    expect(driven.breaker.state.kind).toBe("open");
  });
});

describe("half-open", () => {
  test("a crowd gets one probe", () => {
    const driven = openedAt(START_MS - MINUTE, 1);
    const calls = Array.from({ length: 100 }, () => driven.start(START_MS));
    expect(calls.filter((call) => "generation" in call)).toHaveLength(1);
  });

  test("a success closes it, and the cooldown starts small again", () => {
    const { driven, probe, nowMs } = halfOpen();
    driven.end(probe, "success", nowMs);
    expect(driven.breaker).toEqual({ state: CLOSED.state, generation: 11 });
  });

  test("a failure opens it again, for longer", () => {
    const { driven, probe, nowMs } = halfOpen();
    driven.end(probe, "failure", nowMs);
    expect(driven.breaker).toEqual({
      state: { kind: "open", openedAtMs: nowMs, openings: 2 },
      generation: 11,
    });
  });

  test("a probe that never returns frees its place when its lease ends", () => {
    const { driven, nowMs } = halfOpen();
    expect(driven.start(nowMs + POLICY.probeLeaseMs - 1)).toEqual({ retryAfterMs: 1 });
    expect(driven.start(nowMs + POLICY.probeLeaseMs)).toMatchObject({ generation: 10 });
  });

  test("a late neutral probe does not free the place of the one that took over", () => {
    const { driven, probe, nowMs } = halfOpen();
    const takenOverMs = nowMs + POLICY.probeLeaseMs;
    expect(driven.start(takenOverMs)).toMatchObject({ generation: 10 });
    driven.end(probe, "neutral", takenOverMs + 1);
    expect(driven.start(takenOverMs + 2)).toEqual({ retryAfterMs: POLICY.probeLeaseMs - 2 });
  });

  test("neutral probes of one moment free one place each", () => {
    const { driven, probe, nowMs } = halfOpen({ ...POLICY, probesMax: 2 });
    expect(driven.start(nowMs)).toMatchObject({ generation: 10 });
    driven.end(probe, "neutral", nowMs);
    expect(driven.start(nowMs)).toMatchObject({ generation: 10 });
    expect(driven.start(nowMs)).toEqual({ retryAfterMs: POLICY.probeLeaseMs });
  });
});

test.each([
  [CLOSED.state],
  [{ kind: "half_open", openings: 1, probeLeasesMs: [START_MS] } as const],
])("only an open circuit has a time at which it will admit a probe: %j", (state) => {
  expect(retryAtMs(state, POLICY)).toBeNull();
});
