import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  admitProbe,
  type Breaker,
  type BreakerPolicy,
  CLOSED,
  closed,
  forced,
  opened,
  phaseAt,
  type Probe,
  probesFromMs,
  reasonToOpen,
} from "./breaker";
import { NO_COUNTS } from "./tally";
import { MINUTE, SECOND } from "./time";

const START_MS = 1_790_000_000_000;
const POLICY: BreakerPolicy = {
  failureThreshold: 3,
  failureRate: 0.5,
  slowCallRate: 0.8,
  callsMin: 10,
  windowMs: 2 * MINUTE,
  slowCallMs: 10 * SECOND,
  cooldownMs: MINUTE,
  probesMax: 1,
  probeLeaseMs: 20 * SECOND,
};

const openAt = (openedAtMs: number, openings: number): Breaker => ({
  state: { kind: "open", openedAtMs, openings, reason: "failure_rate" },
  generation: 9,
});

describe("what a state means", () => {
  test.each([
    [1, MINUTE],
    [2, 2 * MINUTE],
    [3, 4 * MINUTE],
    [4, 8 * MINUTE],
    [5, 8 * MINUTE],
    [5_000, 8 * MINUTE],
  ])("opened for the %i. time it stays open %i ms", (openings, cooldownMs) => {
    const breaker = openAt(START_MS, openings);
    const at = (nowMs: number) => phaseAt(breaker, nowMs, POLICY);
    expect(at(START_MS)).toEqual({ kind: "open", retryAfterMs: cooldownMs });
    expect(at(START_MS + cooldownMs - 1)).toEqual({ kind: "open", retryAfterMs: 1 });
    expect(at(START_MS + cooldownMs)).toEqual({ kind: "half_open" });
    expect(probesFromMs(breaker.state, POLICY)).toBe(START_MS + cooldownMs);
  });

  test("opened by a clock that was set back since, it is probed instead of waited for", () => {
    const at = (nowMs: number) => phaseAt(openAt(START_MS, 2), nowMs, POLICY);
    expect(at(START_MS - 2 * MINUTE)).toEqual({ kind: "open", retryAfterMs: 4 * MINUTE });
    expect(at(START_MS - 2 * MINUTE - 1)).toEqual({ kind: "half_open" });
    expect(at(START_MS - 1_000 * MINUTE)).toEqual({ kind: "half_open" });
  });

  test("follows a cooldown that is set while it is open", () => {
    const at = (cooldownMs: number) =>
      phaseAt(openAt(START_MS, 1), START_MS + MINUTE / 2, { ...POLICY, cooldownMs });
    expect(at(20 * SECOND)).toEqual({ kind: "half_open" });
    expect(at(MINUTE)).toEqual({ kind: "open", retryAfterMs: MINUTE / 2 });
    expect(at(10 * MINUTE)).toEqual({ kind: "open", retryAfterMs: 9.5 * MINUTE });
  });

  test("closed, everything passes, and the same where an operator only wants to watch", () => {
    for (const breaker of [CLOSED, closed(openAt(0, 3)), forced(CLOSED, "metrics_only")]) {
      expect(phaseAt(breaker, START_MS, POLICY)).toEqual({ kind: "closed" });
      expect(probesFromMs(breaker.state, POLICY)).toBeNull();
    }
  });

  test("forced open, nothing ever passes", () => {
    const breaker = forced(CLOSED, "forced_open");
    for (const nowMs of [0, START_MS, START_MS * 2])
      expect(phaseAt(breaker, nowMs, POLICY)).toEqual({ kind: "open", retryAfterMs: MINUTE });
    expect(probesFromMs(breaker.state, POLICY)).toBeNull();
  });
});

describe("a transition", () => {
  test("is a new generation, whichever it is", () => {
    const before = openAt(START_MS, 2);
    const after = [
      opened(before, "failed_probe", START_MS),
      closed(before),
      forced(before, "forced_open"),
      forced(before, "metrics_only"),
    ];
    for (const { generation } of after) expect(generation).toBe(before.generation + 1);
  });

  test("opens it anew out of every state but open, where openings add up", () => {
    const kindOf = (breaker: Breaker) => opened(breaker, "slow_call_rate", START_MS).state;
    const state = { kind: "open", openedAtMs: START_MS, reason: "slow_call_rate" };
    for (const breaker of [CLOSED, forced(openAt(0, 7), "forced_open"), closed(openAt(0, 7))])
      expect(kindOf(breaker)).toEqual({ ...state, openings: 1 });
    expect(kindOf(openAt(0, 7))).toEqual({ ...state, openings: 8 });
  });
});

describe("a closed circuit", () => {
  const counted = { ...NO_COUNTS, run: 0 };
  test.each([
    ["2 failures in a row", { run: 2 }, null],
    ["3 failures in a row", { run: 3 }, "consecutive_failures"],
    ["a rate of too few calls", { calls: 9, failures: 9 }, null],
    ["a rate of calls enough", { calls: 10, failures: 5 }, "failure_rate"],
    ["a rate below", { calls: 11, failures: 5 }, null],
    ["slow calls enough", { calls: 10, slow: 8 }, "slow_call_rate"],
    ["slow calls below", { calls: 11, slow: 8 }, null],
    ["slow calls among too few", { calls: 9, slow: 9 }, null],
    ["several reasons", { calls: 10, failures: 10, slow: 10, run: 3 }, "consecutive_failures"],
  ])("with %s opens for %s", (_, some, reason) => {
    expect(reasonToOpen({ ...counted, ...some }, POLICY)).toBe(reason);
  });
});

describe("a half-open circuit", () => {
  const probe = (place: number, expiresAtMs: number, succeeded = false): Probe => ({
    place,
    expiresAtMs,
    succeeded,
  });
  const policy = { ...POLICY, probesMax: 3 };
  const ask = (probes: readonly Probe[], roll = 0) =>
    admitProbe(probes, { nowMs: START_MS, random: () => roll }, policy);
  const later = (ms: number) => START_MS + ms;

  test("gives out each place once, from a random one on", () => {
    expect(ask([])).toEqual({ admit: true, place: 0 });
    expect(ask([], 0.99)).toEqual({ admit: true, place: 2 });
    expect(ask([probe(2, later(1))], 0.99)).toEqual({ admit: true, place: 0 });
    expect(ask([probe(0, later(1)), probe(2, later(1))])).toEqual({ admit: true, place: 1 });
  });

  test("is full while all places are taken, and says when the first may be free", () => {
    const probes = [probe(0, later(7)), probe(1, later(5)), probe(2, later(9))];
    expect(ask(probes)).toEqual({ admit: false, retryAfterMs: 5 });
    expect(ask([...probes.slice(1), probe(0, later(0))])).toEqual({ admit: true, place: 0 });
  });

  test("keeps the place of a probe that succeeded, whose lease is no reason to come back", () => {
    const probes = [probe(0, later(-10), true), probe(1, later(5)), probe(2, later(2), true)];
    expect(ask(probes)).toEqual({ admit: false, retryAfterMs: 5 });
  });

  // A knob lowered below the probes that succeeded already left nobody whose success could close it.
  test("asks one more where as many as now are needed have succeeded", () => {
    const probes = [probe(0, later(-10), true), probe(1, later(5), true)];
    const lowered = { ...POLICY, probesMax: 2 };
    const verdict = admitProbe(probes, { nowMs: START_MS, random: () => 0.5 }, lowered);
    expect(verdict).toEqual({ admit: true, place: 1 });
  });

  test("never holds more live probes than it may, whoever comes when", () => {
    const steps = fc.array(fc.tuple(fc.nat(30), fc.nat(2 ** 20), fc.boolean()), { maxLength: 60 });
    fc.assert(
      fc.property(steps, fc.integer({ min: 1, max: 4 }), (history, probesMax) => {
        const places = new Map<number, Probe>();
        let nowMs = START_MS;
        for (const [waitMs, roll, succeeds] of history) {
          nowMs += waitMs;
          const random = () => roll / 2 ** 20;
          const now = [...places.values()];
          const verdict = admitProbe(now, { nowMs, random }, { ...POLICY, probesMax });
          const waiting = now.filter((one) => !one.succeeded && one.expiresAtMs > nowMs);
          const kept = now.filter((one) => one.succeeded);
          const full = waiting.length + kept.length >= probesMax && waiting.length > 0;
          if (verdict.admit !== !full) throw new Error(JSON.stringify([now, verdict, nowMs]));
          if (verdict.admit) {
            if (verdict.place < 0 || verdict.place >= probesMax) throw new Error("no such place");
            const replaced = places.get(verdict.place);
            if (replaced !== undefined && waiting.includes(replaced)) throw new Error("taken");
            places.set(verdict.place, probe(verdict.place, nowMs + 40, false));
          } else if (succeeds) {
            const [one] = waiting;
            if (one !== undefined && kept.length + 1 < probesMax)
              places.set(one.place, { ...one, succeeded: true });
          }
        }
      }),
      { numRuns: 300 },
    );
  });
});
