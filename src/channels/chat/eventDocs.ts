import type { ChatEvent } from "./events";

interface EventDoc {
  /** Fields beside `type`, in words. */
  readonly fields: string;
  readonly when: string;
}

/** What the documentation says of each event. An event without a row does not compile. */
export const CHAT_EVENT_DOCS: Readonly<Record<ChatEvent["type"], EventDoc>> = {
  start: {
    fields: "`threadId`, `messageId`, `streamId`",
    when: "first; everything needed to resume or abort",
  },
  "provider-route": {
    fields: "`providerId`, `routeId` (`primary`, `secondary`), `modelClass`",
    when: "a route is chosen, and again when the answer falls back before its first token",
  },
  content: { fields: "`content`", when: "text of the answer" },
  reasoning: { fields: "`content`", when: "reasoning of the model" },
  "tool-input-start": {
    fields: '`toolCallId`, `toolName`, `state: "streaming"`',
    when: "the model begins a tool call",
  },
  "tool-input-delta": {
    fields: "`toolCallId`, `inputTextDelta`, `argsSnapshot`",
    when: "more of its arguments",
  },
  "tool-input-available": {
    fields: '`toolCallId`, `toolName`, `input`, `state: "completed"`',
    when: "the arguments are whole",
  },
  "tool-output-partially-available": {
    fields: "`toolCallId`, `toolName`, `output`, `degraded`",
    when: "the result, from the cache or the tool; `degraded` where a source was missing",
  },
  "tool-backpressure": {
    fields:
      "`toolName`, `reason` (`queue_saturated`, `queue_timeout`, `dead_letter`), `retryable`, `retryAfterMs`",
    when: "a tool could not be run in time; the answer goes on without it",
  },
  usage: {
    fields:
      "`usage` (`prompt_tokens`, `completion_tokens`, `total_tokens`, `cached_tokens`, `reasoning_tokens`, `cost`), `estimated`, `metrics` (`latencyMs`, `ttftMs`, `modelId`, `finishReason`)",
    when: "before the terminal event, sums of the whole turn",
  },
  error: {
    fields: "`error`, `code`, `retryable`, `retryAfterMs?`",
    when: "terminal: the answer failed; what was said before it is stored",
  },
  aborted: { fields: "", when: "terminal: the user asked for the end" },
  done: {
    fields: "`finishReason` (`stop`, `length`, `content_filter`)",
    when: "terminal: the answer is complete",
  },
};

/** How a stream ended, as stored on its message, and the terminal event it ends with. */
export const CHAT_ENDING_DOCS: readonly (readonly [string, string])[] = [
  ["`completed`, `length`, `content_filter`", "`done`"],
  ["`tool_calls`", "the next request to the model; `done` where no more are allowed"],
  [
    "`error_in_band`, `eof_without_finish_reason`, `invalid_json_chunk`, `empty_success`",
    "`error`",
  ],
  ["`idle_timeout`, `total_timeout`", "`error`, code `upstream_timeout`"],
  ["`client_abort`", "`aborted`"],
  ["`worker_lost`", "`error`: the worker died and was found by its pulse"],
];
