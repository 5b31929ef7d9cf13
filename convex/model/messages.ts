import { type Infer, v } from "convex/values";
import { AppError } from "../../src/errors/appError";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { messageStatus, storedToolCall, usage } from "./chatTables";

/** Longest message a user may send, in UTF-16 units as a browser counts them. */
export const CONTENT_CHARS_MAX = 32_000;
/** Messages one call lists or deletes at most. */
export const MESSAGES_PER_CALL = 200;
const CLIENT_ID_CHARS_MAX = 128;

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

/** A thread's messages, newest first, at most `limit`. */
export async function newestFirst(
  ctx: QueryCtx,
  threadId: Id<"threads">,
  limit: number,
): Promise<Doc<"messages">[]> {
  return await ctx.db
    .query("messages")
    .withIndex("by_thread", (q) => q.eq("threadId", threadId))
    .order("desc")
    .take(Math.min(MESSAGES_PER_CALL, Math.max(1, Math.floor(limit) || 1)));
}

/** Deletes what was said after a message, newest first, a bounded number at once. */
export async function deleteFrom(
  ctx: MutationCtx,
  message: Doc<"messages">,
  inclusive: boolean,
): Promise<{ readonly deleted: number; readonly hasMore: boolean }> {
  const later = await ctx.db
    .query("messages")
    .withIndex("by_thread", (q) => {
      const thread = q.eq("threadId", message.threadId);
      return inclusive
        ? thread.gte("_creationTime", message._creationTime)
        : thread.gt("_creationTime", message._creationTime);
    })
    .order("desc")
    .take(MESSAGES_PER_CALL);
  for (const { _id } of later) await ctx.db.delete("messages", _id);
  return { deleted: later.length, hasMore: later.length === MESSAGES_PER_CALL };
}

interface HistoryBounds {
  readonly messagesMax: number;
  readonly bytesMax: number;
}

export interface HistoryMessage {
  readonly role: "user" | "assistant" | "tool" | "system";
  readonly content: string;
  readonly toolCalls?: NonNullable<Doc<"messages">["toolCalls"]>;
  readonly toolCallId?: string;
}

/**
 * The newest messages of a thread, oldest first, within both bounds. The newest one always goes
 * along. Answers that are still streaming or broke off empty say nothing to a model.
 */
export async function history(
  ctx: QueryCtx,
  threadId: Id<"threads">,
  { messagesMax, bytesMax }: HistoryBounds,
): Promise<HistoryMessage[]> {
  const newest = await ctx.db
    .query("messages")
    .withIndex("by_thread", (q) => q.eq("threadId", threadId))
    .order("desc")
    .take(messagesMax);
  const kept: HistoryMessage[] = [];
  let bytes = 0;
  for (const message of newest) {
    if (message.role === "assistant" && message.content === "" && !message.toolCalls?.length)
      continue;
    bytes += message.content.length;
    if (bytes > bytesMax && kept.length > 0) break;
    kept.push(asHistory(message));
  }
  return kept.reverse();
}

function asHistory(message: Doc<"messages">): HistoryMessage {
  return {
    role: message.role,
    content: message.content,
    ...(message.toolCalls === undefined ? {} : { toolCalls: message.toolCalls }),
    ...(message.toolCallId === undefined ? {} : { toolCallId: message.toolCallId }),
  };
}

/** The newest message of a thread, or null. */
export async function newest(
  ctx: QueryCtx,
  threadId: Id<"threads">,
): Promise<Doc<"messages"> | null> {
  return await ctx.db
    .query("messages")
    .withIndex("by_thread", (q) => q.eq("threadId", threadId))
    .order("desc")
    .first();
}

/** A user's message, once: the same client id in the same thread finds the first one. */
export async function insertUserMessage(
  ctx: MutationCtx,
  threadId: Id<"threads">,
  message: { readonly content: string; readonly clientMessageId?: string },
): Promise<Id<"messages">> {
  const { clientMessageId } = message;
  if (clientMessageId !== undefined) {
    const sent = await ctx.db
      .query("messages")
      .withIndex("by_thread_client_id", (q) =>
        q.eq("threadId", threadId).eq("clientMessageId", clientMessageId),
      )
      .unique();
    if (sent !== null) return sent._id;
  }
  return await ctx.db.insert("messages", { threadId, role: "user", ...message });
}
