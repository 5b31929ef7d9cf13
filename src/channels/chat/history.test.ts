import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { historyFault } from "../../sim/strictHistory";
import { record } from "../../sim/json";
import { type HistoryMessage, toChatMessages } from "./history";

const calls = (...ids: string[]) => ids.map((id) => ({ id, name: "search_web", arguments: "{}" }));
const result = (toolCallId: string, content: string): HistoryMessage => ({
  role: "tool",
  toolCallId,
  content,
});
const asked = (...ids: string[]): HistoryMessage => ({
  role: "assistant",
  content: "",
  toolCalls: calls(...ids),
});
const resultsIn = (history: readonly HistoryMessage[]) =>
  toChatMessages(history).flatMap((message) => (message.role === "tool" ? [message.content] : []));

describe("a thread as it is sent to a model", () => {
  test("an answer with calls is calls, results and text", () => {
    const history: HistoryMessage[] = [
      { role: "user", content: "hi" },
      { ...asked("a"), content: "Found it." },
      result("a", "it"),
    ];
    expect(toChatMessages(history)).toEqual([
      { role: "user", content: "hi" },
      {
        role: "assistant",
        content: null,
        tool_calls: [
          { id: "a", type: "function", function: { name: "search_web", arguments: "{}" } },
        ],
      },
      { role: "tool", tool_call_id: "a", content: "it" },
      { role: "assistant", content: "Found it." },
    ]);
  });

  test("each answer gets its own results, whatever ids repeat", () => {
    const twice = [asked("a"), result("a", "1"), asked("a"), result("a", "2")];
    expect(resultsIn(twice)).toEqual(["1", "2"]);
    expect(resultsIn([asked("a", "a"), result("a", "1"), result("a", "2")])).toEqual(["1", "2"]);
    // The second answer has lost its result: it does not take one of another answer.
    expect(resultsIn([asked("a"), result("a", "1"), asked("a"), asked("b")])).toEqual(["1"]);
    expect(resultsIn([asked("a"), asked("a"), result("a", "2")])).toEqual(["2"]);
  });

  test("results behind a question that was asked meanwhile still belong to their answer", () => {
    const history = [asked("a"), { role: "user", content: "and?" } as const, result("a", "1")];
    const roles = toChatMessages([{ role: "user", content: "hi" }, ...history]).map(
      ({ role }) => role,
    );
    expect(roles).toEqual(["user", "assistant", "tool", "assistant", "user"]);
  });

  test("begins with a question, whatever was cut before it", () => {
    const history: HistoryMessage[] = [
      asked("a"),
      result("a", "1"),
      { role: "user", content: "x" },
    ];
    expect(toChatMessages(history)).toEqual([{ role: "user", content: "x" }]);
  });

  test("an answer of nothing but spaces is none", () => {
    expect(toChatMessages([{ role: "assistant", content: "\n\n" }])).toEqual([]);
  });

  test("ids that some provider does not take are the same other ones each time", () => {
    const question: HistoryMessage = { role: "user", content: "x" };
    const history = [question, asked("tool:0"), result("tool:0", "1")];
    const first = toChatMessages(history);
    expect(toChatMessages([...history, question]).slice(0, first.length)).toEqual(first);
    expect(JSON.stringify(first)).not.toContain("tool:0");
  });

  const ids = fc.constantFrom("a", "b", "tool:0", "", "é".repeat(60));
  const anyCall = fc.record({
    id: ids,
    name: fc.constantFrom("search_web", "odd name!", "", "x".repeat(300)),
    arguments: fc.oneof(fc.json(), fc.constantFrom("", '{"q', '{"q":"\\udead"}')),
  });
  const anyMessage: fc.Arbitrary<HistoryMessage> = fc.oneof(
    fc.record({ role: fc.constant("user" as const), content: fc.string({ minLength: 1 }) }),
    fc.record({
      role: fc.constant("assistant" as const),
      content: fc.string({ unit: "binary" }),
      toolCalls: fc.array(anyCall, { maxLength: 4 }),
    }),
    fc.record({ role: fc.constant("tool" as const), content: fc.string(), toolCallId: ids }),
  );

  test("whatever is stored, a strict provider takes it", () => {
    fc.assert(
      fc.property(fc.array(anyMessage, { maxLength: 30, size: "max" }), (past) => {
        // A turn answers a question, so that every history ends with one.
        const history: HistoryMessage[] = [...past, { role: "user", content: "and now?" }];
        expect(historyFault(toChatMessages(history).map(record))).toBeNull();
      }),
      { numRuns: 1_000 },
    );
  });
});
