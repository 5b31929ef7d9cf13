import { ConvexError } from "convex/values";
import { beginningOf } from "../core/wellFormed";
import { type ErrorCode, ERRORS, isErrorCode } from "./table";

// Type aliases, not interfaces: Convex values need an index signature, which only aliases imply.
/** A limit that was looked at, as the RateLimit header fields and the answer to a refusal show it. */
export type RateLimitInfo = {
  /** Policy name, such as `chat_stream`. */
  name: string;
  /** Requests per window; for a concurrency limit, how many at once. */
  limit: number;
  /** Length of the window in milliseconds; a concurrency limit has none and sends 0. */
  windowMs: number;
  remaining: number;
  /** Until the whole limit is available again, in milliseconds. */
  resetMs: number;
  /** Default `requests`. */
  unit?: "requests" | "concurrent-requests";
};

/** One field that broke its contract. */
export type Issue = { path: string; message: string };

/** What travels with a failure, across functions and to the caller. All of it is caller-safe. */
export type ErrorData = {
  code: ErrorCode;
  /** This occurrence in one sentence; the table's message where absent. */
  detail?: string;
  /** Earliest useful retry, in milliseconds from now. */
  retryAfterMs?: number;
  /** What broke a contract; at most 20. */
  issues?: Issue[];
  /** The limit that refused. */
  limit?: RateLimitInfo;
};

/** Most issues that an answer lists: enough to correct a request, too few to map a schema. */
export const ISSUES_MAX = 20;
const TEXT_LENGTH_MAX = 500;

/** A failure with a code of the table. The only error class that this code base throws on purpose. */
export class AppError extends ConvexError<ErrorData> {
  override name = "AppError";

  constructor(code: ErrorCode, extra: Omit<ErrorData, "code"> = {}) {
    super({ code, ...extra });
    // The default message is the data as JSON; logs and the Convex dashboard show this one.
    this.message = `${code}: ${extra.detail ?? ERRORS[code].message}`;
  }
}

/**
 * What any thrown value means to a caller. Reads `data.code` and nothing else of the class, for a
 * class does not survive a call from one function to another. A mutation that the platform gave up
 * on is `overloaded`, or `rate_limit_unavailable` where it was a limit that could not be counted;
 * what nobody foresaw is `internal_error`, without a word of its own.
 */
export function errorData(error: unknown): ErrorData {
  const data = dataOf(error);
  if (data !== null) return data;
  const lost = platformOverload(error);
  return lost === null
    ? { code: "internal_error" }
    : { code: lost, retryAfterMs: OVERLOAD_RETRY_MS };
}

/** Whether a failure is the platform's, so that the same call may succeed after a pause. */
export const isContention = ({ code }: ErrorData): boolean =>
  code === "overloaded" || code === "rate_limit_unavailable";

/** The platform's own back-off after conflicts ends at two seconds. */
const OVERLOAD_RETRY_MS = 2_000;

// Texts and codes of convex-backend's errors for conflicts past the last retry, full queues and
// full committers; an action sees them as the message of a plain Error.
const PLATFORM_OVERLOAD =
  /OptimisticConcurrencyControlFailure|Documents read from or written to the .{1,300} changed while this mutation was being run|TooManyConcurrentRequests|Too many concurrent requests|CommitterFullError|ExpiredInQueue/;

const LIMIT_LOST = 'Documents read from or written to the "limits" table changed';

function platformOverload(error: unknown): "overloaded" | "rate_limit_unavailable" | null {
  if (!(error instanceof Error)) return null;
  const message = error.message.slice(0, 2_000);
  if (!PLATFORM_OVERLOAD.test(message)) return null;
  return message.includes(LIMIT_LOST) ? "rate_limit_unavailable" : "overloaded";
}

function dataOf(error: unknown): ErrorData | null {
  if (typeof error !== "object" || error === null || !("data" in error)) return null;
  const data = typeof error.data === "string" ? parse(error.data) : error.data;
  if (typeof data !== "object" || data === null) return null;
  const found = data as Record<string, unknown>;
  if (!isErrorCode(found["code"])) return null;
  const limit = limitOf(found["limit"]);
  const issues = issuesOf(found["issues"]);
  return {
    code: found["code"],
    ...(typeof found["detail"] === "string" ? { detail: cut(found["detail"]) } : {}),
    ...(isCount(found["retryAfterMs"]) ? { retryAfterMs: found["retryAfterMs"] } : {}),
    ...(issues === null ? {} : { issues }),
    ...(limit === null ? {} : { limit }),
  };
}

/** Some clients hand a ConvexError's data on as text. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function issuesOf(value: unknown): Issue[] | null {
  if (!Array.isArray(value)) return null;
  return value.slice(0, ISSUES_MAX).flatMap((issue: unknown) => {
    if (typeof issue !== "object" || issue === null) return [];
    const { path, message } = issue as Record<string, unknown>;
    if (typeof path !== "string" || typeof message !== "string") return [];
    return [{ path: cut(path), message: cut(message) }];
  });
}

function limitOf(value: unknown): RateLimitInfo | null {
  if (typeof value !== "object" || value === null) return null;
  const { name, limit, windowMs, remaining, resetMs, unit } = value as Record<string, unknown>;
  if (typeof name !== "string" || !isCount(limit) || !isCount(windowMs)) return null;
  if (!isCount(remaining) || !isCount(resetMs)) return null;
  const known = unit === "requests" || unit === "concurrent-requests";
  return { name, limit, windowMs, remaining, resetMs, ...(known ? { unit } : {}) };
}

const isCount = (value: unknown): value is number =>
  typeof value === "number" && Number.isFinite(value) && value >= 0;

const cut = (text: string): string => beginningOf(text, TEXT_LENGTH_MAX);
