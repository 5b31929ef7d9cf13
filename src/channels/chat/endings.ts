import { errorData } from "../../errors/appError";
import { ERRORS, type ErrorCode } from "../../errors/table";
import type { ChatEnding, ChatEndingKind, ToolCall } from "../../providers/chat";
import { type Outcome, outcomeOfError } from "../../providers/outcome";
import type { TerminalEvent } from "./events";

/** One ending of the turn: a stream's, or our own reason to stop. */
export interface Ended {
  readonly kind: ChatEndingKind;
  readonly code: ErrorCode | null;
  readonly retryAfterMs?: number;
  readonly outcome: Outcome["kind"];
}

/** What an answer that calls no tools has of them. */
export const NO_CALLS = { toolCalls: [], state: null } as const;
/** The user asked for the end. */
export const ABORTED: Ended = { kind: "client_abort", code: null, outcome: "neutral" };
/** The turn has used its time up, on tools or on another route: whoever is next is not to blame. */
export const OUT_OF_TIME = {
  kind: "total_timeout",
  code: "upstream_timeout",
  outcome: "neutral",
  ...NO_CALLS,
} as const satisfies Ended & { toolCalls: readonly ToolCall[] };
/** An answer that says nothing. */
export const EMPTY: Ended = { kind: "empty_success", code: "upstream_error", outcome: "failure" };

/** Handed to the generator when we stop listening; nobody reads it. */
export const TOO_LONG_ENDING: ChatEnding = {
  kind: "length",
  outcome: "success",
  code: null,
  finishReason: "length",
  ...NO_CALLS,
  usage: null,
  model: null,
  visible: true,
  latencyMs: 0,
  firstTokenMs: null,
};

/** A failure before the first byte, or a fault of our own. */
export function endedBy(error: unknown): Ended {
  const { code, retryAfterMs } = errorData(error);
  const { kind: outcome } = outcomeOfError(error, 0);
  return {
    kind: code === "upstream_timeout" ? "idle_timeout" : "error_in_band",
    code,
    outcome,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  };
}

/** The event that tells a client how the turn ended. */
export function terminalOf(ended: Ended, finishReason: string | null): TerminalEvent {
  if (ended.kind === "client_abort") return { type: "aborted" };
  if (ended.code === null) return { type: "done", finishReason: finishReason ?? ended.kind };
  const { message, retryable } = ERRORS[ended.code];
  return {
    type: "error",
    error: message,
    code: ended.code,
    retryable,
    ...(ended.retryAfterMs === undefined ? {} : { retryAfterMs: ended.retryAfterMs }),
  };
}
