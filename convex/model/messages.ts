import { type Infer, v } from "convex/values";
import { utf8Bytes } from "../../src/core/bytes";
import { wellFormed } from "../../src/core/wellFormed";
import { AppError } from "../../src/errors/appError";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { newBatch, takeBatch } from "./batch";
import { messageStatus, storedToolCall, usage } from "./chatTables";

/** Longest message a user may send, in UTF-16 units as a browser counts them. */
export const CONTENT_CHARS_MAX = 32_000;
/** Messages one call lists or deletes at most. */
export const MESSAGES_PER_CALL = 200;
const CLIENT_ID_CHARS_MAX = 128;
/** Rows that a history looks at, results of tools included: many small ones are within its bytes. */
const HISTORY_ROWS_MAX = 1_000;

const orNull = <T extends Parameters<typeof v.union>[0]>(validator: T) =>
  v.union(validator, v.null());

export const messageView = v.object({
  _id: v.id("messages"),
  _creationTime: v.number(),
  role: v.union(v.literal("user"), v.literal("assistant"), v.literal("tool"), v.literal("system")),
  content: v.string(),
  status: orNull(messageStatus),
  clientMessageId: orNull(v.string()),
  modelId: orNull(v.string()),
  streamId: orNull(v.id("streamSessions")),
  reasoningContent: orNull(v.string()),
  toolCalls: v.array(storedToolCall),
  toolCallId: orNull(v.string()),
  name: orNull(v.string()),
  ending: orNull(v.string()),
  errorCode: orNull(v.string()),
  usage: orNull(usage),
  editedAt: orNull(v.number()),
});

/** A message as its owner sees it. */
export function view(message: Doc<"messages">): Infer<typeof messageView> {
  return {
    _id: message._id,
    _creationTime: message._creationTime,
    role: message.role,
    content: message.content,
    status: message.status ?? null,
    clientMessageId: message.clientMessageId ?? null,
    modelId: message.modelId ?? null,
    streamId: message.streamId ?? null,
    reasoningContent: message.reasoningContent ?? null,
    toolCalls: message.toolCalls ?? [],
    toolCallId: message.toolCallId ?? null,
    name: message.name ?? null,
    ending: message.ending ?? null,
    errorCode: message.errorCode ?? null,
    usage: message.usage ?? null,
    editedAt: message.editedAt ?? null,
  };
}

/** Throws `invalid_request` for an empty or too long message. */
export function checkContent(content: string): void {
  if (content.length >= 1 && content.length <= CONTENT_CHARS_MAX) return;
  throw new AppError("invalid_request", {
    issues: [{ path: "content", message: `1 to ${CONTENT_CHARS_MAX} characters` }],
  });
}

/** A client's own id for a message. Throws `invalid_request` for an empty or too long one. */
export function checkClientId(clientMessageId: string): string {
  if (clientMessageId.length >= 1 && clientMessageId.length <= CLIENT_ID_CHARS_MAX)
    return clientMessageId;
  throw new AppError("invalid_request", {
    issues: [{ path: "clientMessageId", message: `1 to ${CLIENT_ID_CHARS_MAX} characters` }],
  });
}

/** A thread's messages, newest first, at most `limit` and no more than one batch holds. */
export async function newestFirst(
  ctx: QueryCtx,
  threadId: Id<"threads">,
  limit: number,
): Promise<Doc<"messages">[]> {
  return await takeBatch(
    ctx.db
      .query("messages")
      .withIndex("by_thread", (q) => q.eq("threadId", threadId))
      .order("desc"),
    newBatch(Math.min(MESSAGES_PER_CALL, Math.max(1, Math.floor(limit) || 1))),
  );
}

/** Deletes what was said after a message, newest first, a bounded number at once. */
export async function deleteFrom(
  ctx: MutationCtx,
  message: Doc<"messages">,
  inclusive: boolean,
): Promise<{ readonly deleted: number; readonly hasMore: boolean }> {
  const batch = newBatch(MESSAGES_PER_CALL);
  const later = await takeBatch(
    ctx.db
      .query("messages")
      .withIndex("by_thread", (q) => {
        const thread = q.eq("threadId", message.threadId);
        return inclusive
          ? thread.gte("_creationTime", message._creationTime)
          : thread.gt("_creationTime", message._creationTime);
      })
      .order("desc"),
    batch,
  );
  for (const { _id } of later) await ctx.db.delete("messages", _id);
  return { deleted: later.length, hasMore: batch.full };
}

export interface HistoryMessage {
  readonly role: "user" | "assistant" | "tool" | "system";
  readonly content: string;
  readonly toolCalls?: NonNullable<Doc<"messages">["toolCalls"]>;
  readonly toolCallId?: string;
}

interface HistoryRequest {
  readonly messagesMax: number;
  readonly bytesMax: number;
  /** A message that is about to be stored: it ends the history, within the same bounds. */
  readonly next?: HistoryMessage;
  /** A stored message that ends the history: what was said after it is left out. */
  readonly last?: Doc<"messages">;
}

export interface History {
  /** Oldest first. */
  readonly messages: HistoryMessage[];
  /** Whether the thread has no message that was left out for a bound, or that comes after. */
  readonly isWhole: boolean;
}

/**
 * The newest messages of a thread within both bounds. The newest one always goes along. Answers that
 * are still streaming or broke off empty say nothing to a model. Reads no more than it returns, but
 * for those.
 */
export async function history(
  ctx: QueryCtx,
  threadId: Id<"threads">,
  { bytesMax, last, messagesMax, next }: HistoryRequest,
): Promise<History> {
  const kept = next === undefined ? [] : [next];
  let bytes = next === undefined ? 0 : utf8Bytes(next.content);
  const newestFirst = ctx.db
    .query("messages")
    .withIndex("by_thread", (q) => {
      const thread = q.eq("threadId", threadId);
      return last === undefined ? thread : thread.lte("_creationTime", last._creationTime);
    })
    .order("desc");
  // What tools said goes along with the answer that asked them, and does not crowd others out.
  let looked = kept.length;
  let rows = 0;
  let isWhole = last === undefined;
  for await (const message of newestFirst) {
    rows += 1;
    if (message.role !== "tool") looked += 1;
    bytes += utf8Bytes(message.content) + argumentsBytes(message);
    const isWithin =
      looked <= messagesMax && rows <= HISTORY_ROWS_MAX && (bytes <= bytesMax || kept.length === 0);
    if (!isWithin) {
      isWhole = false;
      break;
    }
    if (message.role === "assistant" && message.content === "" && !message.toolCalls?.length)
      continue;
    kept.push(asHistory(message));
  }
  return { messages: kept.reverse(), isWhole };
}

const argumentsBytes = ({ toolCalls = [] }: Doc<"messages">): number =>
  toolCalls.reduce((sum, call) => sum + utf8Bytes(call.arguments), 0);

/** Threads may hold half a character that an earlier version let in; no function takes one further. */
function asHistory({ content, role, toolCallId, toolCalls }: Doc<"messages">): HistoryMessage {
  const calls = toolCalls?.map((call) => ({
    id: wellFormed(call.id),
    name: wellFormed(call.name),
    arguments: wellFormed(call.arguments),
  }));
  return {
    role,
    content: wellFormed(content),
    ...(calls === undefined ? {} : { toolCalls: calls }),
    ...(toolCallId === undefined ? {} : { toolCallId: wellFormed(toolCallId) }),
  };
}

/** The user's message that a thread ends with, or null: what only tools said after it is no answer. */
export async function unanswered(
  ctx: QueryCtx,
  threadId: Id<"threads">,
): Promise<Doc<"messages"> | null> {
  const newestFirst = ctx.db
    .query("messages")
    .withIndex("by_thread", (q) => q.eq("threadId", threadId))
    .order("desc");
  // Results of tools are stored when their answer ends, so they may follow a message sent meanwhile.
  for await (const message of newestFirst)
    if (message.role !== "tool") return message.role === "user" ? message : null;
  return null;
}

/** The message a client sent before under its own id, or null. */
export async function findByClientId(
  ctx: QueryCtx,
  threadId: Id<"threads">,
  clientMessageId: string,
): Promise<Doc<"messages"> | null> {
  return await ctx.db
    .query("messages")
    .withIndex("by_thread_client_id", (q) =>
      q.eq("threadId", threadId).eq("clientMessageId", clientMessageId),
    )
    .unique();
}

/** A user's message, once: the same client id in the same thread finds the first one. */
export async function insertUserMessage(
  ctx: MutationCtx,
  threadId: Id<"threads">,
  message: { readonly content: string; readonly clientMessageId?: string },
): Promise<Id<"messages">> {
  const { clientMessageId } = message;
  const sent =
    clientMessageId === undefined ? null : await findByClientId(ctx, threadId, clientMessageId);
  return sent?._id ?? (await ctx.db.insert("messages", { threadId, role: "user", ...message }));
}
