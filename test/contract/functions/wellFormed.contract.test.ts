import { beforeAll, afterAll, expect, test, vi } from "vitest";
import { errorData } from "../../../src/errors/appError";
import type { Caller } from "../../edge/backend";
import { call, type Field, FUNCTIONS, type Validator, whole } from "./registry";

let alice: Caller;
beforeAll(() => {
  vi.spyOn(console, "log").mockImplementation(() => undefined);
  alice = whole().withIdentity({ subject: "alice" });
});
afterAll(() => {
  vi.restoreAllMocks();
});

/** A high half and a low half, each on its own, and both in the wrong order. */
const HALVES = ["\ud83d", "x\ude00", "\ude00\ud83d"];

const fieldsOf = (validator: Validator): [string, Field][] =>
  Object.entries(validator.value as Record<string, Field>);

/** One value that a validator takes. */
function sample(validator: Validator): unknown {
  switch (validator.type) {
    case "string":
      return "x";
    case "number":
      return 1;
    case "boolean":
      return false;
    case "null":
      return null;
    case "literal":
      return validator.value;
    case "array":
      return [sample(validator.value as Validator)];
    case "object":
      return Object.fromEntries(
        fieldsOf(validator).map(([name, { fieldType }]) => [name, sample(fieldType)]),
      );
    case "union":
      return sample((validator.value as readonly Validator[])[0] ?? { type: "null" });
    case "any":
      return "x";
    case "id":
      // Of the form that the in-memory database gives ids.
      return `1${String((validator as { readonly tableName?: string }).tableName)}`;
    default:
      throw new Error(`a function takes a ${validator.type}`);
  }
}

type Variant = readonly [path: readonly string[], value: unknown];

/** The sample once for each text in it, with that text replaced. */
function variants(validator: Validator, half: string): Variant[] {
  const under = (name: string, inner: Variant[], build: (value: unknown) => unknown): Variant[] =>
    inner.map(([path, value]) => [[name, ...path], build(value)]);
  switch (validator.type) {
    case "string":
    case "any":
      return [[[], half]];
    case "array":
      return under("0", variants(validator.value as Validator, half), (value) => [value]);
    case "object": {
      const whole = sample(validator) as Record<string, unknown>;
      return fieldsOf(validator).flatMap(([name, { fieldType }]) =>
        under(name, variants(fieldType, half), (value) => ({ ...whole, [name]: value })),
      );
    }
    case "union":
      return (validator.value as readonly Validator[]).flatMap((one) => variants(one, half));
    default:
      return [];
  }
}

const TEXTS = [...FUNCTIONS].flatMap(([name, { args }]) =>
  HALVES.flatMap((half) =>
    variants({ type: "object", value: args }, half).map(([path, value]) => ({
      name,
      path: path.join("."),
      args: value as Record<string, unknown>,
    })),
  ),
);

test("there are functions with texts in them, public and internal, at the top and below", () => {
  expect(TEXTS.length).toBeGreaterThan(100);
  const known = TEXTS.map(({ name, path }) => `${name} ${path}`);
  expect(known).toEqual(expect.arrayContaining(["messages:send content", "toolCache:get key"]));
  expect(known).toContain("chatTurns:admit request.content");
});

test.each(TEXTS)("$name refuses half a character in $path", async ({ args, name, path }) => {
  const thrown: unknown = await call(alice, name, args).catch((error: unknown) => error);
  expect(errorData(thrown)).toMatchObject({
    code: "invalid_request",
    issues: [{ path, message: "Contains half a character" }],
  });
});
