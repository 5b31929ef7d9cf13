/**
 * From the bytes of a chat completion stream to deltas and, at its end, what it came to. Framing is
 * the library's; nothing here depends on how the network split the bytes.
 */
import { createParser } from "eventsource-parser";
import { KIB, MIB } from "../core/bytes";
import type { ErrorCode } from "../errors/table";
import {
  CHAT_ENDINGS,
  type ChatDelta,
  type ChatEnding,
  type ChatEndingKind,
  type ChatUsage,
  type ToolCall,
} from "./chat";
import { asArray, asNumber, asObject, asText, type Json, parseJson } from "./json";
import { codeOutcome, upstreamCode } from "./outcome";

/** Longest single frame, in characters. */
export const FRAME_CHARS_MAX = MIB;

/** Tool calls in one answer, beyond which the rest is ignored. */
export const TOOL_CALLS_MAX = 32;

/** Longest arguments of one call, in characters, beyond which the answer is cut as faulty. */
export const TOOL_ARGUMENTS_CHARS_MAX = 32 * KIB;

/** Longest name, id or other word of the provider; a longer one is none. */
const WORD_CHARS_MAX = 256;

/** Why reading stopped, as the reader saw it. */
export type Stop = "done" | "eof" | "idle_timeout" | "total_timeout" | "client_abort";

interface OpenCall {
  readonly index: number;
  readonly id: string;
  name: string;
  argumentsText: string;
}

interface Fault {
  readonly kind: "error_in_band" | "invalid_json_chunk";
  readonly code: ErrorCode;
}

/** What an ending takes from the stream itself; the reader adds the times. */
type StreamEnding = Omit<ChatEnding, "latencyMs" | "firstTokenMs">;

export interface ChatFrames {
  /** Feeds decoded text and returns what it completes. */
  push(text: string): ChatDelta[];
  /** True once nothing that follows can matter: `[DONE]` or a fault came. */
  readonly over: boolean;
  /** The ending, given why reading stopped. */
  end(stop: Stop): StreamEnding;
}

/** Starts reading one stream. */
export function chatFrames(): ChatFrames {
  const frames: string[] = [];
  const answer = new Answer();
  const parser = createParser({
    onEvent: (event) => frames.push(event.data),
    onError: (error) => {
      // Fields that the standard does not know are to be ignored; a frame without end is not.
      if (error.type === "max-buffer-size-exceeded") answer.breakOff();
    },
    maxBufferSize: FRAME_CHARS_MAX,
  });
  return {
    push(text) {
      if (!answer.over) parser.feed(text);
      return frames.splice(0).flatMap((frame) => answer.read(frame));
    },
    get over() {
      return answer.over;
    },
    end: (stop) => answer.end(stop),
  };
}

/** The answer as far as it has come. */
class Answer {
  over = false;
  private fault: Fault | null = null;
  private finishReason: string | null = null;
  private usage: ChatUsage | null = null;
  private model: string | null = null;
  private textSeen = false;
  private readonly calls = new Map<number, OpenCall>();

  read(frame: string): ChatDelta[] {
    if (this.over) return [];
    if (frame.trim() === "[DONE]") {
      this.over = true;
      return [];
    }
    const chunk = asObject(parseJson(frame));
    if (chunk === null) {
      this.breakOff();
      return [];
    }
    this.model = asWord(chunk["model"]) ?? this.model;
    const choice = asObject(asArray(chunk["choices"])[0]);
    const deltas = choice === null ? [] : this.readChoice(choice);
    deltas.push(...this.readUsage(chunk["usage"]));
    const error = asObject(chunk["error"]) ?? asObject(choice?.["error"]);
    // An error frame closes the stream whatever its other fields say.
    if (error !== null || this.finishReason === "error") this.fail(error);
    return deltas;
  }

  breakOff(): void {
    this.over = true;
    this.fault ??= { kind: "invalid_json_chunk", code: CHAT_ENDINGS.invalid_json_chunk.code };
  }

  end(stop: Stop): StreamEnding {
    const kind = this.endingKind(stop);
    const fault = this.fault?.kind === kind ? this.fault.code : null;
    return {
      kind,
      outcome: fault === null ? CHAT_ENDINGS[kind].outcome : codeOutcome(fault),
      code: fault ?? CHAT_ENDINGS[kind].code,
      finishReason: this.finishReason,
      toolCalls: kind === "tool_calls" ? [...this.calls.values()].map(parseCall) : [],
      usage: this.usage,
      model: this.model,
      visible: this.textSeen || this.calls.size > 0,
    };
  }

  private endingKind(stop: Stop): ChatEndingKind {
    if (this.fault !== null) return this.fault.kind;
    // A finish reason is the provider's word that the answer is whole; what follows is accounting,
    // so neither silence nor an abort after it takes anything from the answer.
    if (this.finishReason === null)
      return stop === "done" || stop === "eof" ? "eof_without_finish_reason" : stop;
    if (this.finishReason === "length" || this.finishReason === "content_filter")
      return this.finishReason;
    // Some models end a tool call with "stop".
    if (this.calls.size > 0) return "tool_calls";
    return this.textSeen ? "completed" : "empty_success";
  }

  private readChoice(choice: Json): ChatDelta[] {
    const deltas: ChatDelta[] = [];
    const delta = asObject(choice["delta"]);
    const reasoning = asText(delta?.["reasoning"]) ?? asText(delta?.["reasoning_content"]);
    if (reasoning !== null) deltas.push({ kind: "reasoning", text: reasoning });
    const text = asText(delta?.["content"]);
    if (text !== null) {
      this.textSeen = true;
      deltas.push({ kind: "text", text });
    }
    for (const call of asArray(delta?.["tool_calls"])) {
      const part = asObject(call);
      if (part !== null) deltas.push(...this.readCall(part));
    }
    this.finishReason = asWord(choice["finish_reason"]) ?? this.finishReason;
    return deltas;
  }

  private readCall(part: Json): ChatDelta[] {
    const fn = asObject(part["function"]);
    const name = asWord(fn?.["name"]);
    const id = asWord(part["id"]);
    const index = asNumber(part["index"]) ?? this.indexOf(id);
    const deltas: ChatDelta[] = [];
    let call = this.calls.get(index);
    if (call === undefined) {
      // A part of a call whose start never came cannot be run; nor can a call beyond the bound.
      if (name === null || this.calls.size >= TOOL_CALLS_MAX) return [];
      call = { index, id: id ?? `call_${index}`, name, argumentsText: "" };
      this.calls.set(index, call);
      deltas.push({ kind: "tool_call_start", index, id: call.id, name });
    }
    const argumentsText = asText(fn?.["arguments"]);
    if (argumentsText !== null) {
      if (call.argumentsText.length + argumentsText.length > TOOL_ARGUMENTS_CHARS_MAX) {
        this.breakOff();
        return deltas;
      }
      call.argumentsText += argumentsText;
      deltas.push({ kind: "tool_call_delta", index, id: call.id, argumentsText });
    }
    return deltas;
  }

  /** For providers that send no index: a new id opens the next call, anything else continues. */
  private indexOf(id: string | null): number {
    const known = [...this.calls.values()];
    const same = id === null ? known.at(-1) : known.find((call) => call.id === id);
    return same?.index ?? known.length;
  }

  private readUsage(value: unknown): ChatDelta[] {
    const usage = parseUsage(value);
    if (usage === null) return [];
    this.usage = usage;
    return [{ kind: "usage", usage }];
  }

  private fail(error: Json | null): void {
    this.over = true;
    this.fault = { kind: "error_in_band", code: inBandCode(error) };
  }
}

function asWord(value: unknown): string | null {
  const text = asText(value);
  return text === null || text.length > WORD_CHARS_MAX ? null : text;
}

function parseCall(call: OpenCall): ToolCall {
  // A tool without parameters is often called with no arguments at all.
  const parsed = call.argumentsText.trim() === "" ? {} : parseJson(call.argumentsText);
  return { ...call, arguments: asObject(parsed) };
}

function parseUsage(value: unknown): ChatUsage | null {
  const usage = asObject(value);
  if (usage === null) return null;
  const promptTokens = count(usage["prompt_tokens"]);
  const completionTokens = count(usage["completion_tokens"]);
  return {
    promptTokens,
    completionTokens,
    totalTokens: asNumber(usage["total_tokens"]) ?? promptTokens + completionTokens,
    cachedTokens: count(asObject(usage["prompt_tokens_details"])?.["cached_tokens"]),
    reasoningTokens: count(asObject(usage["completion_tokens_details"])?.["reasoning_tokens"]),
    cost: asNumber(usage["cost"]),
  };
}

function count(value: unknown): number {
  return Math.max(0, asNumber(value) ?? 0);
}

/**
 * The code of an error that came with status 200: in its frame is an HTTP status, or a word where
 * the error of the provider behind the provider is passed on.
 */
export function inBandCode(error: Json | null): ErrorCode {
  const code = error?.["code"] ?? error?.["type"];
  const status = typeof code === "string" && /^\d{3}$/.test(code) ? Number(code) : code;
  if (typeof status === "number") return upstreamCode(status);
  if (status === "rate_limit_exceeded") return "upstream_rate_limited";
  if (status === "insufficient_quota") return "upstream_quota_exceeded";
  if (status === "server_error" || status === "overloaded_error") return "upstream_unavailable";
  return CHAT_ENDINGS.error_in_band.code;
}
