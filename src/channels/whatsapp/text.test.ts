import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { boundText, TEXT_CODE_POINTS_MAX } from "./text";

const codePoints = (text: string): number => Array.from(text).length;

describe("bounding a text", () => {
  test("keeps what fits and says that it does", () => {
    expect(boundText("")).toEqual({ text: "", truncated: false });
    expect(boundText("ab", 2)).toEqual({ text: "ab", truncated: false });
  });

  test("cuts between code points, never inside a surrogate pair", () => {
    expect(boundText("a🦀b", 2)).toEqual({ text: "a🦀", truncated: true });
    expect(boundText("🦀🦀🦀", 1)).toEqual({ text: "🦀", truncated: true });
  });

  test("counts code points, not UTF-16 units", () => {
    const text = "🦀".repeat(TEXT_CODE_POINTS_MAX);
    expect(boundText(text)).toEqual({ text, truncated: false });
    expect(boundText(`${text}x`)).toEqual({ text, truncated: true });
  });

  test.each([
    ["\uD83D", "\uFFFD"],
    ["\uDE00", "\uFFFD"],
    ["a\uDE00\uD83Db", "a\uFFFD\uFFFDb"],
    ["\uD83D\uD83E\uDD80", "\uFFFD🦀"],
  ])("replaces a half without its partner in %j", (text, expected) => {
    expect(boundText(text).text).toBe(expected);
  });

  test("yields well-formed text within the bound, a prefix of the well-formed whole", () => {
    const anyText = fc.string({
      unit: fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit)),
    });
    fc.assert(
      fc.property(anyText, fc.nat(8), (text, max) => {
        const bounded = boundText(text, max);
        expect(bounded.text).not.toMatch(/\p{Surrogate}/u);
        expect(codePoints(bounded.text)).toBe(Math.min(max, codePoints(text)));
        expect(boundText(text).text.startsWith(bounded.text)).toBe(true);
        expect(bounded.truncated).toBe(codePoints(text) > max);
      }),
    );
  });
});
