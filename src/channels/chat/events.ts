import type { ErrorCode } from "../../errors/table";

/** Token and cost counts of a turn, in the names of the provider's usage frame. */
export interface UsageCounts {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly cached_tokens: number;
  readonly reasoning_tokens: number;
  /** US dollars; null where the provider reported none. */
  readonly cost: number | null;
}

/** Everything a chat stream can say, one JSON object per frame. */
export type ChatEvent =
  | {
      readonly type: "start";
      readonly threadId: string;
      readonly messageId: string;
      readonly streamId: string;
    }
  | {
      readonly type: "provider-route";
      readonly providerId: string;
      readonly routeId: "primary" | "secondary";
      readonly modelClass: string;
    }
  | { readonly type: "content"; readonly content: string }
  | { readonly type: "reasoning"; readonly content: string }
  | {
      readonly type: "tool-input-start";
      readonly toolCallId: string;
      readonly toolName: string;
      readonly state: "streaming";
    }
  | {
      readonly type: "tool-input-delta";
      readonly toolCallId: string;
      readonly inputTextDelta: string;
      readonly argsSnapshot: string;
    }
  | {
      readonly type: "tool-input-available";
      readonly toolCallId: string;
      readonly toolName: string;
      readonly input: unknown;
      readonly state: "completed";
    }
  | {
      readonly type: "tool-output-partially-available";
      readonly toolCallId: string;
      readonly toolName: string;
      readonly output: unknown;
      /** True where an older stored result stands in for one that could not be had, or there is none. */
      readonly degraded: boolean;
    }
  | {
      readonly type: "tool-backpressure";
      readonly toolName: string;
      readonly reason: "queue_saturated" | "queue_timeout" | "dead_letter";
      readonly retryable: true;
      readonly retryAfterMs: number;
    }
  | {
      readonly type: "usage";
      readonly usage: UsageCounts;
      readonly estimated: boolean;
      readonly metrics: {
        readonly latencyMs: number;
        readonly ttftMs: number | null;
        readonly modelId: string;
        readonly finishReason: string;
      };
    }
  | {
      readonly type: "error";
      readonly error: string;
      readonly code: ErrorCode;
      readonly retryable: boolean;
      readonly retryAfterMs?: number;
    }
  | { readonly type: "aborted" }
  | { readonly type: "done"; readonly finishReason: string };

export type TerminalEvent = Extract<ChatEvent, { type: "error" | "aborted" | "done" }>;

/**
 * Characters at which readers of lines in some languages end a line, although only CR and LF end one
 * in an event stream: Python's `splitlines`, on which its HTTP clients rely, is the best known.
 * JSON escapes the others of that list itself.
 */
const LINE_ENDS = /[\u0085\u2028\u2029]/g;

/** The text of one frame's `data`, exactly as stored and sent. */
export const frameData = (event: ChatEvent): string =>
  // They stand within JSON strings only, so an escape means the same.
  JSON.stringify(event).replace(
    LINE_ENDS,
    (end) => `\\u${end.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

/**
 * One server-sent event. An id says that this frame and all before it are stored: a client that
 * reconnects with it misses nothing and sees nothing twice.
 */
export function encodeFrame(data: string, id: number | null): string {
  return id === null ? `data: ${data}\n\n` : `id: ${id}\ndata: ${data}\n\n`;
}

/**
 * Keeps intermediaries from closing a silent stream; parsers ignore comments. No blank line follows:
 * some clients take one for the end of an event, and find no JSON in it.
 */
export const KEEP_ALIVE = ": keep-alive\n";
