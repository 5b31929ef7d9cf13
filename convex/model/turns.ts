import type { FunctionReference } from "convex/server";
import { type Infer, v } from "convex/values";
import { frameData, type TerminalEvent } from "../../src/channels/chat/events";
import { KIB, utf8Bytes } from "../../src/core/bytes";
import { beginningOf } from "../../src/core/wellFormed";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import * as Admission from "./admission";
import * as Budgets from "./budgets";
import { storedToolCall, usage } from "./chatTables";
import * as Claims from "./claims";
import * as Metrics from "./metrics";
import { outcomeKind } from "./permit";
import * as Streams from "./streams";
import * as CacheCounts from "./toolCacheCounts";
import { cacheUse } from "./toolTables";

/** Scope of the idempotency keys that callers send with a chat turn, one per user. */
export const chatScope = (userId: string): string => `chat:${userId}`;

/** Where chat turns are counted, whichever way they came in. */
const CHAT_METRIC = "route:chatPost";
/** How a turn counts for its user, for whom any error is one. */
const METRIC_OUTCOMES = { completed: "success", error: "failure", aborted: "neutral" } as const;

export const toolResult = v.object({
  toolCallId: v.string(),
  name: v.string(),
  content: v.string(),
});

/** How a turn ended: what settlement writes. */
export const settlement = v.object({
  status: v.union(v.literal("completed"), v.literal("error"), v.literal("aborted")),
  content: v.string(),
  reasoning: v.string(),
  toolCalls: v.array(storedToolCall),
  toolResults: v.array(toolResult),
  /** What the tool cache was to the turn; nothing for one that called no tools. */
  cacheUse: v.optional(v.array(cacheUse)),
  ending: v.string(),
  errorCode: v.optional(v.string()),
  /** The model that answered; absent where none is known to have. */
  modelId: v.optional(v.string()),
  usage,
  outcome: outcomeKind,
  /** How often the route was asked, retries included; absent for once. */
  attempts: v.optional(v.number()),
  /** Whether any token was seen: a failure before the first gives the idempotency key back. */
  visible: v.boolean(),
  /** From the first request on the route to its first token; without one, to the end. */
  latencyMs: v.number(),
});
export type Settlement = Infer<typeof settlement>;

type Session = Doc<"streamSessions">;

/** Whether this worker still owns the stream: nothing has ended it in the meantime. */
export const isLive = (session: Session | null): session is Session =>
  session?.status === "streaming";

/** Stores what was said since the last time, and says whether to go on. */
export async function progress(
  ctx: MutationCtx,
  session: Session,
  frames: string[],
  nowMs: number,
): Promise<{ readonly abort: boolean }> {
  const appended = await Streams.append(ctx, session, frames);
  await ctx.db.patch("streamSessions", session._id, { ...appended, lastHeartbeatAt: nowMs });
  if (session.permit !== undefined) await Admission.renewProvider(ctx, session.permit, nowMs);
  return { abort: session.abortRequestedAt !== undefined };
}

interface TurnEnd {
  readonly frames: string[];
  readonly result: Settlement;
  /** The reaper that ends a turn is running: only a waiting one is cancelled. */
  readonly reaper: "waiting" | "running";
}

/** Ends a turn in one transaction: frames, message, slot, breaker, budget, claim and thread. */
export async function settle(
  ctx: MutationCtx,
  session: Session,
  { frames, result, reaper }: TurnEnd,
  nowMs: number,
): Promise<void> {
  const appended = await Streams.append(ctx, session, frames);
  await ctx.db.patch("streamSessions", session._id, {
    ...appended,
    status: result.status,
    endedAt: nowMs,
    lastHeartbeatAt: nowMs,
    permit: undefined,
    reaperId: undefined,
    ending: result.ending,
    ...(result.errorCode === undefined ? {} : { errorCode: result.errorCode }),
  });
  if (reaper === "waiting" && session.reaperId !== undefined)
    await ctx.scheduler.cancel(session.reaperId);
  await writeMessage(ctx, session, fitted(result));
  await CacheCounts.recordUse(ctx, result.cacheUse ?? [], nowMs);
  await Metrics.record(ctx, {
    key: CHAT_METRIC,
    outcome: METRIC_OUTCOMES[result.status],
    latencyMs: nowMs - session.startedAt,
    degraded: (result.cacheUse ?? []).some(({ degraded }) => degraded > 0),
    nowMs,
  });
  if (session.permit !== undefined)
    await Admission.settleProvider(
      ctx,
      session.permit,
      {
        outcome: result.outcome,
        attempts: result.attempts ?? 1,
        latencyMs: result.latencyMs,
      },
      nowMs,
    );
  const spent = result.usage.totalTokens - session.reservedTokens;
  if (spent !== 0)
    await Budgets.add(ctx, { userId: session.userId, day: session.budgetDay, tokens: spent });
  if (session.claimKey !== undefined && result.status === "error" && !result.visible)
    await Claims.release(ctx, {
      scope: chatScope(session.userId),
      key: session.claimKey,
      reference: session._id,
    });
  const thread = await ctx.db.get("threads", session.threadId);
  if (thread !== null)
    await ctx.db.patch("threads", thread._id, {
      lastMessageAt: nowMs,
      ...(thread.activeStreamId === session._id ? { activeStreamId: undefined } : {}),
    });
}

/** Bytes of a message's texts, which with its other fields must stay below the platform's 1 MiB. */
const MESSAGE_BYTES_MAX = 900 * KIB;
const MESSAGE_CHARS_KEPT = 128 * KIB;

/**
 * The result as one document can hold it. The engine bounds what a turn says well below that; a turn
 * that would not fit all the same must end nevertheless, or its thread would stay busy for ever.
 */
function fitted(result: Settlement): Settlement {
  const texts = result.toolCalls.flatMap((call) => [call.id, call.name, call.arguments]);
  const bytes = [result.content, result.reasoning, ...texts].reduce(
    (sum, text) => sum + utf8Bytes(text),
    0,
  );
  if (bytes <= MESSAGE_BYTES_MAX) return result;
  const content = beginningOf(result.content, MESSAGE_CHARS_KEPT);
  return { ...result, content, reasoning: "", toolCalls: [], toolResults: [] };
}

async function writeMessage(ctx: MutationCtx, session: Session, result: Settlement): Promise<void> {
  // The thread may have been removed while it streamed; there is nothing to complete then.
  if ((await ctx.db.get("messages", session.messageId)) === null) return;
  const { content, ending, errorCode, modelId, reasoning, status, toolCalls } = result;
  await ctx.db.patch("messages", session.messageId, {
    content,
    status,
    ending,
    usage: result.usage,
    ...(modelId === undefined ? {} : { modelId }),
    ...(errorCode === undefined ? {} : { errorCode }),
    ...(reasoning === "" ? {} : { reasoningContent: reasoning }),
    ...(toolCalls.length === 0 ? {} : { toolCalls }),
  });
  for (const { toolCallId, name, content: output } of result.toolResults)
    await ctx.db.insert("messages", {
      threadId: session.threadId,
      role: "tool",
      toolCallId,
      name,
      content: output,
      streamId: session._id,
    });
}

export type Reap = FunctionReference<"mutation", "internal", { streamId: Id<"streamSessions"> }>;

/** Schedules the look at a worker's pulse; settlement cancels it, so a short turn pays nothing. */
export async function scheduleReaper(
  ctx: MutationCtx,
  reap: Reap,
  session: { readonly _id: Id<"streamSessions">; readonly lastHeartbeatAt: number },
): Promise<void> {
  const atMs = session.lastHeartbeatAt + Streams.WORKER_LEASE_MS;
  const reaperId = await ctx.scheduler.runAt(atMs, reap, { streamId: session._id });
  await ctx.db.patch("streamSessions", session._id, { reaperId });
}

const LOST = {
  type: "error",
  error: "The answer was interrupted. Please try again.",
  code: "internal_error",
  retryable: true,
} as const satisfies TerminalEvent;

/** Ends the stream of a dead worker with what it had stored. */
export async function endOrphan(ctx: MutationCtx, session: Session, nowMs: number): Promise<void> {
  const { text: content, calls: stored, visible } = await Streams.storedAnswer(ctx, session._id);
  const { calls, events } = stored.close();
  const aborted = session.abortRequestedAt !== undefined;
  await settle(
    ctx,
    session,
    {
      frames: [...events, aborted ? ({ type: "aborted" } as const) : LOST].map(frameData),
      reaper: "running",
      result: {
        status: aborted ? "aborted" : "error",
        content,
        reasoning: "",
        toolCalls: calls.map(({ argumentsText, id, name }) => ({
          id,
          name,
          arguments: argumentsText,
        })),
        toolResults: calls.map(({ id, name, result }) => ({
          toolCallId: id,
          name,
          content: result,
        })),
        ending: aborted ? "client_abort" : "worker_lost",
        ...(aborted ? {} : { errorCode: LOST.code }),
        usage: { ...NO_USAGE, totalTokens: session.reservedTokens, estimated: true },
        outcome: "infrastructure",
        visible,
        latencyMs: nowMs - session.startedAt,
      },
    },
    nowMs,
  );
}

export const NO_USAGE: Infer<typeof usage> = {
  promptTokens: 0,
  completionTokens: 0,
  totalTokens: 0,
  cachedTokens: 0,
  reasoningTokens: 0,
  cost: null,
  estimated: false,
};
