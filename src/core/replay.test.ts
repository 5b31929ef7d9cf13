import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type ClaimState,
  decideClaim,
  isTimely,
  rememberUntilMs,
  type StoredClaim,
} from "./replay";
import { MINUTE, SECOND } from "./time";

const NOW_MS = 1_790_000_000_000;

const stored = (state: ClaimState, more: Partial<StoredClaim> = {}): StoredClaim => ({
  state,
  fingerprint: "f",
  expiresAtMs: NOW_MS + MINUTE,
  fence: 3,
  ...more,
});
const ask = { fingerprint: "f", nowMs: NOW_MS };

describe("a claim", () => {
  test("on a key never seen, or no longer remembered, is granted", () => {
    expect(decideClaim(null, ask)).toEqual({ kind: "claimed", fence: NOW_MS });
    const done: ClaimState = { kind: "completed", reply: "r" };
    expect(decideClaim(stored(done, { expiresAtMs: NOW_MS }), ask)).toEqual({
      kind: "claimed",
      fence: NOW_MS,
    });
  });

  test("is told from every earlier one, wherever the clock is set", () => {
    for (const fence of [1, NOW_MS - 1, NOW_MS, NOW_MS + MINUTE]) {
      const verdict = decideClaim(stored({ kind: "failed" }, { fence }), ask);
      if (verdict.kind !== "claimed") throw new Error("it failed before");
      expect(verdict.fence).toBeGreaterThan(fence);
    }
  });

  test("on what was done is answered with the reply", () => {
    expect(decideClaim(stored({ kind: "completed", reply: "r" }), ask)).toEqual({
      kind: "completed",
      reply: "r",
    });
  });

  test("on what is being done waits for the lease, and takes over once it has run out", () => {
    const leaseExpiresAtMs = NOW_MS + SECOND;
    const doing = stored({ kind: "in_progress", leaseExpiresAtMs });
    expect(decideClaim(doing, ask)).toEqual({ kind: "in_progress", retryAfterMs: SECOND });
    expect(decideClaim(doing, { ...ask, nowMs: leaseExpiresAtMs })).toEqual({
      kind: "claimed",
      fence: leaseExpiresAtMs,
    });
  });

  test("on what failed is granted", () => {
    expect(decideClaim(stored({ kind: "failed" }), ask)).toEqual({
      kind: "claimed",
      fence: NOW_MS,
    });
  });

  test("with another request is a conflict, whatever became of the first", () => {
    const other = { ...ask, fingerprint: "g" };
    for (const state of [
      { kind: "in_progress", leaseExpiresAtMs: NOW_MS } as const,
      { kind: "completed", reply: null } as const,
      { kind: "failed" } as const,
    ])
      expect(decideClaim(stored(state), other)).toEqual({ kind: "conflict" });
  });
});

test("no timestamp is accepted once its nonce is forgotten, on any of our clocks", () => {
  const skewMs = 5 * MINUTE;
  const marginMs = 2 * SECOND;
  fc.assert(
    fc.property(
      fc.integer({ min: -400_000, max: 400_000 }),
      fc.integer({ min: -1_000, max: 1_000 }),
      fc.integer({ min: 0, max: 1_200_000 }),
      (offsetMs, clockMs, laterMs) => {
        const timestampMs = NOW_MS + offsetMs;
        if (!isTimely(timestampMs, NOW_MS, { skewMs, marginMs })) return;
        const untilMs = rememberUntilMs(timestampMs, NOW_MS, { skewMs, marginMs });
        // The clock that judges later, and the one that forgot, may differ from ours.
        const forgottenMs = Math.max(untilMs, NOW_MS + laterMs);
        expect(isTimely(timestampMs, forgottenMs + clockMs, { skewMs, marginMs })).toBe(false);
      },
    ),
  );
});
