import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { isErrorCode } from "../../../src/errors/table";
import { type Caller, refused } from "../../edge/backend";
import { call, FUNCTIONS, whole, wrongArgs } from "./registry";

let alice: Caller;
beforeAll(() => {
  vi.spyOn(console, "log").mockImplementation(() => undefined);
  alice = whole().withIdentity({ subject: "alice" });
});
afterAll(() => {
  vi.restoreAllMocks();
});

/** All that anybody on the internet may call, found by looking. */
const PUBLIC = [...FUNCTIONS].filter(([, { isPublic }]) => isPublic);

/** Texts that no argument of ours is. */
const HOSTILE = [
  "",
  " ",
  "\0",
  "\ud800",
  "constructor",
  "../..",
  "threads|1",
  "😀",
  "x".repeat(100_000),
];
const NUMBERS = [NaN, Infinity, -Infinity, -1, 0, 0.5, 1e300, 2 ** 53];
/** Accepted from clients of the seeds and used for nothing. */
const UNUSED = ["sessionId"];

const valueOf = (type: string): fc.Arbitrary<unknown> => {
  switch (type) {
    case "string":
      return fc.oneof(fc.constantFrom(...HOSTILE), fc.string({ unit: "binary", maxLength: 40 }));
    case "number":
      return fc.constantFrom(...NUMBERS);
    case "boolean":
      return fc.boolean();
    default:
      throw new Error(`a public function takes a ${type}`);
  }
};

describe.each(PUBLIC)("%s", (name, { args, kind }) => {
  const fields = Object.entries(args);
  const hostile = fc.record(
    Object.fromEntries(fields.map(([field, { fieldType }]) => [field, valueOf(fieldType.type)])),
    { requiredKeys: fields.flatMap(([field, { optional }]) => (optional ? [] : [field])) },
  );

  test("answers garbage with a code of the taxonomy, or as it answers anything", async () => {
    await fc.assert(
      fc.asyncProperty(hostile, async (sent) => {
        const error: unknown = await call(alice, name, sent).then(
          () => null,
          (thrown: unknown) => thrown,
        );
        if (error === null) return;
        const { data } = error as { data?: { code?: unknown } };
        expect([sent, isErrorCode(data?.code), error]).toEqual([sent, true, error]);
        expect(data?.code).not.toBe("internal_error");
      }),
      { numRuns: 25, seed: 20_261_121 },
    );
  });

  const texts = fields.filter(
    ([field, { fieldType }]) => fieldType.type === "string" && !UNUSED.includes(field),
  );
  test.each(texts)("does not take %s of a megabyte", async (field) => {
    const required = fields.filter(([, { optional }]) => !optional);
    const sent: Record<string, unknown> = {};
    for (const [one] of required) sent[one] = "x";
    sent[field] = "x".repeat(1_000_000);
    const error: unknown = await call(alice, name, sent).catch((thrown: unknown) => thrown);
    const code = (error as { data?: { code: string } }).data?.code;
    expect([name, field, ["invalid_request", "not_found"].includes(code ?? "")]).toEqual([
      name,
      field,
      true,
    ]);
  });

  test("refuses arguments of another shape before it does anything", async () => {
    const good = Object.fromEntries(fields.map(([field]) => [field, "x"]));
    for (const [what, wrong] of wrongArgs(name, good)) {
      const error: unknown = await call(alice, name, wrong).catch((thrown: unknown) => thrown);
      expect([what, String(error)]).toEqual([what, expect.stringMatching(/validat/i)]);
    }
  });

  test(`is a ${kind} for signed-in users only`, async () => {
    const [sample] = fc.sample(hostile, { numRuns: 1, seed: 7 });
    await refused(call(whole(), name, sample), "unauthorized");
  });
});
