import { describe, expect, test } from "vitest";
import { outcomeOf } from "../../../test/vectors/cases";
import { hubCases } from "../../../test/vectors/hubCases";
import { equalBytes, equalSecret } from "./constantTime";
import { hmacSha256 } from "./hmac";

const cases = await hubCases();

describe("hub-256", () => {
  test("every published vector of the scheme and of RFC 4231 is among the cases", () => {
    const names = cases.map(({ name }) => name);
    expect(names.filter((name) => name.startsWith("rfc4231-"))).toHaveLength(5);
    expect(names.filter((name) => name.startsWith("github-docs"))).toHaveLength(1);
  });

  test.each(cases)("$name: $expect", async (one) => {
    expect(await outcomeOf(one)).toBe(one.expect);
  });
});

describe("comparing secrets", () => {
  test("an empty secret matches nothing, not even an empty text", async () => {
    expect(await equalSecret("", "")).toBe(false);
    expect(await equalSecret("x", "")).toBe(false);
  });

  test("equal texts match and others do not", async () => {
    expect(await equalSecret("töken", "töken")).toBe(true);
    expect(await equalSecret("token", "tokem")).toBe(false);
    expect(await equalSecret("", "token")).toBe(false);
  });

  test("every position counts, and so does the length", () => {
    const bytes = new Uint8Array(32).fill(7);
    expect(equalBytes(bytes, bytes.slice())).toBe(true);
    for (let at = 0; at < bytes.length; at++)
      expect(equalBytes(bytes, bytes.with(at, 6))).toBe(false);
    expect(equalBytes(bytes, bytes.slice(1))).toBe(false);
    expect(equalBytes(bytes.slice(1), bytes)).toBe(false);
  });

  test("an empty key computes nothing", async () => {
    const attempt = hmacSha256(new Uint8Array(), new Uint8Array([1]));
    await expect(attempt).rejects.toMatchObject({ data: { code: "misconfigured" } });
  });
});
