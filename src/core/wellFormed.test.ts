import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { beginningOf, isWellFormed, pathsToHalves, wellFormed } from "./wellFormed";

const HALVES = ["\ud800", "\udfff", "a\ud83d", "\ude00b", "\ude00\ud83d", "😀\ud83d"];

test.each(HALVES)("%j holds half a character", (text) => {
  expect([isWellFormed(text), isWellFormed(wellFormed(text))]).toEqual([false, true]);
});

test("any other text is whole, and stays as it is", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      expect([isWellFormed(text), wellFormed(text)]).toEqual([true, text]);
    }),
  );
});

test("a text is cut between characters", () => {
  expect(["a😀b", "😀", "ab"].map((text) => beginningOf(text, 2))).toEqual(["a", "😀", "ab"]);
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), fc.nat(40), (text, charsMax) => {
      const begun = beginningOf(text, charsMax);
      expect([text.startsWith(begun), isWellFormed(begun)]).toEqual([true, true]);
      expect(begun.length).toBeGreaterThanOrEqual(Math.min(text.length, charsMax) - 1);
      expect(begun.length).toBeLessThanOrEqual(charsMax);
    }),
  );
});

describe("the paths to halves", () => {
  test("are those of all texts that hold one, however deep", () => {
    const value = { a: "\ud800", b: ["x", { c: "\udc00" }], d: 7, e: null, f: "😀" };
    expect(pathsToHalves(value, 20)).toEqual(["a", "b.1.c"]);
    expect(pathsToHalves("\ud800", 20)).toEqual([""]);
  });

  test("name a key that holds one with a whole character in its place", () => {
    expect(pathsToHalves({ a: { "k\ud800": "\udc00" } }, 20)).toEqual(["a.k\ufffd"]);
  });

  test("are no more than asked for", () => {
    expect(
      pathsToHalves(
        Array.from({ length: 100 }, () => "\ud800"),
        3,
      ),
    ).toEqual(["0", "1", "2"]);
  });

  test("end at a depth that no value between functions has", () => {
    const nested = (depth: number): unknown => (depth === 0 ? "\ud800" : [nested(depth - 1)]);
    expect(pathsToHalves(nested(64), 1)).toHaveLength(1);
    expect(pathsToHalves(nested(5_000), 1)).toEqual([]);
  });

  test("are none in bytes and other values that hold no texts", () => {
    for (const value of [new ArrayBuffer(8), 7n, undefined, true])
      expect(pathsToHalves({ value }, 1)).toEqual([]);
  });
});
