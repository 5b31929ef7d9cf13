/**
 * Items of the IETF RateLimit header fields (draft-ietf-httpapi-ratelimit-headers), written as
 * structured fields (RFC 9651).
 */
import { SECOND } from "../core/time";
import type { RateLimitInfo } from "../errors/appError";

/** `"chat_stream";q=30;w=300`: what the limit is. */
export function policyItem({ name, limit, windowMs, unit }: RateLimitInfo): string {
  return unit === "concurrent-requests"
    ? `${sfString(name)};q=${sfInteger(limit)};qu="concurrent-requests"`
    : `${sfString(name)};q=${sfInteger(limit)};w=${Math.max(1, seconds(windowMs))}`;
}

/** `"chat_stream";r=0;t=12`: what is left of it. A concurrency limit has no time of its own. */
export function quotaItem({ name, remaining, resetMs, unit }: RateLimitInfo): string {
  const left = `${sfString(name)};r=${sfInteger(remaining)}`;
  return unit === "concurrent-requests" && resetMs === 0 ? left : `${left};t=${seconds(resetMs)}`;
}

const seconds = (ms: number): number => sfInteger(Math.ceil(ms / SECOND));

/** Largest integer of a structured field: 15 digits. */
const SF_INTEGER_MAX = 999_999_999_999_999;

const sfInteger = (value: number): number =>
  Math.min(SF_INTEGER_MAX, Math.max(0, Math.floor(value)));

/** A structured field string holds printable ASCII only. */
function sfString(text: string): string {
  const ascii = text.replaceAll(/[^\x20-\x7e]/g, "_");
  return `"${ascii.replaceAll(/["\\]/g, String.raw`\$&`)}"`;
}
