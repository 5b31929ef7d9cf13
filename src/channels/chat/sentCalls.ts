/**
 * Tool calls in the form in which a provider may be sent them again. A provider that finds one call
 * in a history with another form than its own refuses the request, and all later ones of the thread.
 */
import type { ChatMessage, ProviderState, SentCall } from "../../providers/chat";
import { argumentsToSend } from "../../providers/toolArguments";
import { wellFormed } from "../../core/wellFormed";

/** Longest name that all providers take. */
const NAME_CHARS_MAX = 64;

export interface CallToSend {
  readonly id: string;
  readonly name: string;
  /** As the model wrote them, be it JSON or not. */
  readonly argumentsText: string;
  readonly extra?: Readonly<Record<string, unknown>>;
  /** What the model is told of it. */
  readonly result: string;
}

/** One answer that called tools, followed by the results: each call answered once, in its order. */
export function sentCalls(
  content: string,
  calls: readonly CallToSend[],
  state: ProviderState | null = null,
): ChatMessage[] {
  return [
    { role: "assistant", content: saidOf(content), ...state, tool_calls: calls.map(sentCall) },
    ...calls.map(({ id, result }): ChatMessage => ({
      role: "tool",
      tool_call_id: id,
      content: result.trim() === "" ? NO_RESULT : wellFormed(result),
    })),
  ];
}

const NO_RESULT = "(no result)";

/** A text of nothing but spaces says nothing, and some providers refuse it. */
const saidOf = (content: string): string | null => (content.trim() === "" ? null : content);

function sentCall({ argumentsText, extra, id, name }: CallToSend): SentCall {
  const call = { name: sentName(name), arguments: argumentsToSend(argumentsText) };
  const own = typeof extra?.["function"] === "object" ? extra["function"] : {};
  return { ...extra, id, type: "function", function: { ...own, ...call } };
}

/** A name that a model made up may hold characters that no provider takes back. */
function sentName(name: string): string {
  return name.replace(/[^A-Za-z0-9_-]/g, "_").slice(0, NAME_CHARS_MAX) || "unknown";
}
