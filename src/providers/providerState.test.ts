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

test("a signature that comes without a text signs the text before it", () => {
  // As Claude's reasoning comes through OpenRouter.
  const type = "reasoning.text";
  expect(
    stateOf(
      details({ type, text: "Let", index: 0 }),
      details({ type, text: " me", index: 0 }),
      details({ type, signature: "SIG", index: 0 }),
    ),
  ).toEqual(details({ type, text: "Let me", index: 0, signature: "SIG" }));
});

test("texts that come in turns are joined by their index, summaries by their id", () => {
  const piece = (text: string, index: number) => ({ type: "reasoning.text", text, index });
  expect(stateOf(...[0, 1, 0, 1].map((index) => details(piece(`${index}`, index))))).toEqual(
    details(piece("00", 0), piece("11", 1)),
  );
  const summary = (id: string) => ({ type: "reasoning.summary", summary: id, id, index: 0 });
  expect(stateOf(details(summary("a")), details(summary("b")))?.reasoning_details).toHaveLength(2);
  expect(stateOf(details(piece("a", 0)), details({ text: "b", index: 0 }))).toEqual(
    details(piece("ab", 0)),
  );
  expect(stateOf({ reasoning_details: piece("a", 0) })).toEqual(details(piece("a", 0)));
});

test("the bound is one of what is sent back, in however many pieces it came", () => {
  const piece = { type: "reasoning.text", text: "word", index: 0, format: "f", signature: null };
  const many = Array.from({ length: 20_000 }, () => ({ reasoning: "word", ...details(piece) }));
  expect(stateOf(...many)?.reasoning_details).toHaveLength(1);
});

test("half a character in it is replaced, and nothing else", () => {
  expect(stateOf({ reasoning: "a\ud83e" })).toEqual({ reasoning: "a\ufffd" });
  expect(stateOf({ reasoning: "\ud83e" }, { reasoning: "\udded" })).toEqual({ reasoning: "🧭" });
});

test("more than the bound is not kept at all", () => {
  const half = { type: "reasoning.encrypted", data: "x".repeat(STATE_CHARS_MAX / 2) };
  expect(stateOf(details(half))).not.toBeNull();
  expect(stateOf(details(half), details(half))).toBeNull();
  expect(stateOf({ reasoning: "x".repeat(STATE_CHARS_MAX + 1) })).toBeNull();
});
