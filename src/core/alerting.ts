import { fullJitterMs } from "./backoff";
import { MINUTE, SECOND } from "./time";

/** What is told of an alert: that it was raised, or that what it was about is over. */
export type Notice = "raised" | "recovered";

export type Delivery =
  | {
      readonly kind: "pending";
      readonly notice: Notice;
      /** Attempts begun. */
      readonly attempts: number;
      readonly dueAtMs: number;
    }
  | { readonly kind: "sent"; readonly notice: Notice }
  /** Over before its time came. */
  | { readonly kind: "suppressed" }
  /** Given up on at `atMs`. */
  | { readonly kind: "dead"; readonly notice: Notice; readonly atMs: number }
  /** There is nobody to tell. */
  | { readonly kind: "not_configured"; readonly atMs: number };

/** An alert from its raising to its recovery. */
export interface Alert {
  /** Whether what it is about still holds. */
  readonly active: boolean;
  readonly delivery: Delivery;
  /** When it was last told that it was raised, in epoch milliseconds; null for never. */
  readonly raisedSentAtMs: number | null;
}

export type Raised =
  | { readonly kind: "unchanged" }
  /** The same alert, told again: it has been so for long. */
  | { readonly kind: "reminded"; readonly alert: Alert }
  | { readonly kind: "created"; readonly alert: Alert };

/** Attempts to tell somebody before it is given up, over about two hours. */
export const ATTEMPTS_MAX = 20;
const RETRY_BASE_MS = 5 * SECOND;
const RETRY_CAP_MS = 15 * MINUTE;
/** How long one attempt may take before another may begin. */
export const ATTEMPT_LEASE_MS = MINUTE;

/**
 * What becomes of an alert whose condition holds, given the last one of its key. Between two
 * tellings there is at least `cooldownMs`, counted from when somebody was told, not from the clock:
 * an alert raised again sooner waits for that, and is never told where it is over by then.
 */
export function raised(
  last: Alert | null,
  { nowMs, cooldownMs }: { readonly nowMs: number; readonly cooldownMs: number },
): Raised {
  const dueAtMs = Math.max(nowMs, toldAtMs(last) + cooldownMs);
  const pending: Delivery = { kind: "pending", notice: "raised", attempts: 0, dueAtMs };
  if (last?.active !== true) {
    const raisedSentAtMs = last?.raisedSentAtMs ?? null;
    return { kind: "created", alert: { active: true, delivery: pending, raisedSentAtMs } };
  }
  if (last.delivery.kind === "pending" || dueAtMs > nowMs) return { kind: "unchanged" };
  return { kind: "reminded", alert: { ...last, delivery: pending } };
}

function toldAtMs(last: Alert | null): number {
  if (last === null) return Number.NEGATIVE_INFINITY;
  const sentAtMs = last.raisedSentAtMs ?? Number.NEGATIVE_INFINITY;
  // Nobody was told, but asking at every look would be no better.
  const gaveUp = last.delivery.kind === "dead" || last.delivery.kind === "not_configured";
  return last.active && gaveUp ? Math.max(sentAtMs, last.delivery.atMs) : sentAtMs;
}

/** The alert once its condition no longer holds. Whoever was told of it is told that, too. */
export function resolved(alert: Alert, nowMs: number): Alert {
  const { delivery } = alert;
  const over: Alert = { ...alert, active: false };
  switch (delivery.kind) {
    case "pending":
      // One that is on its way is told, and its end after that.
      return delivery.attempts === 0 && delivery.dueAtMs > nowMs
        ? { ...over, delivery: { kind: "suppressed" } }
        : over;
    case "sent":
      return { ...over, delivery: recovery(nowMs) };
    case "suppressed":
    case "dead":
    case "not_configured":
      return over;
  }
}

const recovery = (nowMs: number): Delivery => ({
  kind: "pending",
  notice: "recovered",
  attempts: 0,
  dueAtMs: nowMs,
});

/** How an attempt to tell somebody ended. */
export type Attempt =
  | { readonly kind: "sent" }
  | { readonly kind: "failed"; readonly retryAfterMs: number }
  | { readonly kind: "not_configured" };

/** The alert after an attempt to deliver it. */
export function attempted(
  alert: Alert,
  attempt: Attempt,
  { nowMs, random }: { readonly nowMs: number; readonly random: () => number },
): Alert {
  const { delivery } = alert;
  if (delivery.kind !== "pending") return alert;
  const { attempts, notice } = delivery;
  switch (attempt.kind) {
    case "sent": {
      if (notice === "recovered") return { ...alert, delivery: { kind: "sent", notice } };
      const told: Alert = { ...alert, raisedSentAtMs: nowMs };
      return { ...told, delivery: alert.active ? { kind: "sent", notice } : recovery(nowMs) };
    }
    case "failed": {
      if (attempts >= ATTEMPTS_MAX)
        return { ...alert, delivery: { kind: "dead", notice, atMs: nowMs } };
      const jitterMs = fullJitterMs({
        attempt: attempts,
        baseMs: RETRY_BASE_MS,
        capMs: RETRY_CAP_MS,
        random,
      });
      const waitMs = Math.max(jitterMs, Math.min(attempt.retryAfterMs, RETRY_CAP_MS));
      return { ...alert, delivery: { ...delivery, dueAtMs: nowMs + waitMs } };
    }
    case "not_configured":
      return { ...alert, delivery: { kind: "not_configured", atMs: nowMs } };
  }
}

/** The alert while an attempt is on its way; null where none is due. */
export function begun(alert: Alert, nowMs: number): Alert | null {
  const { delivery } = alert;
  if (delivery.kind !== "pending" || delivery.dueAtMs > nowMs) return null;
  const attempts = delivery.attempts + 1;
  return { ...alert, delivery: { ...delivery, attempts, dueAtMs: nowMs + ATTEMPT_LEASE_MS } };
}
