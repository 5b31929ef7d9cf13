import { HOUR, SECOND } from "../core/time";
import { AppError } from "../errors/appError";

export const EXPOSED_HEADERS =
  "Retry-After, RateLimit, RateLimit-Policy, X-Request-Id, X-Error-Code, X-Idempotent-Replay";
export const ALLOWED_HEADERS =
  "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, traceparent";
const ALLOWED_METHODS = "POST, GET, OPTIONS";
/** Browsers cap it themselves, Chromium at two hours. */
const PREFLIGHT_SECONDS = (2 * HOUR) / SECOND;

/**
 * Headers of every answer of a route that pages may call. `Vary` is there for all origins: a cache
 * must not show one origin's answer to another.
 */
export function corsHeaders(
  origin: string | null,
  allowed: readonly string[],
): Record<string, string> {
  const vary = { vary: "Origin" };
  if (origin === null || !allowed.includes(origin)) return vary;
  return {
    ...vary,
    "access-control-allow-origin": origin,
    "access-control-allow-credentials": "true",
    "access-control-expose-headers": EXPOSED_HEADERS,
  };
}

/** What a preflight is told besides; nothing for an origin that is not allowed. */
export function preflightHeaders(
  origin: string | null,
  allowed: readonly string[],
): Record<string, string> {
  const headers = corsHeaders(origin, allowed);
  if (!("access-control-allow-origin" in headers)) return headers;
  return {
    ...headers,
    "access-control-allow-methods": ALLOWED_METHODS,
    "access-control-allow-headers": ALLOWED_HEADERS,
    "access-control-max-age": String(PREFLIGHT_SECONDS),
  };
}

/** Throws `forbidden` for a page of an origin that is not allowed. */
export function requireOrigin(origin: string, allowed: readonly string[]): void {
  if (!allowed.includes(origin))
    throw new AppError("forbidden", { detail: "This origin is not allowed." });
}
