import { describe, expect, test } from "vitest";
import { historyFault } from "./strictHistory";

const call = (id: string, args = "{}", name = "search_web") => ({
  id,
  type: "function",
  function: { name, arguments: args },
});
const asked = (...calls: object[]) => ({ role: "assistant", content: null, tool_calls: calls });
const result = (id: string) => ({ role: "tool", tool_call_id: id, content: "{}" });
const USER = { role: "user", content: "hi" };
const SAID = { role: "assistant", content: "so" };

describe("a strict provider", () => {
  test("takes a history in its own form", () => {
    expect(
      historyFault([USER, asked(call("a"), call("b")), result("b"), result("a"), SAID, USER]),
    ).toBeNull();
  });

  test("refuses a history that begins with an answer", () => {
    expect(historyFault([{ role: "system", content: "x" }, SAID, USER])).toMatch(/first message/);
  });

  test.each([
    ["a call that is not answered", [asked(call("a")), USER], /missing: a/],
    ["a call at the end that is not answered", [asked(call("a"))], /missing: a/],
    ["a result without a call", [USER, result("a")], /Unexpected/],
    ["a result that comes twice", [asked(call("a")), result("a"), result("a")], /Unexpected/],
    ["two calls with one id", [asked(call("a"), call("a"))], /Duplicate/],
    ["an id that comes again", [asked(call("a")), result("a"), asked(call("a"))], /Duplicate/],
    ["a call without an id", [asked(call(""))], /missing tool call id/],
    ["arguments that are cut", [asked(call("a", '{"q'))], /not a JSON object/],
    ["empty arguments", [asked(call("a", ""))], /not a JSON object/],
    ["arguments that are a list", [asked(call("a", "[]"))], /not a JSON object/],
    ["half a character", [asked(call("a", '{"q":"\\ud83e"}'))], /not Unicode/],
    ["a name that is none", [asked(call("a", "{}", "odd name!"))], /Invalid function name/],
    ["a question right after a result", [asked(call("a")), result("a"), USER], /after role tool/],
    ["white space", [{ role: "assistant", content: "\n" }], /white space/],
    ["a message that says nothing", [{ role: "assistant", content: null }], /neither/],
  ])("refuses %s", (_, history, fault) => {
    expect(historyFault([USER, ...history])).toMatch(fault);
  });
});
