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
      const whole = frames.splice(0).filter(({ data }) => !data.split("\n").some(isBroken));
      return whole.flatMap((frame) => answer.read(frame));
    },
    get over() {
      return answer.over;
    },
    end: (stop) => answer.end(stop),
  };
}

const isDone = (data: string): boolean => data.trim() === "[DONE]";
/** Chunks in one frame: an object, or the list of them that some proxies send. */
const asObjects = (value: unknown): Json[] =>
  (Array.isArray(value) ? asArray(value) : [value]).flatMap((one) => {
    const object = asObject(one);
    return object === null ? [] : [object];
  });
/** Half of a frame: it begins as an object, and is none. */
const isBroken = (data: string): boolean =>
  data.trimStart().startsWith("{") && asObject(parseJson(data)) === null;

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
    const value = parseJson(data);
    // An event of this name is an error in whatever words.
    if (event === "error") return this.readChunk(asObject(value) ?? { error: data }, true);
    const chunks = asObjects(value);
    if (chunks.length > 0) return chunks.flatMap((chunk) => this.readChunk(chunk, false));
    // Some leave the blank line between two frames out, so that they arrive as one.
    const lines = data.split("\n");
    if (lines.length > 1 && !lines.some(isBroken))
      return lines.flatMap((line) => this.read({ data: line, event }));
    // Providers and proxies keep a stream alive with events of their own, empty or of a few words.
    if (isBroken(data)) this.breakOff();
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
    const reason = REASONS.get(this.finishReason.toLowerCase());
    if (reason === "length" || reason === "content_filter") return reason;
    // Some models end a tool call with "stop".
    if (this.calls.named > 0) return "tool_calls";
    return this.textSeen ? "completed" : "empty_success";
  }

  private readChunk(chunk: Json, isError: boolean): ChatDelta[] {
    this.model = asWord(chunk["model"]) ?? this.model;
    // One answer is asked for: where there are two choices, some proxies put the calls into another.
    const choices = asArray(chunk["choices"]).slice(0, CHOICES_MAX).flatMap(asObjects);
    const deltas = choices.flatMap((choice) => this.readChoice(choice));
    deltas.push(...this.readUsage(chunk["usage"]));
    const errors = [chunk, ...choices].map(errorIn).filter((found) => found !== null);
    const error = errors[0] ?? null;
    const isFailed = isError || REASONS.get(this.finishReason?.toLowerCase() ?? "") === "error";
    // An error frame closes the stream whatever its other fields say.
    if (error !== null || isFailed) this.fail(error ?? chunk);
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
    if (delta !== null && Object.keys(delta).length > 0) return delta;
    return !this.textSeen && this.calls.named === 0 ? asObject(choice["message"]) : null;
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

/** Choices of one frame that are read. */
const CHOICES_MAX = 8;

/** Words of providers for endings that are none of an answer as it should be. */
const REASONS: ReadonlyMap<string, "length" | "content_filter" | "error"> = new Map([
  ["length", "length"],
  ["max_tokens", "length"],
  ["max_output_tokens", "length"],
  ["model_length", "length"],
  ["content_filter", "content_filter"],
  ["content-filter", "content_filter"],
  ["safety", "content_filter"],
  ["recitation", "content_filter"],
  ["blocklist", "content_filter"],
  ["prohibited_content", "content_filter"],
  ["spii", "content_filter"],
  ["error", "error"],
  ["malformed_function_call", "error"],
]);

/** The error that a frame or a choice tells of, in whichever form; null where there is none. */
export function errorIn(source: Json): Json | null {
  const error = source["error"];
  if (source["object"] === "error" || source["type"] === "error") return asObject(error) ?? source;
  if (saysNothing(error)) return null;
  const told = typeof error === "string" ? parseJson(error) : error;
  return asObject(told) ?? { message: error };
}

/** Whether a field that is always there says that there is no error. */
function saysNothing(error: unknown): boolean {
  if (typeof error === "string") return /^(?:|null|none|false)$/i.test(error.trim());
  if (typeof error !== "object" || error === null) return !error;
  return Object.values(error).every((value) => value === null || value === "" || value === 0);
}

function asWord(value: unknown): string | null {
  const text = asText(value);
  // It is stored, and no store holds half a character.
  return text === null || text.length > WORD_CHARS_MAX ? null : wellFormed(text);
}

/** More tokens than any request can use: beyond it a count is a mistake. */
const TOKENS_MAX = 100_000_000;
const COST_MAX = 100_000;

/** Null where nothing of it can be a count: the caller then estimates, and says so. */
function parseUsage(value: unknown): ChatUsage | null {
  const usage = asObject(value);
  const [prompt, completion, total] = ["prompt_tokens", "completion_tokens", "total_tokens"].map(
    (field) => countOf(usage?.[field]),
  );
  const known = [prompt, completion, total].filter(
    (count) => count !== undefined && count !== null,
  );
  if (usage === null || known.length === 0) return null;
  const promptTokens = prompt ?? 0;
  const completionTokens = completion ?? 0;
  const cost = numberOf(usage["cost"]);
  return {
    promptTokens,
    completionTokens,
    totalTokens: Math.max(total ?? 0, promptTokens + completionTokens),
    cachedTokens: countOf(asObject(usage["prompt_tokens_details"])?.["cached_tokens"]) ?? 0,
    reasoningTokens:
      countOf(asObject(usage["completion_tokens_details"])?.["reasoning_tokens"]) ?? 0,
    cost: cost !== null && cost >= 0 && cost <= COST_MAX ? cost : null,
  };
}

/** A count of tokens; null for what can be none, such as a negative one, which would give tokens back. */
function countOf(value: unknown): number | null {
  const count = numberOf(value);
  return count !== null && count >= 0 && count <= TOKENS_MAX ? Math.round(count) : null;
}

/** A number, also where it is written as a text. */
function numberOf(value: unknown): number | null {
  const isWritten = typeof value === "string" && /^\d{1,15}(?:\.\d{1,15})?$/.test(value);
  return asNumber(isWritten ? Number(value) : value);
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
