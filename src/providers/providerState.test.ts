import { expect, test } from "vitest";
import { STATE_CHARS_MAX, StateParts } from "./providerState";

function stateOf(...deltas: Record<string, unknown>[]) {
  const parts = new StateParts();
  for (const delta of deltas) parts.push(delta);
  return parts.whole();
}
const details = (...list: object[]) => ({ reasoning_details: list });

test("details come back as they came, in their order", () => {
  const encrypted = { type: "reasoning.encrypted", data: "x", id: "call_a", index: 1, more: null };
  const summary = { type: "reasoning.summary", summary: "s", index: 0 };
  expect(stateOf(details(summary, encrypted))).toEqual(details(summary, encrypted));
  expect(stateOf(details(summary), details(encrypted))).toEqual(details(summary, encrypted));
});

test("pieces of one text are one, up to the signature that covers it", () => {
  const piece = (text: string, more: object = {}) =>
    details({ type: "reasoning.text", text, index: 0, ...more });
  expect(stateOf(piece("a"), piece("b"), piece("", { signature: "s1" }), piece("c"))).toEqual(
    details(
      { type: "reasoning.text", text: "ab", index: 0, signature: "s1" },
      { type: "reasoning.text", text: "c", index: 0 },
    ),
  );
  expect(stateOf(piece("a"), piece("b", { index: 1 }))?.reasoning_details).toHaveLength(2);
  expect(stateOf(piece("a", { format: "f" }), piece("b", { format: null }))).toEqual(
    details({ type: "reasoning.text", text: "ab", index: 0, format: "f" }),
  );
});

test("without details the text comes back in the field in which it came", () => {
  expect(stateOf({ reasoning_content: "a" }, { reasoning_content: "b" })).toEqual({
    reasoning_content: "ab",
  });
  expect(stateOf({ reasoning: "a" }, { reasoning: "b" })).toEqual({ reasoning: "ab" });
  expect(stateOf({ reasoning: "a", ...details({ type: "x" }) })).toEqual(details({ type: "x" }));
  expect(stateOf({ content: "a" })).toBeNull();
});

test("more than the bound is not kept at all", () => {
  const half = { type: "reasoning.encrypted", data: "x".repeat(STATE_CHARS_MAX / 2) };
  expect(stateOf(details(half))).not.toBeNull();
  expect(stateOf(details(half), details(half))).toBeNull();
  expect(stateOf({ reasoning: "x".repeat(STATE_CHARS_MAX + 1) })).toBeNull();
});
