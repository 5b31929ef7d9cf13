/**
 * From the bytes of a chat completion stream to deltas and, at its end, what it came to. Framing is
 * the library's; nothing here depends on how the network split the bytes.
 */
import { createParser, type EventSourceMessage } from "eventsource-parser";
import { MIB } from "../core/bytes";
import { wellFormed } from "../core/wellFormed";
import type { ErrorCode } from "../errors/table";
import {
  CHAT_ENDINGS,
  type ChatDelta,
  type ChatEnding,
  type ChatEndingKind,
  type ChatUsage,
} from "./chat";
import { deltaText } from "./deltaText";
import { asArray, asNumber, asObject, asText, type Json, parseJson } from "./json";
import { codeOutcome, upstreamCode } from "./outcome";
import { StateParts } from "./providerState";
import { callParts, ToolCallParts } from "./toolCallParts";

/** Longest single frame, in characters. */
export const FRAME_CHARS_MAX = MIB;

/** Longest word of the provider, such as a model or a finish reason; a longer one is none. */
const WORD_CHARS_MAX = 256;

/** Why reading stopped, as the reader saw it. */
export type Stop = "done" | "eof" | "idle_timeout" | "total_timeout" | "client_abort";

interface Fault {
  readonly kind: "error_in_band" | "invalid_json_chunk";
  readonly code: ErrorCode;
}

/** What an ending takes from the stream itself; the reader adds the times. */
type StreamEnding = Omit<ChatEnding, "latencyMs" | "firstTokenMs">;

export interface ChatFrames {
  /** Feeds decoded text and returns what it completes. */
  push(text: string): ChatDelta[];
  /** Nothing more comes: reads what stands there without the blank line that ends a frame. */
  flush(): ChatDelta[];
  /** True once nothing that follows can matter: `[DONE]` or a fault came. */
  readonly over: boolean;
  /** The ending, given why reading stopped. */
  end(stop: Stop): StreamEnding;
}

/**
 * Starts reading one stream. With the names of the tools that may be called, a name that comes in
 * pieces is put together.
 */
export function chatFrames(toolNames: readonly string[] | null = null): ChatFrames {
  const frames: EventSourceMessage[] = [];
  const answer = new Answer(toolNames);
  const parser = createParser({
    onEvent: (event) => frames.push(event),
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
    flush() {
      if (answer.over) return [];
      parser.feed("\n\n");
      // A frame that broke off in the middle says nothing; that the stream ended early is told by
      // the finish reason that is missing.
      const whole = frames.splice(0).filter(({ data }) => !isBroken(data));
      return whole.flatMap((frame) => answer.read(frame));
    },
    get over() {
      return answer.over;
    },
    end: (stop) => answer.end(stop),
  };
}

const isDone = (data: string): boolean => data.trim() === "[DONE]";
const isObject = (data: string): boolean => asObject(parseJson(data)) !== null;
/** Neither one frame nor several that arrived as one. */
const isBroken = (data: string): boolean =>
  !isObject(data) && data.split("\n").some((line) => !isDone(line) && !isObject(line));

/** The answer as far as it has come. */
class Answer {
  over = false;
  private fault: Fault | null = null;
  private finishReason: string | null = null;
  private usage: ChatUsage | null = null;
  private model: string | null = null;
  private textSeen = false;
  private readonly calls: ToolCallParts;
  private readonly state = new StateParts();

  constructor(toolNames: readonly string[] | null) {
    this.calls = new ToolCallParts(toolNames);
  }

  read({ data, event }: Pick<EventSourceMessage, "data" | "event">): ChatDelta[] {
    if (this.over) return [];
    if (isDone(data)) {
      this.over = true;
      return [];
    }
    // Providers and proxies keep a stream alive with events of their own, empty or of a few words.
    if (!data.trimStart().startsWith("{")) return [];
    const chunk = asObject(parseJson(data));
    if (chunk !== null) return this.readChunk(chunk, event === "error");
    // Some leave the blank line between two frames out, so that they arrive as one.
    const lines = data.split("\n");
    if (lines.length > 1 && lines.every((line) => isDone(line) || isObject(line)))
      return lines.flatMap((line) => this.read({ data: line, event }));
    this.breakOff();
    return [];
  }

  breakOff(): void {
    this.over = true;
    this.fault ??= { kind: "invalid_json_chunk", code: CHAT_ENDINGS.invalid_json_chunk.code };
  }

  end(stop: Stop): StreamEnding {
    const kind = this.endingKind(stop);
    const fault = this.fault?.kind === kind ? this.fault.code : null;
    const isCalls = kind === "tool_calls";
    return {
      kind,
      outcome: fault === null ? CHAT_ENDINGS[kind].outcome : codeOutcome(fault),
      code: fault ?? CHAT_ENDINGS[kind].code,
      finishReason: this.finishReason,
      toolCalls: isCalls ? this.calls.whole() : [],
      state: isCalls ? this.state.whole() : null,
      usage: this.usage,
      model: this.model,
      visible: this.textSeen || this.calls.named > 0,
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
    if (this.calls.named > 0) return "tool_calls";
    return this.textSeen ? "completed" : "empty_success";
  }

  private readChunk(chunk: Json, isError: boolean): ChatDelta[] {
    this.model = asWord(chunk["model"]) ?? this.model;
    const choice = asObject(asArray(chunk["choices"])[0]);
    const deltas = choice === null ? [] : this.readChoice(choice);
    deltas.push(...this.readUsage(chunk["usage"]));
    const error = errorIn(chunk) ?? (choice === null ? null : errorIn(choice));
    // An error frame closes the stream whatever its other fields say.
    if (error !== null || isError || this.finishReason === "error") this.fail(error ?? chunk);
    return deltas;
  }

  private readChoice(choice: Json): ChatDelta[] {
    const deltas: ChatDelta[] = [];
    const delta = this.deltaOf(choice);
    const { reasoning, text } = deltaText(delta);
    this.state.push(delta);
    if (reasoning !== "") deltas.push({ kind: "reasoning", text: reasoning });
    if (text !== "") {
      this.textSeen = true;
      deltas.push({ kind: "text", text });
    }
    deltas.push(...this.calls.push(callParts(delta)));
    if (this.calls.overflowed) this.breakOff();
    this.finishReason = asWord(choice["finish_reason"]) ?? this.finishReason;
    if (this.finishReason !== null) deltas.push(...this.calls.finish());
    return deltas;
  }

  /** Some send the answer as one message; after deltas it only repeats them. */
  private deltaOf(choice: Json): Json | null {
    const delta = asObject(choice["delta"]);
    const isFirst = !this.textSeen && this.calls.named === 0;
    return delta ?? (isFirst ? asObject(choice["message"]) : null);
  }

  private readUsage(value: unknown): ChatDelta[] {
    const usage = parseUsage(value);
    if (usage === null) return [];
    this.usage = usage;
    return [{ kind: "usage", usage }];
  }

  private fail(error: Json): void {
    this.over = true;
    this.fault = { kind: "error_in_band", code: inBandCode(error) };
  }
}

/** The error that a frame or a choice tells of, in whichever form; null where there is none. */
function errorIn(source: Json): Json | null {
  const error = source["error"];
  if (source["object"] === "error" || source["type"] === "error") return asObject(error) ?? source;
  // Fields that are always there say "no error" in a few ways.
  if (error === undefined || error === null || error === false || error === "" || error === 0)
    return null;
  const told = typeof error === "string" ? parseJson(error) : error;
  return asObject(told) ?? { message: error };
}

function asWord(value: unknown): string | null {
  const text = asText(value);
  // It is stored, and no store holds half a character.
  return text === null || text.length > WORD_CHARS_MAX ? null : wellFormed(text);
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
