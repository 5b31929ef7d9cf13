/** What a failure is called, and everything that follows from the name. */
export interface ErrorSpec {
  /** HTTP status of the answer. */
  readonly status: number;
  /** True where the same request may succeed later, unchanged. */
  readonly retryable: boolean;
  /** The problem in a few words; the same for every occurrence. */
  readonly title: string;
  /** One sentence that may be shown to any caller. */
  readonly message: string;
  /** What the calling program should do. */
  readonly advice: string;
}

/**
 * Every failure that a caller can see. Codes are contracts: they are in answers, in events of a
 * stream and in stored rows. Messages never say what only an operator may know.
 */
export const ERRORS = {
  invalid_json: {
    status: 400,
    retryable: false,
    title: "Body is not JSON",
    message: "The request body is not valid JSON.",
    advice: "Send one JSON value in UTF-8 without a byte order mark, nested at most 32 deep.",
  },
  invalid_request: {
    status: 400,
    retryable: false,
    title: "Request breaks its contract",
    message: "The request does not match what this route accepts.",
    advice: "Correct the fields named in `issues` and send the request again.",
  },
  unauthorized: {
    status: 401,
    retryable: false,
    title: "Sign-in required",
    message: "A valid access token is required.",
    advice: "Get a fresh token from the identity provider and send it as `Authorization: Bearer`.",
  },
  forbidden: {
    status: 403,
    retryable: false,
    title: "Not allowed",
    message: "This request is not allowed.",
    advice: "Check the origin, the signature or the verification token; do not retry unchanged.",
  },
  not_found: {
    status: 404,
    retryable: false,
    title: "Not found",
    message: "There is nothing here that you may see.",
    advice: "Check the path or the id. What belongs to someone else answers the same.",
  },
  method_not_allowed: {
    status: 405,
    retryable: false,
    title: "Method not allowed",
    message: "This path does not answer this method.",
    advice: "Use one of the methods in the `Allow` header.",
  },
  request_in_progress: {
    status: 409,
    retryable: true,
    title: "Already in progress",
    message: "The same work is already in progress.",
    advice: "Wait for it to end, resume its stream, or abort it; keep the idempotency key.",
  },
  payload_too_large: {
    status: 413,
    retryable: false,
    title: "Body too large",
    message: "The request body is larger than this route accepts.",
    advice: "Send fewer bytes; each route's limit is in the documentation.",
  },
  unsupported_media_type: {
    status: 415,
    retryable: false,
    title: "Unsupported media type",
    message: "The Content-Type must be application/json.",
    advice: "Send `Content-Type: application/json`, in UTF-8.",
  },
  idempotency_conflict: {
    status: 422,
    retryable: false,
    title: "Idempotency key used before",
    message: "This idempotency key was used with another request.",
    advice: "Use a new key for a new request, and the old key only with the same body.",
  },
  rate_limited: {
    status: 429,
    retryable: true,
    title: "Too many requests",
    message: "Too many requests. Please wait and try again.",
    advice: "Wait for the seconds in `Retry-After`, then send the request again.",
  },
  misconfigured: {
    status: 500,
    retryable: false,
    title: "Not configured",
    message: "This deployment is not configured for this request.",
    advice: "Tell the operator: a required setting is missing or not valid.",
  },
  internal_error: {
    status: 500,
    retryable: false,
    title: "Internal error",
    message: "Something went wrong on our side.",
    advice: "Report the request id. Retry only what carries an idempotency key.",
  },
  upstream_bad_request: {
    status: 502,
    retryable: false,
    title: "Provider refused the request",
    message: "A provider refused the request as not valid.",
    advice: "Change the request: another model, a shorter conversation. Retrying does not help.",
  },
  upstream_auth: {
    status: 502,
    retryable: false,
    title: "Provider refused our credentials",
    message: "A provider refused this deployment's credentials.",
    advice: "Tell the operator: a provider key is wrong, expired or not entitled.",
  },
  upstream_error: {
    status: 502,
    retryable: true,
    title: "Provider answered nonsense",
    message: "A provider's answer was broken or incomplete.",
    advice: "Send the request again; what was already streamed is kept.",
  },
  rate_limit_unavailable: {
    status: 503,
    retryable: true,
    title: "Limiter unavailable",
    message: "The request could not be counted just now.",
    advice: "Wait for the seconds in `Retry-After`, then send the request again.",
  },
  overloaded: {
    status: 503,
    retryable: true,
    title: "Overloaded",
    message: "The service is busy. Please retry in a moment.",
    advice: "Wait for the seconds in `Retry-After`, then send the request again.",
  },
  queue_saturated: {
    status: 503,
    retryable: true,
    title: "Queue full",
    message: "Too much work is waiting already.",
    advice: "Wait for the seconds in `Retry-After`, then send the request again.",
  },
  upstream_rate_limited: {
    status: 503,
    retryable: true,
    title: "Provider limits us",
    message: "A provider is limiting our requests.",
    advice: "Wait for the seconds in `Retry-After`, then send the request again.",
  },
  upstream_quota_exceeded: {
    status: 503,
    retryable: false,
    title: "Provider quota used up",
    message: "This deployment's quota with a provider is used up.",
    advice: "Tell the operator: a provider account needs credit or a larger quota.",
  },
  upstream_unavailable: {
    status: 503,
    retryable: true,
    title: "Provider unavailable",
    message: "A provider is unavailable. Please retry in a moment.",
    advice: "Wait for the seconds in `Retry-After`, then send the request again.",
  },
  upstream_timeout: {
    status: 504,
    retryable: true,
    title: "Provider too slow",
    message: "A provider did not answer in time.",
    advice: "Send the request again after a pause.",
  },
} as const satisfies Record<string, ErrorSpec>;

export type ErrorCode = keyof typeof ERRORS;

export const ERROR_CODES = Object.keys(ERRORS) as readonly ErrorCode[];

/** The row of a code, typed as any row. */
export function errorSpec(code: ErrorCode): ErrorSpec {
  return ERRORS[code];
}

/** The `type` of a problem response (RFC 9457): one stable URI per code, described in docs/api.md. */
export function errorTypeUri(code: ErrorCode): string {
  return `urn:ballast:error:${code}`;
}

/** True for a text that is one of the codes. */
export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === "string" && Object.hasOwn(ERRORS, value);
}
