/** Everything that can go wrong, once: status, advice and words that are safe for any caller. */
export interface ErrorSpec {
  readonly status: number;
  /** Whether the same request may succeed later without change. */
  readonly retryable: boolean;
  /** Short and the same for every occurrence: the `title` of a problem response. */
  readonly title: string;
  /** Safe to show to anyone: names no provider, key or row. */
  readonly message: string;
  /** What a client should do. */
  readonly advice: string;
}

export const ERRORS = {
  method_not_allowed: {
    status: 405,
    retryable: false,
    title: "Method not allowed",
    message: "This address does not answer that method.",
    advice: "Use a method from the Allow header.",
  },
  not_found: {
    status: 404,
    retryable: false,
    title: "Not found",
    message: "There is nothing here for you.",
    advice: "Check the address and ids. What belongs to others looks the same as what is missing.",
  },
  unauthorized: {
    status: 401,
    retryable: false,
    title: "Unauthorized",
    message: "Sign in and try again.",
    advice: "Send a valid bearer token.",
  },
  forbidden: {
    status: 403,
    retryable: false,
    title: "Forbidden",
    message: "This request is not allowed.",
    advice: "Do not repeat it. Check the origin, signature or token it was sent with.",
  },
  unsupported_media_type: {
    status: 415,
    retryable: false,
    title: "Unsupported media type",
    message: "Content-Type must be application/json.",
    advice: "Send the body as application/json.",
  },
  payload_too_large: {
    status: 413,
    retryable: false,
    title: "Payload too large",
    message: "The request body is too large.",
    advice: "Send less.",
  },
  invalid_json: {
    status: 400,
    retryable: false,
    title: "Invalid JSON",
    message: "The request body is not valid JSON.",
    advice: "Send valid JSON in UTF-8.",
  },
  invalid_request: {
    status: 400,
    retryable: false,
    title: "Invalid request",
    message: "The request is not valid.",
    advice: "Mend what `issues` names.",
  },
  idempotency_conflict: {
    status: 422,
    retryable: false,
    title: "Idempotency key reused",
    message: "This Idempotency-Key was used with another request.",
    advice: "Use a new key for a new request.",
  },
  request_in_progress: {
    status: 409,
    retryable: true,
    title: "Request in progress",
    message: "An earlier request is still running.",
    advice: "Wait for it to end, or resume its stream.",
  },
  rate_limited: {
    status: 429,
    retryable: true,
    title: "Too many requests",
    message: "Too many requests. Please wait a little and try again.",
    advice: "Wait as long as Retry-After says.",
  },
  rate_limit_unavailable: {
    status: 503,
    retryable: true,
    title: "Rate limit unavailable",
    message: "The request could not be counted, and was not accepted.",
    advice: "Wait as long as Retry-After says.",
  },
  overloaded: {
    status: 503,
    retryable: true,
    title: "Overloaded",
    message: "The service is busy. Please try again in a moment.",
    advice: "Wait as long as Retry-After says.",
  },
  queue_saturated: {
    status: 503,
    retryable: true,
    title: "Queue saturated",
    message: "Too much work of this kind is waiting.",
    advice: "Wait as long as Retry-After says.",
  },
  upstream_timeout: {
    status: 504,
    retryable: true,
    title: "Upstream timeout",
    message: "A service this depends on did not answer in time.",
    advice: "Try again.",
  },
  upstream_rate_limited: {
    status: 503,
    retryable: true,
    title: "Upstream rate limited",
    message: "A service this depends on is limiting requests.",
    advice: "Wait as long as Retry-After says.",
  },
  upstream_quota_exceeded: {
    status: 503,
    retryable: true,
    title: "Upstream quota exceeded",
    message: "The quota with a service this depends on is used up.",
    advice: "Try later. An operator has to raise the quota.",
  },
  upstream_unavailable: {
    status: 503,
    retryable: true,
    title: "Upstream unavailable",
    message: "A service this depends on is unavailable.",
    advice: "Wait as long as Retry-After says.",
  },
  upstream_bad_request: {
    status: 502,
    retryable: false,
    title: "Upstream refused the request",
    message: "A service this depends on refused the request.",
    advice: "Do not repeat it unchanged.",
  },
  upstream_auth: {
    status: 502,
    retryable: false,
    title: "Upstream refused our credentials",
    message: "A service this depends on refused our credentials.",
    advice: "An operator has to check the provider's key.",
  },
  upstream_error: {
    status: 502,
    retryable: true,
    title: "Upstream error",
    message: "A service this depends on failed.",
    advice: "Try again.",
  },
  misconfigured: {
    status: 500,
    retryable: false,
    title: "Misconfigured",
    message: "This deployment is not configured for the request.",
    advice: "An operator has to set what is missing; the log names it.",
  },
  internal_error: {
    status: 500,
    retryable: true,
    title: "Internal error",
    message: "Something went wrong.",
    advice: "Try again. If it stays, report the request id.",
  },
} as const satisfies Record<string, ErrorSpec>;

export type ErrorCode = keyof typeof ERRORS;

/** Whether a text is a code of the table. */
export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === "string" && Object.hasOwn(ERRORS, code);
}
