import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { DrivenProvider, type Permit } from "../../test/edge/guards/drivenProvider";
import {
  type NaivePolicy,
  NaiveProvider,
  type Outcome,
} from "../../test/edge/guards/naiveProvider";

const START_MS = 1_790_000_000_000;

const policies: fc.Arbitrary<NaivePolicy> = fc
  .record({
    failureThreshold: fc.integer({ min: 1, max: 6 }),
    failureRate: fc.constantFrom(0.25, 0.5, 0.75, 1),
    slowCallRate: fc.constantFrom(0.5, 0.75, 1),
    callsMin: fc.integer({ min: 1, max: 8 }),
    windowMs: fc.integer({ min: 2, max: 200 }),
    cooldownMs: fc.integer({ min: 1, max: 50 }),
    probesMax: fc.integer({ min: 1, max: 3 }),
    probeLeaseMs: fc.integer({ min: 1, max: 40 }),
    slackMs: fc.integer({ min: 0, max: 40 }),
    size: fc.integer({ min: 1, max: 6 }),
  })
  .map(({ slackMs, ...policy }) => ({
    ...policy,
    slowCallMs: 0,
    leaseMs: policy.probeLeaseMs + slackMs,
  }));

type Step =
  | { readonly kind: "admit"; readonly roll: number }
  | {
      readonly kind: "settle";
      /** Counted from the newest call on: mostly one in flight, at times one long over. */
      readonly back: number;
      readonly outcome: Outcome;
      readonly slow: boolean;
      readonly lag: number;
    }
  | { readonly kind: "wait"; readonly ms: number }
  | { readonly kind: "force"; readonly to: "closed" | "forced_open" | "metrics_only" };

/** Steps are drawn as one number each: a hundred thousand records would take longer than all else. */
function stepOf(drawn: number): Step {
  const digits = { left: drawn };
  const draw = (n: number): number => {
    const digit = digits.left % n;
    digits.left = Math.floor(digits.left / n);
    return digit;
  };
  const kind = draw(64);
  if (kind >= 63)
    return {
      kind: "force",
      to: (["closed", "closed", "forced_open", "metrics_only"] as const)[draw(4)] ?? "closed",
    };
  if (kind >= 50) return { kind: "wait", ms: draw(4) === 0 ? draw(120) : draw(12) };
  if (kind >= 26) return { kind: "admit", roll: draw(6) / 6 };
  return {
    kind: "settle",
    back: draw(16) === 0 ? draw(32) : draw(5),
    outcome: (["failure", "success", "failure", "neutral"] as const)[draw(4)] ?? "neutral",
    slow: draw(4) === 0,
    lag: draw(4) === 0 ? draw(4) : 0,
  };
}

const STEPS_MIN = 200;
const histories = fc.array(fc.nat(2 ** 31 - 1), {
  size: "max",
  minLength: STEPS_MIN,
  maxLength: STEPS_MIN + 50,
});

/** Plays overlapping calls, settled late, twice, out of order or never, beside the naive model. */
class Play {
  readonly driven: DrivenProvider;
  readonly naive: NaiveProvider;
  readonly reached = new Set<string>();
  nowMs = START_MS;
  private readonly permits: Permit[] = [];

  constructor(policy: NaivePolicy) {
    this.driven = new DrivenProvider(policy);
    this.naive = new NaiveProvider(policy);
  }

  step(step: Step): void {
    switch (step.kind) {
      case "wait":
        this.nowMs += step.ms;
        return;
      case "force":
        this.driven.force(step.to);
        this.naive.force(step.to);
        this.reached.add(step.to);
        return;
      case "admit":
        this.admit(step.roll);
        return;
      case "settle":
        this.settle(step);
    }
  }

  private admit(roll: number): void {
    const { driven, naive, nowMs } = this;
    const expected = naive.expected(nowMs);
    const verdict = driven.admit(this.permits.length, nowMs, () => roll);
    if ("retryAfterMs" in verdict) {
      if (expected.admit || expected.retryAfterMs !== verdict.retryAfterMs)
        throw new Error(`refused: ${JSON.stringify([verdict, expected])}`);
      this.reached.add(verdict.retryAfterMs === null ? "saturated" : naive.phase(nowMs));
      return;
    }
    if (!expected.admit || expected.probe !== (verdict.place !== null))
      throw new Error(`admitted: ${JSON.stringify([verdict, expected])}`);
    naive.admitted(verdict.id, verdict, nowMs);
    if (expected.probe) this.reached.add("probe");
    this.permits.push(verdict);
  }

  private settle({ back, outcome, slow, lag }: Extract<Step, { kind: "settle" }>): void {
    const { driven, naive, nowMs } = this;
    const permit = this.permits[this.permits.length - 1 - back];
    if (permit === undefined) return;
    const before = driven.breaker;
    // A neutral outcome is never slow: nobody asks how long it took.
    const settled = { outcome, slow: slow && outcome !== "neutral" };
    const seenTurn = naive.turn - lag;
    const released = driven.settle(permit, { ...settled, lag }, nowMs);
    if (released !== naive.settled(permit.id, settled, { nowMs, seenTurn }))
      throw new Error(`released: ${String(released)}`);
    if (!released) this.reached.add("lost");
    else if (permit.generation !== before.generation) this.reached.add("early");
    if (!released || permit.generation !== before.generation)
      if (driven.breaker !== before) throw new Error("it was heard");
    const { state } = driven.breaker;
    if (state.kind === "open" && before !== driven.breaker) this.reached.add(state.reason);
    if (state.kind === "closed" && before.state.kind === "open") this.reached.add("closed again");
  }

  /** Everything that can be seen from outside is what the naive model says. */
  compare(): void {
    const { driven, naive, nowMs } = this;
    const { generation, state } = driven.breaker;
    const seen = { generation, kind: state.kind, inFlight: driven.inFlight(nowMs) };
    const said = {
      generation: naive.generation,
      kind: naive.state.kind,
      inFlight: naive.inFlight(nowMs),
    };
    if (JSON.stringify(seen) !== JSON.stringify(said))
      throw new Error(JSON.stringify([seen, said]));
    if (seen.inFlight > naive.policy.size) throw new Error("more in flight than slots");
    if (naive.liveProbes(nowMs) > naive.policy.probesMax) throw new Error("more probes than k");
  }

  compareSums(): void {
    const { driven, naive, nowMs } = this;
    const { calls, failures, run, slow } = driven.sums(nowMs);
    const seen = JSON.stringify({ calls, failures, slow, run });
    const said = JSON.stringify(naive.sums(nowMs));
    if (seen !== said) throw new Error(`${seen}, not ${said}`);
    const { windowMs } = naive.policy;
    if (calls < naive.since(nowMs - windowMs / 2) || calls > naive.since(nowMs - windowMs))
      throw new Error(`${calls} calls are not those of a half to the whole of the window`);
  }
}

const EVERYTHING = [
  "closed",
  "closed again",
  "consecutive_failures",
  "early",
  "failed_probe",
  "failure_rate",
  "forced_open",
  "half_open",
  "lost",
  "metrics_only",
  "open",
  "probe",
  "saturated",
  "slow_call_rate",
];

describe("over any overlapping history", () => {
  test("breaker, tallies, probes and slots say what a naive model says that forgets nothing", () => {
    const reached = new Set<string>();
    let steps = 0;
    fc.assert(
      fc.property(policies, histories, (policy, history) => {
        const play = new Play(policy);
        for (const [i, drawn] of history.entries()) {
          play.step(stepOf(drawn));
          play.compare();
          if (i % 8 === 0) play.compareSums();
          steps += 1;
        }
        for (const one of play.reached) reached.add(one);
      }),
      { numRuns: 500 },
    );
    expect(steps).toBeGreaterThanOrEqual(100_000);
    expect([...reached].sort()).toEqual(EVERYTHING);
  });
});
