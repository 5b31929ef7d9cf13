/** The conditions that operators are told of, apart from those of the tool queue. */
import type { OpenReason } from "../../src/core/breaker";
import { MINUTE } from "../../src/core/time";
import type { Condition } from "./alerts";

/** Refusals of one limit in `LIMITER_WINDOW_MINUTES` from which somebody should look. */
export interface LimiterRule {
  readonly bucket: string;
  readonly outcome: "blocked" | "contention_fallback";
  readonly threshold: number;
}

export const LIMITER_WINDOW_MINUTES = 5;
const LIMITER_COOLDOWN_MS = 30 * MINUTE;

export const LIMITER_RULES: readonly LimiterRule[] = [
  { bucket: "whatsapp_webhook", outcome: "blocked", threshold: 40 },
  { bucket: "whatsapp_webhook", outcome: "contention_fallback", threshold: 5 },
  { bucket: "gmail_push", outcome: "blocked", threshold: 40 },
  { bucket: "gmail_push", outcome: "contention_fallback", threshold: 5 },
  { bucket: "chat_stream", outcome: "blocked", threshold: 25 },
  { bucket: "chat_stream", outcome: "contention_fallback", threshold: 3 },
  { bucket: "chat_address", outcome: "blocked", threshold: 25 },
  { bucket: "chat_address", outcome: "contention_fallback", threshold: 3 },
  { bucket: "global", outcome: "blocked", threshold: 40 },
  { bucket: "global", outcome: "contention_fallback", threshold: 5 },
];

/** A limit that refused `observed` requests in the window of the rules. */
export function limiter(
  { bucket, outcome, threshold }: LimiterRule,
  observed: number,
): Condition & { readonly kind: "limiter" } {
  const what =
    outcome === "blocked" ? "requests were over the limit" : "requests could not be counted";
  return {
    alertKey: `limiter:${bucket}:${outcome}`,
    kind: "limiter",
    severity: outcome === "blocked" ? "warning" : "critical",
    summary: `Rate limit ${bucket}: ${observed} ${what} in ${LIMITER_WINDOW_MINUTES} minutes.`,
    observed,
    threshold,
    windowMinutes: LIMITER_WINDOW_MINUTES,
    cooldownMs: LIMITER_COOLDOWN_MS,
  };
}

const CIRCUIT_COOLDOWN_MS = 5 * MINUTE;

export const circuitKey = (provider: string): string => `circuit:${provider}`;

/** A circuit that opened: calls to its provider are refused until a probe succeeds. */
export function circuitOpen(
  provider: string,
  { openings, reason }: { readonly openings: number; readonly reason: OpenReason },
): Condition {
  return {
    alertKey: circuitKey(provider),
    kind: "circuit_open",
    severity: "critical",
    summary: `Circuit of ${provider} is open: ${reason.replaceAll("_", " ")}.`,
    observed: openings,
    threshold: 1,
    windowMinutes: 0,
    cooldownMs: CIRCUIT_COOLDOWN_MS,
  };
}

const SATURATION_WINDOW_MINUTES = 1;

export const saturationKey = (provider: string): string => `bulkhead:${provider}`;

/** A pool that refused calls because all of its slots were held. */
export function saturation(provider: string, cooldownMs: number): Condition {
  return {
    alertKey: saturationKey(provider),
    kind: "bulkhead_saturated",
    severity: "warning",
    summary: `Bulkhead saturation: ${provider}. Calls were refused because every slot was held.`,
    observed: 1,
    threshold: 1,
    windowMinutes: SATURATION_WINDOW_MINUTES,
    cooldownMs,
  };
}
