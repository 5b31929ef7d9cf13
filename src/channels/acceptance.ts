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
 * The answer to a delivery; null for one without anything to store. Throws its refusal: the
 * provider then delivers all of it again.
 */
export function answerTo(acceptance: Acceptance | null): Response {
  if (acceptance?.kind === "refused") {
    const { code, limit, retryAfterMs } = acceptance;
    throw new AppError(code, { retryAfterMs, limit });
  }
  const limits = acceptance?.kind === "accepted" ? acceptance.limits : [];
  return new Response("OK", {
    headers: {
      "content-type": "text/plain; charset=utf-8",
      ...rateLimitHeaders(...limits),
      ...(acceptance?.kind === "duplicate" ? { "x-idempotent-replay": "1" } : {}),
    },
  });
}
