import { ConvexError } from "convex/values";
import { type ErrorCode, isErrorCode } from "./table";

/** A quota as the RateLimit response fields describe it. */
export type RateLimitInfo = {
  /** Policy name, such as `chat_stream`. */
  name: string;
  limit: number;
  windowMs: number;
  remaining: number;
  /** Until the whole quota is available again. */
  resetMs: number;
  unit?: "requests" | "concurrent-requests";
};

export type ErrorData = {
  code: ErrorCode;
  /** Caller-safe: names no key, row or provider text. */
  detail?: string;
  retryAfterMs?: number;
  issues?: { path: string; message: string }[];
  limit?: RateLimitInfo;
};

/** An error that survives the boundaries between functions: Convex keeps `data` and nothing else. */
export class AppError extends ConvexError<ErrorData> {
  constructor(code: ErrorCode, extra: Omit<ErrorData, "code"> = {}) {
    super({ code, ...extra });
  }
}

/** The platform's own words when a mutation lost every race for what it read. */
const CONFLICT_TEXT = "changed while this mutation was being run";
const CONFLICT_RETRY_MS = 1_000;

/**
 * The data of whatever was thrown. Read from `data`, never by class: a class does not cross calls
 * between functions. Lost contention is `overloaded`; what nobody classified is `internal_error`.
 */
export function errorData(error: unknown): ErrorData {
  const data = dataOf(error);
  if (data !== null) return data;
  if (error instanceof Error && error.message.includes(CONFLICT_TEXT))
    return { code: "overloaded", retryAfterMs: CONFLICT_RETRY_MS };
  return { code: "internal_error" };
}

function dataOf(error: unknown): ErrorData | null {
  if (typeof error !== "object" || error === null || !("data" in error)) return null;
  const { data } = error;
  if (typeof data !== "object" || data === null || !("code" in data)) return null;
  return isErrorCode(data.code) ? (data as ErrorData) : null;
}
