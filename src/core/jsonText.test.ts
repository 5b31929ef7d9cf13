import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { nestsDeeper, withoutEscapedHalves } from "./jsonText";

function depthOf(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(depthOf));
}

describe("the depth of a JSON text", () => {
  test("is that of its value, brackets in its strings left out", () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 5 }), fc.nat(6), (value, depthMax) => {
        expect(nestsDeeper(JSON.stringify(value), depthMax)).toBe(depthOf(value) > depthMax);
      }),
    );
    expect(nestsDeeper('"[[[\\"[["', 0)).toBe(false);
  });

  test("of a text as long as may be is found without recursion", () => {
    expect(nestsDeeper("[".repeat(1_000_000), 999_999)).toBe(true);
  });
});

describe("escaped halves of characters", () => {
  test.each([
    ['"\\ud83e\\udded"', '"\\ud83e\\udded"'],
    ['"\\ud83e"', '"\\ufffd"'],
    ['"\\udded\\ud83e"', '"\\ufffd\\ufffd"'],
    ['"\\ud83e\\ud83e\\udded"', '"\\ufffd\\ud83e\\udded"'],
    ['"\\\\ud83e"', '"\\\\ud83e"'],
    ['"\\\\\\ud83e"', '"\\\\\\ufffd"'],
    ['"\\uD83E"', '"\\ufffd"'],
  ])("%s becomes %s", (text, expected) => {
    expect(withoutEscapedHalves(text)).toBe(expected);
  });

  test("are gone from any value, and nothing else is", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (value) => {
        const text = JSON.stringify(value);
        expect(JSON.parse(withoutEscapedHalves(text))).toBe(
          value.replace(/\p{Surrogate}/gu, "\ufffd"),
        );
      }),
    );
  });
});
