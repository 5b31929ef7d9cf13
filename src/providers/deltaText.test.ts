import { expect, test } from "vitest";
import { deltaText } from "./deltaText";

const text = (said: string) => ({ text: said, reasoning: "" });

test.each<[Record<string, unknown>, { text: string; reasoning: string }]>([
  [{}, text("")],
  [{ content: null }, text("")],
  [{ content: "Bonjour" }, text("Bonjour")],
  [
    {
      content: [
        { type: "text", text: "Bon" },
        { type: "output_text", text: "jour" },
      ],
    },
    text("Bonjour"),
  ],
  [{ content: ["Bon", "jour"] }, text("Bonjour")],
  [{ content: { type: "text", text: "Bonjour" } }, text("Bonjour")],
  [{ content: [{ type: "text", text: { value: "Bonjour", annotations: [] } }] }, text("Bonjour")],
  [{ content: [{ type: "image_url", image_url: { url: "x" } }] }, text("")],
  [{ content: 7 }, text("")],
  [{ content: null, refusal: "No." }, text("No.")],
  [{ reasoning: "hm" }, { text: "", reasoning: "hm" }],
  [{ reasoning_content: "hm" }, { text: "", reasoning: "hm" }],
  [
    { reasoning_details: [{ type: "reasoning.text", text: "hm" }, { data: "x" }] },
    { text: "", reasoning: "hm" },
  ],
  [
    {
      content: [
        { type: "thinking", thinking: [{ type: "text", text: "hm" }] },
        { type: "text", text: "so" },
      ],
    },
    { text: "so", reasoning: "hm" },
  ],
  [{ content: [{ type: "reasoning", text: "hm" }] }, { text: "", reasoning: "hm" }],
])("%j", (delta, said) => {
  expect(deltaText(delta)).toEqual(said);
});

test("parts within parts end", () => {
  let content: unknown = { type: "text", text: "deep" };
  for (let i = 0; i < 10_000; i++) content = { type: "text", content };
  expect(deltaText({ content })).toEqual(text(""));
});
