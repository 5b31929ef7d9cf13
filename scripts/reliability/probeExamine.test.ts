import * as z from "zod";
import { describe, expect, test } from "vitest";
import { BASELINE } from "../../src/slo/objectives";
import type { ProbeResult } from "./artifacts";
import type { Answer } from "./exchange";
import { checksOf, percentile } from "./probeChecks";
import { examine } from "./probeExamine";
import { answeredAs, refusedAs } from "./probeParts";
import type { Probed } from "./probeRun";

const PROBLEM = {
  type: "urn:ballast:error:overloaded",
  title: "Overloaded",
  status: 503,
  detail: "x",
  code: "overloaded",
  requestId: "id-1",
  retryable: true,
};
const HEADERS = {
  "content-type": "application/problem+json",
  "cache-control": "no-store",
  "x-error-code": "overloaded",
  "x-request-id": "id-1",
  "x-content-type-options": "nosniff",
  traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-01`,
  "retry-after": "2",
};

const answer = (change: Partial<Answer> = {}): Answer => ({
  status: 503,
  headers: HEADERS,
  text: JSON.stringify(PROBLEM),
  latencyMs: 10,
  certificateEndsAt: null,
  ...change,
});
const without = (name: keyof typeof HEADERS): Partial<Answer> => ({
  headers: Object.fromEntries(Object.entries(HEADERS).filter(([key]) => key !== name)),
});
const withHeader = (name: string, value: string): Partial<Answer> => ({
  headers: { ...HEADERS, [name]: value },
});
const problem = (change: object): Partial<Answer> => ({
  text: JSON.stringify({ ...PROBLEM, ...change }),
});
const OVERLOADED = refusedAs("overloaded", { vary: null });
const faults = (change: Partial<Answer>, expected = OVERLOADED, method = "POST") =>
  examine(answer(change), expected, { requestId: "id-1", method });

describe("a refusal", () => {
  test("that is as promised has no fault", () => {
    expect(faults({})).toEqual([]);
    expect(faults({ text: "" }, OVERLOADED, "HEAD")).toEqual([]);
  });

  test.each<[Partial<Answer>, string]>([
    [{ status: 500 }, "status 500, not 503"],
    [without("x-request-id"), "x-request-id is missing"],
    [withHeader("x-request-id", "other"), 'x-request-id is "other", not id-1'],
    [without("traceparent"), "traceparent is missing"],
    [without("x-content-type-options"), "x-content-type-options is missing"],
    [without("retry-after"), "retry-after is missing"],
    [withHeader("retry-after", "0"), 'retry-after is "0"'],
    [withHeader("retry-after", "soon"), 'retry-after is "soon"'],
    [withHeader("x-error-code", "forbidden"), 'x-error-code is "forbidden"'],
    [withHeader("content-type", "application/json"), "content-type is"],
    [without("cache-control"), "cache-control is missing"],
    [withHeader("vary", "Origin"), 'vary is there: "Origin"'],
    [{ text: "<html>" }, "code of the problem is nothing"],
    [problem({ code: "forbidden" }), 'code of the problem is "forbidden", not "overloaded"'],
    [problem({ status: 500 }), "status of the problem is 500, not 503"],
    [problem({ retryable: false }), "retryable of the problem is false, not true"],
    [problem({ type: "about:blank" }), "type of the problem is"],
    [problem({ title: "Oops" }), "title of the problem is"],
    [problem({ requestId: "id-2" }), "the problem names another request id"],
  ])("%#: %j", (change, fault) => {
    expect(faults(change).join("\n")).toContain(fault);
  });
});

describe("an answer", () => {
  const good = answeredAs([200], {
    contract: z.object({ ok: z.literal(true) }),
    text: '{"ok":true}',
  });

  test("may be no problem", () => {
    expect(faults({ status: 200, text: '{"ok":true}' }, good)).toEqual([]);
  });

  test("must fit its contract and its text", () => {
    expect(faults({ status: 200, text: '{"ok":false}' }, good)).toEqual([
      "the body breaks its contract",
      'body "{\\"ok\\":false}", not "{\\"ok\\":true}"',
    ]);
  });
});

describe("over all answers", () => {
  const NOW = Date.parse("2030-01-01T00:00:00Z");
  const probed = (change: Partial<Answer>, path = "/api/chat"): Probed => ({
    result: {} as ProbeResult,
    path,
    answer: answer({ headers: { date: new Date(NOW).toUTCString() }, ...change }),
    answeredAtMs: NOW,
  });
  const checks = (...all: readonly Probed[]) =>
    checksOf(all, BASELINE, NOW).map(({ name, pass }) => [name, pass]);

  test.each([
    ["Jan 16 00:00:00 2030 GMT", true],
    ["Jan 14 23:59:59 2030 GMT", false],
    ["Dec 31 00:00:00 2029 GMT", false],
  ])("the first certificate ends at %s", (certificateEndsAt, pass) => {
    const later = probed({ certificateEndsAt: "Jan 01 00:00:00 2040 GMT" });
    expect(checks(later, probed({ certificateEndsAt }))).toContainEqual([
      "certificate_expiry",
      pass,
    ]);
  });

  test("without a certificate nothing is said of one", () => {
    expect(checks(probed({})).map(([name]) => name)).toEqual([
      "clock_skew",
      "latency_p95 /api/chat",
    ]);
  });

  test.each([
    [5_000, true],
    [-5_000, true],
    [6_000, false],
    [-6_000, false],
  ])("a clock that is %d ms off", (offMs, pass) => {
    const date = new Date(NOW + offMs).toUTCString();
    expect(checks(probed({ headers: { date } }))).toContainEqual(["clock_skew", pass]);
  });

  test("one slow answer does not make a clock wrong", () => {
    const slow = probed({ headers: { date: new Date(NOW - 60_000).toUTCString() } });
    expect(checks(slow, probed({}))).toContainEqual(["clock_skew", true]);
  });

  test("latency is held to the objective of the endpoint", () => {
    const webhook = "/api/whatsapp/webhook";
    expect(checks(probed({ latencyMs: 1_500 }, webhook))).toContainEqual([
      `latency_p95 ${webhook}`,
      true,
    ]);
    expect(checks(probed({ latencyMs: 1_501 }, webhook))).toContainEqual([
      `latency_p95 ${webhook}`,
      false,
    ]);
  });

  test("percentiles are of the nearest rank", () => {
    const values = Array.from({ length: 100 }, (_, i) => 100 - i);
    expect([0, 0.5, 0.95, 1].map((share) => percentile(values, share))).toEqual([1, 50, 95, 100]);
    expect(percentile([7], 0.95)).toBe(7);
  });
});
