/**
 * What a call to a provider came to. Classified in one place, so that the breaker, the metrics and
 * the answer to the caller cannot disagree.
 */
import { SECOND } from "../core/time";
import { AppError, errorData } from "../errors/appError";
import type { ErrorCode } from "../errors/table";

export interface Outcome {
  /**
   * `neutral` says nothing about the provider's health (it refused our request); `infrastructure`
   * is our own fault (contention, a bug) and must never count against the provider.
   */
  readonly kind: "success" | "failure" | "neutral" | "infrastructure";
  readonly code: ErrorCode | null;
  readonly latencyMs: number;
  /** Requests sent, retries included; 0 when none was. */
  readonly attempts: number;
}

/** The code of the taxonomy for an upstream status that is no success. */
export function upstreamCode(status: number): ErrorCode {
  if (status === 408) return "upstream_timeout";
  if (status === 429) return "upstream_rate_limited";
  if (status === 402) return "upstream_quota_exceeded";
  if (status === 401 || status === 403) return "upstream_auth";
  if (status === 425 || status >= 500) return "upstream_unavailable";
  if (status === 400 || status === 404 || status === 413 || status === 422)
    return "upstream_bad_request";
  return "upstream_error";
}

/**
 * The error for an upstream status. Its detail names the status alone: what the provider wrote may
 * hold account names, prompts or keys and goes to nobody.
 */
export function upstreamError(status: number, retryAfterMs: number | null): AppError {
  return new AppError(upstreamCode(status), {
    detail: `The provider answered with status ${status}.`,
    ...(retryAfterMs === null ? {} : { retryAfterMs }),
  });
}

/** Codes that speak of a provider; every other is about ourselves and blames nobody else. */
const UPSTREAM_OUTCOMES: Readonly<Partial<Record<ErrorCode, Outcome["kind"]>>> = {
  upstream_timeout: "failure",
  upstream_rate_limited: "failure",
  upstream_unavailable: "failure",
  upstream_error: "failure",
  upstream_quota_exceeded: "neutral",
  upstream_bad_request: "neutral",
  upstream_auth: "neutral",
  misconfigured: "neutral",
};

/** How an error code counts for the provider that was asked. */
export function codeOutcome(code: ErrorCode): Outcome["kind"] {
  return UPSTREAM_OUTCOMES[code] ?? "infrastructure";
}

/** The outcome of a call that ended in an error. */
export function outcomeOfError(error: unknown, latencyMs: number, attempts = 1): Outcome {
  const { code } = errorData(error);
  return { kind: codeOutcome(code), code, latencyMs, attempts };
}

const RETRY_AFTER_MAX_SECONDS = 24 * 60 * 60;

/** `Retry-After` in milliseconds from now, seconds or date; null when absent or senseless. */
export function retryAfterMs(headers: Headers, nowMs: number): number | null {
  const value = headers.get("retry-after")?.trim() ?? "";
  if (/^\d{1,9}(\.\d+)?$/.test(value))
    return Math.ceil(Math.min(Number(value), RETRY_AFTER_MAX_SECONDS) * SECOND);
  // The platform's Date takes no strings, and Date.parse reads bare numbers as years.
  const atMs = /[a-z]/i.test(value) ? Date.parse(value) : Number.NaN;
  if (Number.isNaN(atMs)) return null;
  return Math.min(Math.max(0, atMs - nowMs), RETRY_AFTER_MAX_SECONDS * SECOND);
}
