import type { ChatEvent } from "../../src/channels/chat/events";

type Fields<Type extends ChatEvent["type"]> = Exclude<
  Extract<keyof Extract<ChatEvent, { type: Type }>, string>,
  "type"
>;

interface EventNote<Field extends string> {
  readonly when: string;
  /** What each field holds. */
  readonly fields: Readonly<Record<Field, string>>;
}

type EventNotes = { readonly [Type in ChatEvent["type"]]: EventNote<Fields<Type>> };

/** Words for the stream's events; an event or a field without words does not compile. */
export const CHAT_EVENTS: EventNotes = {
  start: {
    when: "First: everything needed to resume or abort.",
    fields: {
      threadId: "Thread of the turn, new or given.",
      messageId: "The assistant message being written.",
      streamId: "Names the stream for resuming and aborting.",
    },
  },
  "provider-route": {
    when: "A route was chosen.",
    fields: {
      providerId: "Provider, as in the snapshot.",
      routeId: "`primary` or `secondary`.",
      modelClass: "`fast` or `agent`.",
    },
  },
  content: { when: "Text of the answer.", fields: { content: "The next piece." } },
  reasoning: { when: "Reasoning of the model.", fields: { content: "The next piece." } },
  "tool-input-start": {
    when: "The model begins a tool call.",
    fields: {
      toolCallId: "Joins the events of one call.",
      toolName: "Tool.",
      state: "`streaming`.",
    },
  },
  "tool-input-delta": {
    when: "More of the call's arguments.",
    fields: {
      toolCallId: "The call.",
      inputTextDelta: "The next piece of JSON text.",
      argsSnapshot: "All of it so far.",
    },
  },
  "tool-input-available": {
    when: "The arguments are complete.",
    fields: {
      toolCallId: "The call.",
      toolName: "Tool.",
      input: "The parsed arguments; their text where they are not a JSON object.",
      state: "`completed`.",
    },
  },
  "tool-output-partially-available": {
    when: "The call has ended: the tool answered, a stored answer was used, or it did not run. Each call ends once.",
    fields: {
      toolCallId: "The call.",
      toolName: "Tool.",
      output: "What the model is shown.",
      degraded: "True where an older stored result stands in, or there is none.",
    },
  },
  "tool-backpressure": {
    when: "A tool could not run now; the turn goes on without it.",
    fields: {
      toolName: "Tool.",
      reason: "`queue_saturated`, `queue_timeout` or `dead_letter`.",
      retryable: "Always true.",
      retryAfterMs: "When it may be tried again, in milliseconds.",
    },
  },
  usage: {
    when: "The provider reported tokens, or they were estimated.",
    fields: {
      usage: "Token counts and cost.",
      estimated: "True where the provider reported none.",
      metrics: "Latency, time to first token, model and finish reason.",
    },
  },
  error: {
    when: "Last, where the turn failed.",
    fields: {
      error: "One sentence for people.",
      code: "A code of the error table.",
      retryable: "Whether the same turn may succeed later.",
      retryAfterMs: "When, in milliseconds, if known.",
    },
  },
  aborted: { when: "Last, where the turn was aborted.", fields: {} },
  done: { when: "Last, where the turn is complete.", fields: { finishReason: "Why it ended." } },
};
