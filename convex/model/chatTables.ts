import { defineTable } from "convex/server";
import { v } from "convex/values";
import { permitFields } from "./permit";

export const messageStatus = v.union(
  v.literal("streaming"),
  v.literal("completed"),
  v.literal("error"),
  v.literal("aborted"),
);

export const storedToolCall = v.object({
  id: v.string(),
  name: v.string(),
  /** JSON text of the arguments as the model gave them. */
  arguments: v.string(),
});

export const usage = v.object({
  promptTokens: v.number(),
  completionTokens: v.number(),
  totalTokens: v.number(),
  cachedTokens: v.number(),
  reasoningTokens: v.number(),
  /** In US dollars; null where the provider reported none. */
  cost: v.union(v.number(), v.null()),
  /** True where the provider sent no usage frame and the counts were estimated from the text. */
  estimated: v.boolean(),
});

export const modelClass = v.union(v.literal("fast"), v.literal("agent"));

/** Tables of the chat: threads, their messages, and the streams that answer them. */
export const chatTables = {
  // Written by threads:* and by each turn (activeStreamId, lastMessageAt); read by its owner's
  // every call. Dies with threads:remove, its messages in batches after it.
  threads: defineTable({
    userId: v.string(),
    title: v.optional(v.string()),
    modelId: v.optional(v.string()),
    lastMessageAt: v.number(),
    isPinned: v.boolean(),
    /** The turn that is streaming into this thread: a second one is refused while it lives. */
    activeStreamId: v.optional(v.id("streamSessions")),
    /** The thread this one was forked from by a share token. */
    sharedFromThreadId: v.optional(v.id("threads")),
  }).index("by_user_pinned_recent", ["userId", "isPinned", "lastMessageAt"]),

  // Written by messages:*, and by a turn's admission and settlement; read by messages:list and by
  // admission (bounded history). Dies with its thread or by messages:deleteAfter.
  messages: defineTable({
    threadId: v.id("threads"),
    role: v.union(
      v.literal("user"),
      v.literal("assistant"),
      v.literal("tool"),
      v.literal("system"),
    ),
    content: v.string(),
    clientMessageId: v.optional(v.string()),
    modelId: v.optional(v.string()),
    status: v.optional(messageStatus),
    streamId: v.optional(v.id("streamSessions")),
    reasoningContent: v.optional(v.string()),
    toolCalls: v.optional(v.array(storedToolCall)),
    toolCallId: v.optional(v.string()),
    name: v.optional(v.string()),
    /** How the provider's stream ended, and the error code where it did not end well. */
    ending: v.optional(v.string()),
    errorCode: v.optional(v.string()),
    usage: v.optional(usage),
    editedAt: v.optional(v.number()),
  })
    // eslint-disable-next-line @convex-dev/no-duplicate-indexes -- this one sorts by time
    .index("by_thread", ["threadId"])
    .index("by_thread_client_id", ["threadId", "clientMessageId"]),

  // One answer being streamed. Written by admission, by each stored chunk or heartbeat (one worker),
  // by abort, by settlement, by the sweeper; read by the same and by readers that resume. Dies an
  // hour after its end, frames first.
  streamSessions: defineTable({
    userId: v.string(),
    threadId: v.id("threads"),
    messageId: v.id("messages"),
    status: messageStatus,
    startedAt: v.number(),
    endedAt: v.optional(v.number()),
    lastHeartbeatAt: v.number(),
    /** Set by abort; the worker learns it from the reply to its next chunk or heartbeat. */
    abortRequestedAt: v.optional(v.number()),
    /** Id of the next frame to store. Ids start at 1 and are never reused. */
    nextFrameId: v.number(),
    /** Bytes of frames stored so far. */
    storedBytes: v.number(),
    /** The provider slot this turn holds, renewed by chunks and released by settlement. */
    permit: v.optional(permitFields),
    /** Scheduled look at the worker's pulse, cancelled by settlement. */
    reaperId: v.optional(v.id("_scheduled_functions")),
    /** What settlement trues up: tokens reserved against the user's budget on `budgetDay`. */
    reservedTokens: v.number(),
    budgetDay: v.string(),
    claimKey: v.optional(v.string()),
    ending: v.optional(v.string()),
    errorCode: v.optional(v.string()),
  })
    .index("by_status_heartbeat", ["status", "lastHeartbeatAt"])
    .index("by_status_ended", ["status", "endedAt"])
    .index("by_thread", ["threadId"]),

  // The exact frames of a stream, in chunks. Written by its worker, never changed; read by readers
  // that resume and by the sweeper. Dies with its session.
  streamChunks: defineTable({
    streamId: v.id("streamSessions"),
    /** Id of the first frame; the others follow without gaps. */
    firstFrameId: v.number(),
    /** The `data` of each frame: JSON text, byte for byte as sent. */
    frames: v.array(v.string()),
  }).index("by_stream", ["streamId", "firstFrameId"]),

  // A link that lets others fork a thread. Written by threads:createShareToken and
  // createShareFork; read by the latter. The token is stored hashed. Dies with its thread.
  sharedThreads: defineTable({
    threadId: v.id("threads"),
    tokenHash: v.string(),
    createdByUserId: v.string(),
  })
    .index("by_token_hash", ["tokenHash"])
    .index("by_thread", ["threadId"]),

  // Tokens a user has reserved or spent on a day (UTC). Written by a turn's admission and
  // settlement; read by admission. Dies after two days.
  tokenBudgets: defineTable({
    userId: v.string(),
    day: v.string(),
    tokens: v.number(),
  })
    .index("by_user_day", ["userId", "day"])
    .index("by_day", ["day"]),
};
