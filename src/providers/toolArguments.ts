/** Arguments of a tool call as a model writes them: JSON text, or what it took for that. */
import { nestsDeeper, withoutEscapedHalves } from "../core/jsonText";
import { wellFormed } from "../core/wellFormed";
import { asObject, type Json, parseJson } from "./json";

/** Nesting that no tool of ours reads, and that every later step can walk. */
const ARGUMENTS_DEPTH_MAX = 32;

/**
 * The arguments in a text; null where it holds no JSON object. A tool without parameters is often
 * called with no text at all, and some models write the object as a string within the JSON.
 */
export function parseArguments(argumentsText: string): Json | null {
  const text = cleaned(argumentsText);
  if (text.trim() === "") return {};
  const value = parseBounded(text);
  return asObject(typeof value === "string" ? parseBounded(cleaned(value)) : value);
}

/**
 * The arguments in the form in which they may be sent to a provider again: always the JSON text of
 * an object, since a provider that finds anything else in a history refuses all of it.
 */
export function argumentsToSend(argumentsText: string): string {
  const args = parseArguments(argumentsText);
  if (args === null) return "{}";
  const text = cleaned(argumentsText);
  // Unchanged where possible: the provider then finds the beginning of the prompt in its cache.
  return asObject(parseBounded(text)) === null ? JSON.stringify(args) : text;
}

function parseBounded(text: string): unknown {
  return nestsDeeper(text, ARGUMENTS_DEPTH_MAX) ? undefined : parseJson(text);
}

/** Half of a surrogate pair has no UTF-8 form; providers refuse it, escaped or not. */
const cleaned = (text: string): string => withoutEscapedHalves(wellFormed(text));
