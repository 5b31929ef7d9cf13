import { wellFormed } from "../../core/wellFormed";
import type { ChatMessage } from "../../providers/chat";
import { type CallToSend, sentCalls } from "./sentCalls";

/** A stored message as admission hands it on. */
export interface HistoryMessage {
  readonly role: "user" | "assistant" | "tool" | "system";
  readonly content: string;
  readonly toolCalls?: readonly StoredCall[] | undefined;
  readonly toolCallId?: string | undefined;
}

interface StoredCall {
  readonly id: string;
  readonly name: string;
  readonly arguments: string;
}

/**
 * A thread as it is sent to a model: whatever is stored, every call is answered once, right behind
 * its answer, ids are unique and arguments are JSON objects. A stored answer that called tools is
 * three things to a model: calls, results, text.
 */
export function toChatMessages(history: readonly HistoryMessage[]): ChatMessage[] {
  const ids = new SentIds();
  const messages = history.flatMap((message, index): ChatMessage[] => {
    const content = wellFormed(message.content);
    switch (message.role) {
      case "user":
      case "system":
        return [{ role: message.role, content: content.trim() === "" ? BLANK : content }];
      case "tool":
        // Sent behind the answer that asked for it, or not at all.
        return [];
      case "assistant": {
        const results = resultsAfter(history, index);
        const calls = (message.toolCalls ?? []).flatMap((call) => answered(call, results, ids));
        const isSaid = content.trim() !== "";
        if (calls.length === 0) return isSaid ? [{ role: "assistant", content }] : [];
        // What tools said is answered, or some providers take no question after it.
        const said = isSaid ? content : BROKE_OFF;
        return [...sentCalls("", calls), { role: "assistant", content: said }];
      }
    }
  });
  // A history that was cut may begin with an answer, which some providers refuse.
  const first = messages.findIndex(({ role }) => role === "user" || role === "system");
  return first < 0 ? messages : messages.slice(first);
}

/** What stands for a text of nothing but spaces, which some providers refuse. */
const BLANK = "(no text)";
const BROKE_OFF = "(This answer broke off here.)";

/** Ids of calls that a turn over this history must not use again, as stored and as sent. */
export function callIdsOf(
  history: readonly HistoryMessage[],
  sent: readonly ChatMessage[],
): string[] {
  return [
    ...history.flatMap(({ toolCalls = [] }) => toolCalls.map(({ id }) => id)),
    ...sent.flatMap((message) => (message.role === "tool" ? [message.tool_call_id] : [])),
  ];
}

/** The results of one answer by call id: they are stored behind it, before the next answer. */
function resultsAfter(
  history: readonly HistoryMessage[],
  index: number,
): ReadonlyMap<string, string[]> {
  const results = new Map<string, string[]>();
  for (const { content, role, toolCallId = "" } of history.slice(index + 1)) {
    if (role === "assistant") break;
    if (role === "tool") results.set(toolCallId, [...(results.get(toolCallId) ?? []), content]);
  }
  return results;
}

/** A call with its result; nothing where the result is missing. The first of two gets the first. */
function answered(
  { arguments: argumentsText, id, name }: StoredCall,
  results: ReadonlyMap<string, string[]>,
  ids: SentIds,
): CallToSend[] {
  const result = results.get(id)?.shift();
  return result === undefined ? [] : [{ id: ids.take(id), name, argumentsText, result }];
}

/** What all providers take as an id. */
const ID = /^[A-Za-z0-9_-]{1,40}$/;

/**
 * Ids of the calls of past turns. They only join calls and results there, so one that some provider
 * would not take is replaced; by the same one each time, which keeps the beginning of the prompt as
 * it is in a provider's cache.
 */
class SentIds {
  private readonly taken = new Set<string>();
  /** How often an id was stored, so that the next of many is found at once. */
  private readonly counts = new Map<string, number>();

  take(stored: string): string {
    let nth = this.counts.get(stored) ?? 0;
    let id = nth === 0 && ID.test(stored) ? stored : madeOf(stored, nth);
    while (this.taken.has(id)) id = madeOf(stored, ++nth);
    this.counts.set(stored, nth + 1);
    this.taken.add(id);
    return id;
  }
}

const MADE_LENGTH = 9;

/** Nine letters and digits that depend on the text and the number alone (FNV-1a, 64 bits). */
function madeOf(stored: string, nth: number): string {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(`${nth}:${stored}`))
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash.toString(36).padStart(MADE_LENGTH, "0").slice(-MADE_LENGTH);
}
