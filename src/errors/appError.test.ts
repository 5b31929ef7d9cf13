import { ConvexError } from "convex/values";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AppError, errorData, isContention, ISSUES_MAX } from "./appError";
import { ERROR_CODES, errorSpec, errorTypeUri } from "./table";

describe("the error table", () => {
  test.each(ERROR_CODES)("%s is complete and caller-safe", (code) => {
    const spec = errorSpec(code);
    expect(code).toMatch(/^[a-z]+(_[a-z]+)*$/);
    expect(spec.status).toBeGreaterThanOrEqual(400);
    expect(spec.status).toBeLessThan(600);
    for (const text of [spec.message, spec.advice]) expect(text).toMatch(/^[A-Z].*\.$/);
    expect(spec.title).toMatch(/^[A-Z][^.]+$/);
    expect(new URL(errorTypeUri(code)).protocol).toBe("urn:");
  });

  test("a refusal that only time can lift is retryable, a caller's mistake is not", () => {
    for (const code of ERROR_CODES) {
      const { status, retryable } = errorSpec(code);
      if (status === 429 || status === 504) expect([code, retryable]).toEqual([code, true]);
      if (status < 500 && ![409, 429].includes(status))
        expect([code, retryable]).toEqual([code, false]);
    }
  });
});

describe("errorData", () => {
  test("reads what an AppError carries", () => {
    const limit = { name: "chat_stream", limit: 30, windowMs: 1, remaining: 0, resetMs: 5 };
    const error = new AppError("rate_limited", { detail: "Wait.", retryAfterMs: 7, limit });
    expect(errorData(error)).toEqual({
      code: "rate_limited",
      detail: "Wait.",
      retryAfterMs: 7,
      limit,
    });
    expect(error.message).toBe("rate_limited: Wait.");
  });

  test("reads data, never the class: as it arrives from another function", () => {
    expect(errorData(new ConvexError({ code: "not_found" }))).toEqual({ code: "not_found" });
    expect(errorData({ data: { code: "forbidden" } })).toEqual({ code: "forbidden" });
    expect(errorData({ data: '{"code":"forbidden"}' })).toEqual({ code: "forbidden" });
  });

  test("says what could not be had where the platform gave up on conflicts", () => {
    const lost = (table: string) =>
      errorData(
        new Error(
          `Uncaught Error: Documents read from or written to the "${table}" table changed while this ` +
            "mutation was being run and on every subsequent retry. See https://docs.convex.dev/error#1",
        ),
      );
    expect(lost("limits").code).toBe("rate_limit_unavailable");
    expect(lost("slots").code).toBe("overloaded");
    expect(lost("my limits").code).toBe("overloaded");
    const crowded = errorData(new Error("TooManyConcurrentRequests: wait"));
    expect(crowded.code).toBe("overloaded");
    for (const data of [lost("limits"), lost("slots"), crowded]) {
      expect(data.retryAfterMs).toBeGreaterThan(0);
      expect(isContention(data)).toBe(true);
    }
    expect(isContention(errorData(new Error("a bug")))).toBe(false);
    expect(isContention({ code: "rate_limited" })).toBe(false);
  });

  test.each([
    new Error("password=hunter2"),
    "text",
    null,
    undefined,
    7,
    { data: { code: "no_such_code" } },
    { data: { code: "toString" } },
    { data: "{" },
    { data: null },
  ])("says internal_error and no more of %j", (error) => {
    expect(errorData(error)).toEqual({ code: "internal_error" });
  });

  test("bounds what it passes on", () => {
    const issues = Array.from({ length: 50 }, (_, i) => ({ path: `f${i}`, message: "bad" }));
    const data = errorData({
      data: { code: "invalid_request", issues, detail: "x".repeat(9_999) },
    });
    expect(data.issues).toHaveLength(ISSUES_MAX);
    expect(data.detail?.length).toBe(500);
  });

  test("never throws and always names a known code", () => {
    fc.assert(
      fc.property(fc.anything(), fc.anything(), (thrown, data) => {
        expect(ERROR_CODES).toContain(errorData(thrown).code);
        expect(ERROR_CODES).toContain(errorData({ data }).code);
        const shaped = { data: { code: "rate_limited", limit: data, issues: [data] } };
        expect(errorData(shaped).code).toBe("rate_limited");
      }),
    );
  });
});
