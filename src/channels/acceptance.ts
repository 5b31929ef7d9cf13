import { AppError, type RateLimitInfo } from "../errors/appError";
import { rateLimitHeaders } from "../http/problem";

/** What an accept mutation decided about a delivery. */
export type Acceptance =
  | { readonly kind: "accepted"; readonly limits: readonly RateLimitInfo[] }
  /** Everything in it was accepted before. */
  | { readonly kind: "duplicate" }
  | {
      readonly kind: "refused";
      readonly code: "rate_limited";
      readonly retryAfterMs: number;
      readonly limit: RateLimitInfo;
    };

/**
 * The answer to a delivery whose parts were decided one by one. It is a duplicate when every part
 * was. Throws the refusal of a part: the provider then delivers all of it again, and the parts
 * that were stored are duplicates.
 */
export function answerTo(parts: readonly Acceptance[]): Response {
  for (const part of parts)
    if (part.kind === "refused")
      throw new AppError(part.code, { retryAfterMs: part.retryAfterMs, limit: part.limit });
  // Of several parts the last one knows what is left.
  const limits = parts.findLast((part) => part.kind === "accepted")?.limits ?? [];
  const replayed = parts.length > 0 && parts.every(({ kind }) => kind === "duplicate");
  return new Response("OK", {
    headers: {
      "content-type": "text/plain; charset=utf-8",
      ...rateLimitHeaders(...limits),
      ...(replayed ? { "x-idempotent-replay": "1" } : {}),
    },
  });
}
