import { describe, expect, test } from "vitest";
import { AppError } from "../errors/appError";
import { type Acceptance, answerTo } from "./acceptance";

const LIMIT = { name: "whatsapp", limit: 10, windowMs: 1000, remaining: 7, resetMs: 300 };
const ACCEPTED: Acceptance = { kind: "accepted", limits: [LIMIT] };
const DUPLICATE: Acceptance = { kind: "duplicate" };
const REFUSED: Acceptance = {
  kind: "refused",
  code: "rate_limited",
  retryAfterMs: 250,
  limit: { name: "whatsapp", limit: 1, windowMs: 1000, remaining: 0, resetMs: 250 },
};

describe("the answer to a delivery", () => {
  test.each([
    ["nothing in it", null, null],
    ["something new", ACCEPTED, null],
    ["nothing new", DUPLICATE, "1"],
  ])("with %s", (_name, acceptance, replayed) => {
    const response = answerTo(acceptance);
    expect(response.status).toBe(200);
    expect(response.headers.get("x-idempotent-replay")).toBe(replayed);
  });

  test("says what is left of the limits that let it through", () => {
    const { headers } = answerTo(ACCEPTED);
    expect(headers.get("ratelimit")).toBe('"whatsapp";r=7;t=1');
    expect(headers.get("ratelimit-policy")).toBe('"whatsapp";q=10;w=1');
  });

  test("refused is its refusal, so that all of it comes again", () => {
    expect(() => answerTo(REFUSED)).toThrow(AppError);
  });
});
