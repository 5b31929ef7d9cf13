import { describe, expect, test, vi } from "vitest";
import { AppError, errorData } from "../errors/appError";
import { type Acceptance, acceptTwice, answerTo } from "./acceptance";

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
    ["nothing in it", [], null],
    ["one part new", [ACCEPTED], null],
    ["some parts new", [DUPLICATE, ACCEPTED, DUPLICATE], null],
    ["no part new", [DUPLICATE, DUPLICATE], "1"],
  ])("with %s", (_name, parts, replayed) => {
    const response = answerTo(parts);
    expect(response.status).toBe(200);
    expect(response.headers.get("x-idempotent-replay")).toBe(replayed);
  });

  test("says what is left of the limits that let it through", () => {
    const { headers } = answerTo([DUPLICATE, ACCEPTED]);
    expect(headers.get("ratelimit")).toBe('"whatsapp";r=7;t=1');
    expect(headers.get("ratelimit-policy")).toBe('"whatsapp";q=10;w=1');
  });

  test("with a part refused is its refusal, so that all of it comes again", () => {
    expect(() => answerTo([ACCEPTED, REFUSED])).toThrow(AppError);
  });
});

describe("accepting twice", () => {
  const attempt = async (accept: () => Promise<string>): Promise<string> => {
    try {
      return await acceptTwice(accept);
    } catch (error) {
      return errorData(error).code;
    }
  };

  test("tries again after contention, once", async () => {
    const recovers = vi.fn().mockRejectedValueOnce(new AppError("overloaded"));
    recovers.mockResolvedValue("stored");
    expect(await attempt(recovers)).toBe("stored");
    const lost = vi.fn().mockRejectedValue(new AppError("overloaded"));
    expect(await attempt(lost)).toBe("overloaded");
    expect(lost).toHaveBeenCalledTimes(2);
  });

  test("does not repeat what failed for another reason", async () => {
    const broken = vi.fn().mockRejectedValue(new Error("a bug"));
    expect(await attempt(broken)).toBe("internal_error");
    expect(broken).toHaveBeenCalledTimes(1);
  });
});
