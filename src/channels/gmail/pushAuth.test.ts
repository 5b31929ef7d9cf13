import { describe, expect, test } from "vitest";
import { googleCases } from "../../../test/vectors/googleCases";
import { outcomeOf } from "../../../test/vectors/cases";

const cases = await googleCases();

describe("Gmail push verification", () => {
  test.each(cases)("$name: $expect", async (one) => {
    expect(await outcomeOf(one)).toBe(one.expect);
  });
});
