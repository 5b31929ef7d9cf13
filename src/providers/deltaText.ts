/** The text and reasoning of one delta, in whichever form a provider gives them. */
import { asArray, asObject, asText, type Json } from "./json";

/** Parts of a content; a provider that sends more is not answering. */
const PARTS_MAX = 1_000;
/** Parts within parts, as reasoning comes from some. */
const DEPTH_MAX = 4;

export interface DeltaText {
  readonly text: string;
  readonly reasoning: string;
}

/** What a delta says. Empty where it says nothing. */
export function deltaText(delta: Json | null): DeltaText {
  if (delta === null) return { text: "", reasoning: "" };
  const content = saidIn(delta["content"], "text");
  // A refusal is an answer too, which some models give in a field of its own.
  const text = content.text + (asText(delta["refusal"]) ?? "");
  return { text, reasoning: reasoningOf(delta) + content.reasoning };
}

/** Reasoning comes under two names, and by some models within the details alone. */
function reasoningOf(delta: Json): string {
  const plain = asText(delta["reasoning"]) ?? asText(delta["reasoning_content"]);
  if (plain !== null) return plain;
  return asArray(delta["reasoning_details"])
    .slice(0, PARTS_MAX)
    .map((detail) => asText(asObject(detail)?.["text"]) ?? asText(asObject(detail)?.["summary"]))
    .join("");
}

/** The texts in a content: a string, one part, or parts, of which those that think are reasoning. */
function saidIn(content: unknown, as: keyof DeltaText, depth = 0): DeltaText {
  if (typeof content === "string")
    return as === "text" ? { text: content, reasoning: "" } : { text: "", reasoning: content };
  const part = asObject(content);
  if (depth > DEPTH_MAX) return { text: "", reasoning: "" };
  if (part !== null) return saidInPart(part, as, depth);
  const said = asArray(content)
    .slice(0, PARTS_MAX)
    .map((one) => saidIn(one, as, depth + 1));
  return {
    text: said.map(({ text }) => text).join(""),
    reasoning: said.map(({ reasoning }) => reasoning).join(""),
  };
}

function saidInPart(part: Json, as: keyof DeltaText, depth: number): DeltaText {
  const thought = part["thinking"] ?? part["reasoning"];
  if (thought !== undefined) return saidIn(thought, "reasoning", depth + 1);
  const isThought = /^(thinking|reasoning)/.test(asText(part["type"]) ?? "");
  const said = part["text"] ?? part["content"] ?? part["refusal"] ?? part["value"];
  return saidIn(said, isThought ? "reasoning" : as, depth + 1);
}
