/** The shapes of a streamed chat answer. Types and data only: transactions may import them. */
import type { ErrorCode } from "../errors/table";
import type { Outcome } from "./outcome";

export type ChatMessage =
  | { readonly role: "system"; readonly content: string }
  | { readonly role: "user"; readonly content: string }
  | ({
      readonly role: "assistant";
      readonly content: string | null;
      readonly tool_calls?: readonly SentCall[];
    } & ProviderState)
  | { readonly role: "tool"; readonly tool_call_id: string; readonly content: string };

/** A call as it is sent back to the model; fields of the provider's own may stand beside these. */
export interface SentCall {
  readonly id: string;
  readonly type: "function";
  readonly function: { readonly name: string; readonly arguments: string };
}

/**
 * What a provider wants back unread with the results of its calls, in the fields in which it came.
 * Opaque, and of no use beyond the turn: it is never stored.
 */
export interface ProviderState {
  readonly reasoning_details?: readonly Readonly<Record<string, unknown>>[];
  readonly reasoning_content?: string;
  readonly reasoning?: string;
}

/** A tool as the model is told of it, in OpenAI's shape. */
export interface ToolDefinition {
  readonly type: "function";
  readonly function: {
    readonly name: string;
    readonly description: string;
    /** JSON Schema of the arguments. */
    readonly parameters: Readonly<Record<string, unknown>>;
  };
}

/** What one part of the stream adds. The index of a call is its place in the answer, from 0. */
export type ChatDelta =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "reasoning"; readonly text: string }
  | {
      readonly kind: "tool_call_start";
      readonly index: number;
      readonly id: string;
      readonly name: string;
    }
  | {
      readonly kind: "tool_call_delta";
      readonly index: number;
      readonly id: string;
      readonly argumentsText: string;
    }
  | { readonly kind: "usage"; readonly usage: ChatUsage };

/** Counts as the provider reported them. */
export interface ChatUsage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly totalTokens: number;
  readonly cachedTokens: number;
  readonly reasoningTokens: number;
  /** In the provider's credits; null when it reported none. */
  readonly cost: number | null;
}

/** A whole tool call; only endings of kind `tool_calls` carry any. */
export interface ToolCall {
  readonly index: number;
  readonly id: string;
  readonly name: string;
  readonly argumentsText: string;
  /** The parsed arguments; null when the model wrote something that is no JSON object. */
  readonly arguments: Readonly<Record<string, unknown>> | null;
  /** Fields of the provider's own that go back with the call; absent where there are none. */
  readonly extra?: Readonly<Record<string, unknown>>;
}

interface EndingPolicy {
  /** How it counts for the breaker and the metrics. */
  readonly outcome: Outcome["kind"];
  /** What the caller is told; null where nothing went wrong. */
  readonly code: ErrorCode | null;
}

/** The eleven ways in which a stream ends. A 200 is not yet a success. */
export const CHAT_ENDINGS = {
  completed: { outcome: "success", code: null },
  length: { outcome: "success", code: null },
  content_filter: { outcome: "success", code: null },
  tool_calls: { outcome: "success", code: null },
  error_in_band: { outcome: "failure", code: "upstream_error" },
  eof_without_finish_reason: { outcome: "failure", code: "upstream_error" },
  idle_timeout: { outcome: "failure", code: "upstream_timeout" },
  total_timeout: { outcome: "failure", code: "upstream_timeout" },
  client_abort: { outcome: "neutral", code: null },
  invalid_json_chunk: { outcome: "failure", code: "upstream_error" },
  empty_success: { outcome: "failure", code: "upstream_error" },
} as const satisfies Record<string, EndingPolicy>;

export type ChatEndingKind = keyof typeof CHAT_ENDINGS;

export interface ChatEnding {
  readonly kind: ChatEndingKind;
  readonly outcome: Outcome["kind"];
  /** Of the taxonomy; null where nothing went wrong. For an error in band, by its own code. */
  readonly code: ErrorCode | null;
  /** The provider's own word, verbatim; null when none came. */
  readonly finishReason: string | null;
  readonly toolCalls: readonly ToolCall[];
  /** What goes back to the provider with the results of the calls; null where nothing has to. */
  readonly state: ProviderState | null;
  /** Null when no usage frame came: the caller estimates and says so. */
  readonly usage: ChatUsage | null;
  /** The model that answered, as the provider names it. */
  readonly model: string | null;
  /** Whether any text or tool call was yielded: after that there is no fallback. */
  readonly visible: boolean;
  readonly latencyMs: number;
  /** From the request to the first text, reasoning or tool call; null when none came. */
  readonly firstTokenMs: number | null;
}
