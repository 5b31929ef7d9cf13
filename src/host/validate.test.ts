import { convexToJson, v, type Value } from "convex/values";
import { expect, test } from "vitest";
import { encodeId } from "./ids";
import { validateValue } from "./validate";

const userId = encodeId(10_001, new Uint8Array(16));
const jobId = encodeId(1, new Uint8Array(16));
const tables = (number: number) => ({ 10_001: "users", 1: "_scheduled_functions" })[number];

/** The JSON of a validator is not in its public type. */
function check(validator: unknown, value: Value): string | null {
  const { json } = validator as { json: unknown };
  return validateValue(json, convexToJson(value), tables);
}

const person = v.object({ name: v.string(), age: v.optional(v.number()) });

test.each([
  [v.null(), null],
  [v.number(), 1],
  [v.number(), NaN],
  [v.number(), -0],
  [v.int64(), 1n],
  [v.boolean(), false],
  [v.string(), ""],
  [v.bytes(), new ArrayBuffer(2)],
  [v.any(), { a: [1n] }],
  [v.literal("a"), "a"],
  [v.literal(1n), 1n],
  [v.literal(true), true],
  [v.id("users"), userId],
  [v.array(v.number()), [1, 2]],
  [v.record(v.string(), v.number()), { a: 1 }],
  [person, { name: "Ada" }],
  [person, { name: "Ada", age: 3 }],
  [v.union(v.string(), v.null()), null],
  [v.union(v.object({ kind: v.literal("a") }), v.object({ kind: v.literal("b") })), { kind: "b" }],
])("a value fits its validator (%#)", (validator, value) => {
  expect(check(validator, value)).toBeNull();
});

const noMatch = (value: string, validator: string, path = "") =>
  `Value does not match validator.\n${path}\nValue: ${value}\nValidator: ${validator}`;

test.each<[unknown, Value, string]>([
  [v.string(), 1, noMatch("1.0", "v.string()")],
  [v.number(), 1n, noMatch("1", "v.float64()")],
  [v.int64(), 1.5, noMatch("1.5", "v.int64()")],
  [v.null(), "x", noMatch('"x"', "v.null()")],
  [v.bytes(), [1, null], noMatch("[1.0, null]", "v.bytes()")],
  [v.string(), { a: 1n }, noMatch("{a: 1}", "v.string()")],
  [v.string(), new ArrayBuffer(1), noMatch('b"AA=="', "v.string()")],
  [v.object({}), 1n, noMatch("1", "v.object({})")],
  [v.array(v.number()), { a: 1 }, noMatch("{a: 1.0}", "v.array(v.float64())")],
  [v.union(v.string(), v.literal(2)), null, noMatch("null", "v.union(v.string(), v.literal(2))")],
  [v.literal("a"), "b", '`"b"` does not match literal validator `v.literal("a")`.'],
  [v.id("users"), "nonsense", noMatch('"nonsense"', 'v.id("users")')],
  [
    v.id("posts"),
    userId,
    `Found ID "${userId}" from table \`users\`, which does not match the table name in validator \`v.id("posts")\`.`,
  ],
  [
    v.id("posts"),
    jobId,
    `Found ID "${jobId}" from a system table, which does not match the table name in validator \`v.id("posts")\`.`,
  ],
  [
    person,
    {},
    "Object is missing the required field `name`. Consider wrapping the field validator in `v.optional(...)` if this is expected.\n\nObject: {}\nValidator: v.object({age: v.optional(v.float64()), name: v.string()})",
  ],
  [
    v.object({ a: v.number() }),
    { a: 1, b: 2 },
    "Object contains extra field `b` that is not in the validator.\n\nObject: {a: 1.0, b: 2.0}\nValidator: v.object({a: v.float64()})",
  ],
  [
    v.object({ list: v.array(v.object({ x: v.number() })) }),
    { list: [{ x: 1 }, { x: "no" }] },
    noMatch('"no"', "v.float64()", "Path: .list[1].x"),
  ],
  [
    v.record(v.string(), v.number()),
    { a: "no" },
    noMatch('"no"', "v.float64()", "Path: .values()"),
  ],
  [v.record(v.id("users"), v.number()), { a: 1 }, noMatch('"a"', 'v.id("users")', "Path: .keys()")],
])("a value that does not fit is refused with the reason (%#)", (validator, value, reason) => {
  expect(check(validator, value)).toBe(reason);
});

test("a commit timestamp that is not known yet is an integer", () => {
  for (const type of ["bigint", "commitTs"]) {
    expect(validateValue({ type }, { $commitTs: null })).toBeNull();
  }
  expect(validateValue({ type: "number" }, { $commitTs: null })).not.toBeNull();
});

test("without the names of tables any well-formed id will do", () => {
  const { json } = v.id("posts") as unknown as { json: unknown };
  expect(validateValue(json, userId)).toBeNull();
  expect(validateValue(json, "nonsense")).not.toBeNull();
});
