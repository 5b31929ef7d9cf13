import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { RateLimitInfo } from "../errors/appError";
import { ERROR_CODES, errorSpec, errorTypeUri } from "../errors/table";
import { type Problem, problemResponse, rateLimitHeaders, retryAfterSeconds } from "./problem";

const CONTEXT = { requestId: "r1", random: () => 0 };

const limit = (more: Partial<RateLimitInfo> = {}): RateLimitInfo => ({
  name: "chat_stream",
  limit: 30,
  windowMs: 300_000,
  remaining: 0,
  resetMs: 10_000,
  ...more,
});

describe("problem responses", () => {
  test.each(ERROR_CODES)("%s", async (code) => {
    const response = problemResponse({ code, detail: "This one." }, CONTEXT);
    const problem = (await response.json()) as Problem;
    const { status, title, message, retryable } = errorSpec(code);
    const operatorOnly = code === "misconfigured" || code === "internal_error";
    expect(problem).toEqual({
      type: errorTypeUri(code),
      title,
      status,
      detail: operatorOnly ? message : "This one.",
      code,
      requestId: "r1",
      retryable,
    });
    expect(response.status).toBe(status);
    expect(response.headers.get("content-type")).toBe("application/problem+json");
    expect(response.headers.get("cache-control")).toBe("no-store");
    expect(response.headers.get("x-error-code")).toBe(code);
    expect(response.headers.has("retry-after")).toBe(retryable && [429, 503].includes(status));
  });

  test("issues are at most 20", async () => {
    const issues = Array.from({ length: 30 }, (_, i) => ({ path: `f${i}`, message: "bad" }));
    const response = problemResponse({ code: "invalid_request", issues }, CONTEXT);
    expect(((await response.json()) as Problem).issues).toHaveLength(20);
  });
});

describe("Retry-After", () => {
  test("is whole, at least 1, never before the limiter's time, at most a fifth later", () => {
    const waits = fc.double({ min: 0, max: 80_000_000, noNaN: true });
    const randoms = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
    fc.assert(
      fc.property(waits, randoms, (waitMs, draw) => {
        const data = { code: "rate_limited", retryAfterMs: waitMs } as const;
        const seconds = retryAfterSeconds(data, () => draw) ?? 0;
        expect(Number.isInteger(seconds) && seconds >= 1).toBe(true);
        // A caller that obeys is at the limiter no earlier than it said; RateLimit's t says the same.
        expect(seconds * 1000).toBeGreaterThanOrEqual(Math.min(waitMs, 86_400_000));
        expect(seconds).toBeLessThanOrEqual(Math.ceil(waitMs / 1000) * 1.2 + 2);
        const { headers } = problemResponse(
          { ...data, limit: limit({ resetMs: 9e9 }) },
          { requestId: "r1", random: () => draw },
        );
        const t = Number(/;t=(\d+)$/.exec(headers.get("ratelimit") ?? "")?.[1]);
        expect(Number(headers.get("retry-after"))).toBeGreaterThanOrEqual(Math.min(t, 86_400));
      }),
    );
  });

  test("spreads callers upward", () => {
    const at = (draw: number): number | null =>
      retryAfterSeconds({ code: "overloaded", retryAfterMs: 10_000 }, () => draw);
    expect([at(0), at(0.5), at(0.999)]).toEqual([10, 11, 12]);
  });

  test("falls back to the limit's reset, then to a short wait where one is due", () => {
    const none = () => 0;
    expect(retryAfterSeconds({ code: "rate_limited", limit: limit() }, none)).toBe(10);
    expect(retryAfterSeconds({ code: "upstream_unavailable" }, none)).toBe(2);
    expect(retryAfterSeconds({ code: "invalid_request" }, none)).toBeNull();
    expect(retryAfterSeconds({ code: "request_in_progress", retryAfterMs: 1 }, none)).toBe(1);
  });
});

describe("RateLimit fields", () => {
  // The grammar of RFC 9651 as far as these fields use it.
  const ITEM = String.raw`"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"`;
  const PARAMETER = String.raw`;[a-z*][a-z0-9_.*-]*=(?:\d{1,15}|${ITEM})`;
  const LIST = new RegExp(`^${ITEM}(?:${PARAMETER})*(?:, ${ITEM}(?:${PARAMETER})*)*$`);

  test("say the policy and what is left", () => {
    expect(rateLimitHeaders(limit({ remaining: 29 }))).toEqual({
      "ratelimit-policy": '"chat_stream";q=30;w=300',
      ratelimit: '"chat_stream";r=29;t=10',
    });
  });

  test("say so where a limit is of requests at once", () => {
    const slots = limit({ name: "slots", unit: "concurrent-requests", windowMs: 0, resetMs: 0 });
    expect(rateLimitHeaders(slots, limit())).toEqual({
      "ratelimit-policy": '"slots";q=30;qu="concurrent-requests", "chat_stream";q=30;w=300',
      ratelimit: '"slots";r=0, "chat_stream";r=0;t=10',
    });
    expect(rateLimitHeaders()).toEqual({});
  });

  test("are structured fields whatever the limit is called", () => {
    const count = fc.double({ min: 0, max: 1e20, noNaN: true });
    const limits = fc.record({
      name: fc.string({ unit: "binary" }),
      limit: count,
      windowMs: count,
      remaining: count,
      resetMs: count,
      unit: fc.constantFrom("requests", "concurrent-requests"),
    });
    fc.assert(
      fc.property(fc.array(limits, { minLength: 1, maxLength: 3 }), (found) => {
        const headers = new Headers(rateLimitHeaders(...(found as RateLimitInfo[])));
        expect(headers.get("ratelimit")).toMatch(LIST);
        expect(headers.get("ratelimit-policy")).toMatch(LIST);
        expect(headers.get("ratelimit-policy")).not.toMatch(/;w=0\b/);
      }),
    );
  });
});
