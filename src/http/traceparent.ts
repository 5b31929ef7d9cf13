/** W3C Trace Context: one trace id through every hop, a span id of our own for this one. */
export interface Trace {
  readonly traceId: string;
  /** What is sent on and answered: the caller's trace with our span. */
  readonly traceparent: string;
}

const FORM = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x21-\x7e]*)?$/;
const HEADER_LENGTH_MAX = 512;
const NO_TRACE = "0".repeat(32);
const NO_SPAN = "0".repeat(16);
const SAMPLED = "01";

/**
 * Continues the caller's trace, or starts one where the header is absent or not valid: version ff,
 * zero ids, upper case, more than the four fields in version 00. Higher versions may be longer.
 */
export function continueTrace(header: string | null, randomHex: (bytes: number) => string): Trace {
  const received = header !== null && header.length <= HEADER_LENGTH_MAX ? FORM.exec(header) : null;
  const [, version, traceId, spanId, flags, more] = received ?? [];
  const valid =
    version !== undefined &&
    version !== "ff" &&
    (version !== "00" || more === undefined) &&
    traceId !== NO_TRACE &&
    spanId !== NO_SPAN;
  const trace = valid && traceId !== undefined ? traceId : nonZero(randomHex(16));
  // Only the sampled bit of version 00 means something to us; the rest must be sent as zero.
  const sampled = !valid || flags === undefined || (Number.parseInt(flags, 16) & 1) === 1;
  const span = nonZero(randomHex(8));
  return { traceId: trace, traceparent: `00-${trace}-${span}-${sampled ? SAMPLED : "00"}` };
}

/** An id of zeros is no id. */
const nonZero = (hex: string): string => (/^0*$/.test(hex) ? `${hex.slice(1)}1` : hex);

const REQUEST_ID = /^[A-Za-z0-9._-]{1,64}$/;

/** The caller's request id where it is safe in headers and logs, else one of ours. */
export function requestIdOf(header: string | null, randomHex: (bytes: number) => string): string {
  return header !== null && REQUEST_ID.test(header) ? header : randomHex(16);
}

/** Random bytes in lower-case hexadecimal. */
export function randomHex(bytes: number): string {
  const drawn = crypto.getRandomValues(new Uint8Array(bytes));
  return Array.from(drawn, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
