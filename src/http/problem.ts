import { SECOND } from "../core/time";
import { type ErrorData, ISSUES_MAX, type RateLimitInfo } from "../errors/appError";
import { type ErrorCode, errorSpec, errorTypeUri } from "../errors/table";
import { policyItem, quotaItem } from "./rateLimitFields";

/** Body of a problem response (RFC 9457). */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: ErrorCode;
  readonly requestId: string;
  readonly retryable: boolean;
  readonly issues?: readonly { readonly path: string; readonly message: string }[];
}

interface ProblemContext {
  readonly requestId: string;
  /** Uniform in [0, 1): spreads callers that were refused together. */
  readonly random: () => number;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Codes whose details are for the operator: callers get the table's own words. */
const OPERATOR_ONLY: readonly ErrorCode[] = ["misconfigured", "internal_error"];

/** The answer to a request that failed with `data`. */
export function problemResponse(data: ErrorData, context: ProblemContext): Response {
  const { status, title, message, retryable } = errorSpec(data.code);
  const detail = OPERATOR_ONLY.includes(data.code) ? message : (data.detail ?? message);
  const problem: Problem = {
    type: errorTypeUri(data.code),
    title,
    status,
    detail,
    code: data.code,
    requestId: context.requestId,
    retryable,
    ...(data.issues === undefined ? {} : { issues: data.issues.slice(0, ISSUES_MAX) }),
  };
  const retryAfter = retryAfterSeconds(data, context.random);
  return new Response(JSON.stringify(problem), {
    status,
    headers: {
      "content-type": "application/problem+json",
      "cache-control": "no-store",
      "x-error-code": data.code,
      ...(retryAfter === null ? {} : { "retry-after": String(retryAfter) }),
      ...(data.limit === undefined ? {} : refusedHeaders(data.limit, data.retryAfterMs)),
      ...context.headers,
    },
  });
}

/** Wait of a refusal that names none, such as a provider that is down. */
const RETRY_DEFAULT_MS = 2 * SECOND;
/** Longest wait that is asked of anybody. */
const RETRY_MAX_S = 86_400;
/** Upward share of a wait over which callers are spread. */
const JITTER_RATIO = 0.2;

/**
 * Whole seconds for `Retry-After`, or null where none is due. Never earlier than the limiter's own
 * time, at least 1, and spread upward by up to a fifth so that a crowd does not return as one.
 */
export function retryAfterSeconds(data: ErrorData, random: () => number): number | null {
  const { status, retryable } = errorSpec(data.code);
  const due = retryable && (status === 429 || status === 503);
  const waitMs = data.retryAfterMs ?? data.limit?.resetMs ?? (due ? RETRY_DEFAULT_MS : null);
  if (waitMs === null) return null;
  const seconds = Math.max(1, Math.ceil(waitMs / SECOND));
  const spread = Math.floor(random() * (Math.ceil(seconds * JITTER_RATIO) + 1));
  return Math.min(RETRY_MAX_S, seconds + spread);
}

/**
 * The `RateLimit` and `RateLimit-Policy` fields of an answer that a limit let through. Several
 * limits are several items of the two lists.
 */
export function rateLimitHeaders(...limits: readonly RateLimitInfo[]): Record<string, string> {
  if (limits.length === 0) return {};
  return {
    "ratelimit-policy": limits.map(policyItem).join(", "),
    ratelimit: limits.map((limit) => quotaItem(limit)).join(", "),
  };
}

/** A refused caller is told when the next request passes, not when the whole burst is back. */
function refusedHeaders(
  limit: RateLimitInfo,
  retryAfterMs: number | undefined,
): Record<string, string> {
  return rateLimitHeaders(retryAfterMs === undefined ? limit : { ...limit, resetMs: retryAfterMs });
}
