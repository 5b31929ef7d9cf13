import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type Alert,
  type Attempt,
  attempted,
  ATTEMPT_LEASE_MS,
  ATTEMPTS_MAX,
  begun,
  type Notice,
  raised,
  resolved,
} from "./alerting";
import { MINUTE, SECOND } from "./time";

const NOW = 1_000_000;
const COOLDOWN = 5 * MINUTE;
const at = (nowMs: number) => ({ nowMs, cooldownMs: COOLDOWN });
const half = () => 0.5;

function created(last: Alert | null, nowMs: number): Alert {
  const next = raised(last, at(nowMs));
  if (next.kind === "unchanged") throw new Error("expected an alert");
  return next.alert;
}

/** The alert after one attempt that begins and ends at once. */
function tried(alert: Alert, attempt: Attempt, nowMs: number): Alert {
  const under = begun(alert, nowMs);
  if (under === null) throw new Error("nothing is due");
  return attempted(under, attempt, { nowMs, random: half });
}
const SENT: Attempt = { kind: "sent" };
const FAILED: Attempt = { kind: "failed", retryAfterMs: 0 };

const RAISED = created(null, NOW);
const TOLD = tried(RAISED, SENT, NOW);
const OVER = resolved(TOLD, NOW + MINUTE);

describe("an alert", () => {
  test("is told at once when it is raised first, and its end when it is over", () => {
    expect(RAISED.delivery).toEqual({
      kind: "pending",
      notice: "raised",
      attempts: 0,
      dueAtMs: NOW,
    });
    expect(TOLD).toEqual({
      active: true,
      delivery: { kind: "sent", notice: "raised" },
      raisedSentAtMs: NOW,
    });
    expect(OVER.delivery).toMatchObject({ kind: "pending", notice: "recovered" });
    expect(tried(OVER, SENT, NOW + MINUTE).delivery).toEqual({ kind: "sent", notice: "recovered" });
  });

  test("that holds on is told again after the cooldown, counted from when it was told", () => {
    const late = tried(RAISED, SENT, NOW + 3 * MINUTE);
    expect(raised(late, at(NOW + COOLDOWN)).kind).toBe("unchanged");
    expect(raised(late, at(NOW + 3 * MINUTE + COOLDOWN - 1)).kind).toBe("unchanged");
    expect(raised(late, at(NOW + 3 * MINUTE + COOLDOWN)).kind).toBe("reminded");
  });

  test("that is on its way is not raised again", () => {
    expect(raised(RAISED, at(NOW + 60 * MINUTE)).kind).toBe("unchanged");
  });

  test("raised again too soon waits for the cooldown, and is not told where it is over by then", () => {
    const again = created(OVER, NOW + 2 * MINUTE);
    expect(again.delivery).toMatchObject({ kind: "pending", dueAtMs: NOW + COOLDOWN });
    expect(begun(again, NOW + COOLDOWN - 1)).toBeNull();
    expect(resolved(again, NOW + 3 * MINUTE).delivery).toEqual({ kind: "suppressed" });
    expect(resolved(again, NOW + COOLDOWN).delivery.kind).toBe("pending");
  });

  test("that is over before anybody could be told is told, and its end after that", () => {
    const failed = tried(RAISED, FAILED, NOW);
    const over = resolved(failed, NOW + SECOND);
    expect(over).toMatchObject({ active: false, delivery: { kind: "pending", notice: "raised" } });
    const told = tried(over, SENT, NOW + 10 * MINUTE);
    expect(told.delivery).toMatchObject({ kind: "pending", notice: "recovered" });
  });
});

describe("an attempt", () => {
  test("holds the notice until its lease ends", () => {
    const under = begun(RAISED, NOW);
    expect(under?.delivery).toMatchObject({ attempts: 1, dueAtMs: NOW + ATTEMPT_LEASE_MS });
    expect(begun(under ?? RAISED, NOW + ATTEMPT_LEASE_MS - 1)).toBeNull();
    expect(begun(under ?? RAISED, NOW + ATTEMPT_LEASE_MS)).not.toBeNull();
  });

  test("that fails is repeated after growing delays, and at last given up", () => {
    let alert = RAISED;
    let nowMs = NOW;
    const gaps: number[] = [];
    for (let i = 1; i <= ATTEMPTS_MAX; i++) {
      alert = tried(alert, FAILED, nowMs);
      if (alert.delivery.kind !== "pending") break;
      gaps.push(alert.delivery.dueAtMs - nowMs);
      nowMs = alert.delivery.dueAtMs;
    }
    expect(gaps.slice(0, 3)).toEqual([2_500, 5_000, 10_000]);
    expect(Math.max(...gaps)).toBe(7.5 * MINUTE);
    expect(gaps).toHaveLength(ATTEMPTS_MAX - 1);
    expect(alert.delivery).toEqual({ kind: "dead", notice: "raised", atMs: nowMs });
    // It is tried anew while it holds, but not at every look.
    expect(raised(alert, at(nowMs + COOLDOWN - 1)).kind).toBe("unchanged");
    expect(raised(alert, at(nowMs + COOLDOWN)).kind).toBe("reminded");
  });

  test("waits as long as the tracker asks, up to a quarter of an hour", () => {
    const wait = (retryAfterMs: number) =>
      tried(RAISED, { kind: "failed", retryAfterMs }, NOW).delivery;
    expect(wait(MINUTE)).toMatchObject({ dueAtMs: NOW + MINUTE });
    expect(wait(86_400_000)).toMatchObject({ dueAtMs: NOW + 15 * MINUTE });
  });

  test("without anybody to tell ends there", () => {
    const alert = tried(RAISED, { kind: "not_configured" }, NOW);
    expect(alert.delivery).toEqual({ kind: "not_configured", atMs: NOW });
    expect(resolved(alert, NOW + 1).delivery.kind).toBe("not_configured");
    expect(raised(alert, at(NOW + COOLDOWN)).kind).toBe("reminded");
  });
});

test("in any history who is told of an end was told of its beginning, and never too often", () => {
  const step = fc.record({
    kind: fc.constantFrom("raise", "raise", "clear", "deliver", "deliver", "lose"),
    waitMs: fc.oneof(
      fc.integer({ min: 0, max: 10 * SECOND }),
      fc.integer({ min: 0, max: 20 * MINUTE }),
    ),
    ok: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { size: "max", maxLength: 300 }), (steps) => {
      let alert: Alert | null = null;
      let nowMs = NOW;
      const told: { readonly notice: Notice; readonly atMs: number }[] = [];
      for (const { kind, ok, waitMs } of steps) {
        nowMs += waitMs;
        if (kind === "raise") {
          const next = raised(alert, at(nowMs));
          if (next.kind !== "unchanged") ({ alert } = next);
        }
        if (alert === null) continue;
        if (kind === "clear" && alert.active) alert = resolved(alert, nowMs);
        const under: Alert | null =
          kind === "deliver" || kind === "lose" ? begun(alert, nowMs) : null;
        if (under?.delivery.kind !== "pending") continue;
        // An attempt that is lost leaves the notice as it is.
        alert =
          kind === "lose" ? under : attempted(under, ok ? SENT : FAILED, { nowMs, random: half });
        if (kind === "deliver" && ok) told.push({ notice: under.delivery.notice, atMs: nowMs });
      }
      for (const [i, { atMs, notice }] of told.entries())
        if (notice === "recovered") expect(told[i - 1]?.notice).toBe("raised");
        else
          for (const before of told.slice(0, i))
            if (before.notice === "raised")
              expect(atMs - before.atMs).toBeGreaterThanOrEqual(COOLDOWN);
    }),
    { numRuns: 100 },
  );
});
