import { compareValues, convexToJson, type Value } from "convex/values";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Json } from "./json";
import { afterKey, afterPrefix, encodeValue, encodeValues } from "./keys";

const texts = fc.oneof(
  fc.string({ unit: "binary", maxLength: 6 }),
  fc.constantFrom("", "\u0000", "a\u0000", "a\u0000\u0000", "a\u0000ÿ", "a", "a￿", "a😀", "aÿ"),
);
const numbers = fc.oneof(
  fc.double(),
  fc.integer(),
  fc.constantFrom(0, -0, NaN, Infinity, -Infinity, 5e-324, -5e-324),
);
const integers = fc.oneof(
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  fc.bigInt(-2n, 2n),
);
const bytes = fc.uint8Array({ maxLength: 4 }).map((array) => new Uint8Array(array).buffer);
const { value } = fc.letrec<{ value: Value }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    fc.constantFrom(null, true, false),
    texts,
    numbers,
    integers,
    bytes,
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(fc.constantFrom("a", "aa", "b", "ab"), tie("value"), {
      maxKeys: 3,
      noNullPrototype: true,
    }),
  ),
}));

const encode = (input: Value | undefined) =>
  encodeValue(input === undefined ? undefined : convexToJson(input));
const order = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

test("keys sort as Convex sorts values", () => {
  fc.assert(
    fc.property(
      fc.option(value, { nil: undefined }),
      fc.option(value, { nil: undefined }),
      (a, b) => {
        expect(order(encode(a), encode(b))).toBe(Math.sign(compareValues(a, b)));
      },
    ),
    { numRuns: 5_000 },
  );
});

test("keys of several values sort by the first that differs", () => {
  const pair = fc.tuple(value, value);
  fc.assert(
    fc.property(pair, pair, (a, b) => {
      const [first, second] = [compareValues(a[0], b[0]), compareValues(a[1], b[1])];
      const keyOf = (values: Value[]) =>
        encodeValues(values.map((one) => convexToJson(one) as Json));
      expect(order(keyOf(a), keyOf(b))).toBe(Math.sign(first === 0 ? second : first));
    }),
    { numRuns: 2_000 },
  );
});

test("the range of a prefix holds the keys that continue it, and no others", () => {
  fc.assert(
    fc.property(value, value, value, (a, b, rest) => {
      const prefix = encode(a);
      const key = encode(b) + encode(rest);
      expect(key >= prefix && key < afterPrefix(prefix)).toBe(compareValues(a, b) === 0);
    }),
    { numRuns: 2_000 },
  );
});

test("nothing lies between a key and the one after it", () => {
  const key = encode("a");
  expect(key < afterKey(key)).toBe(true);
  expect(afterKey(key)).toBe(`${key}\u0000`);
});

test("each character of a key is one byte", () => {
  fc.assert(
    fc.property(value, (input) => {
      expect(Buffer.from(encode(input), "latin1").toString("latin1")).toBe(encode(input));
    }),
  );
});

test("a commit timestamp that is not known yet sorts as the largest integer", () => {
  expect(encodeValue({ $commitTs: null })).toBe(encode(2n ** 63n - 1n));
});
