import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { argumentsToSend, parseArguments } from "./toolArguments";

const DEEP = `{"a":${"[".repeat(10_000)}${"]".repeat(10_000)}}`;

describe("the arguments of a call", () => {
  test.each<[string, Record<string, unknown> | null, string]>([
    ['{"query":"x"}', { query: "x" }, '{"query":"x"}'],
    [' {"query":"x"}\n', { query: "x" }, ' {"query":"x"}\n'],
    ["", {}, "{}"],
    ["  ", {}, "{}"],
    ['"{\\"query\\":\\"x\\"}"', { query: "x" }, '{"query":"x"}'],
    ['{"timeZone":"UT', null, "{}"],
    ["null", null, "{}"],
    ["[1]", null, "{}"],
    ["7", null, "{}"],
    ['"words"', null, "{}"],
    ['{"a":1}{"b":2}', null, "{}"],
    [DEEP, null, "{}"],
    ['{"query":"\\ud83e"}', { query: "\ufffd" }, '{"query":"\\ufffd"}'],
    ['{"query":"\\\\ud83e"}', { query: "\\ud83e" }, '{"query":"\\\\ud83e"}'],
    ['{"query":"\\ud83e\\udded"}', { query: "🧭" }, '{"query":"\\ud83e\\udded"}'],
    ['{"query":"\ud83e"}', { query: "\ufffd" }, '{"query":"\ufffd"}'],
  ])("%j", (text, args, sent) => {
    expect(parseArguments(text)).toEqual(args);
    expect(argumentsToSend(text)).toBe(sent);
  });

  test("of any text are sent as the JSON text of an object, and of an object as they are", () => {
    const anyText = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.json(),
      fc.json().map((text) => text.slice(0, -1)),
    );
    fc.assert(
      fc.property(anyText, (text) => {
        const sent: unknown = JSON.parse(argumentsToSend(text));
        expect(sent).toEqual(parseArguments(text) ?? {});
        expect(JSON.stringify(sent)).not.toMatch(/(?<!\\)\\ud[89a-f]/);
      }),
    );
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 3 })), (args) => {
        const text = JSON.stringify(args);
        expect(argumentsToSend(text)).toBe(text);
      }),
    );
  });
});
