import { type Infer, v } from "convex/values";
import { MINUTE } from "../../src/core/time";
import { AppError } from "../../src/errors/appError";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { newBatch, takeBatch, takeFirst } from "./batch";
import { MESSAGES_PER_CALL, newestFirst } from "./messages";
import * as Streams from "./streams";

/** Threads one call lists at most. */
export const THREADS_PER_LIST = 200;
const NAME_CHARS_MAX = 200;
const SHARE_TOKEN_BYTES = 32;

type Thread = Doc<"threads">;

export const threadView = v.object({
  _id: v.id("threads"),
  _creationTime: v.number(),
  title: v.union(v.string(), v.null()),
  modelId: v.union(v.string(), v.null()),
  lastMessageAt: v.number(),
  isPinned: v.boolean(),
  isStreaming: v.boolean(),
  sharedFromThreadId: v.union(v.id("threads"), v.null()),
});

/** A thread as its owner sees it. */
export function view(thread: Thread): Infer<typeof threadView> {
  return {
    _id: thread._id,
    _creationTime: thread._creationTime,
    title: thread.title ?? null,
    modelId: thread.modelId ?? null,
    lastMessageAt: thread.lastMessageAt,
    isPinned: thread.isPinned,
    isStreaming: thread.activeStreamId !== undefined,
    sharedFromThreadId: thread.sharedFromThreadId ?? null,
  };
}

/** A title or model without the space around it. Throws `invalid_request` for an empty or long one. */
export function checkName(path: "title" | "modelId", name: string): string {
  const trimmed = name.trim();
  if (trimmed === "" || trimmed.length > NAME_CHARS_MAX)
    throw new AppError("invalid_request", {
      issues: [{ path, message: `1 to ${NAME_CHARS_MAX} characters` }],
    });
  return trimmed;
}

/** A user's threads: pinned first, each part newest first, at most `limit`. */
export async function recent(ctx: QueryCtx, userId: string, limit: number): Promise<Thread[]> {
  const bounded = Math.min(THREADS_PER_LIST, Math.max(1, Math.floor(limit) || 1));
  const pinned = await ctx.db
    .query("threads")
    .withIndex("by_user_pinned_recent", (q) => q.eq("userId", userId).eq("isPinned", true))
    .order("desc")
    .take(bounded);
  const others = await ctx.db
    .query("threads")
    .withIndex("by_user_pinned_recent", (q) => q.eq("userId", userId).eq("isPinned", false))
    .order("desc")
    .take(bounded - pinned.length);
  return [...pinned, ...others];
}

/** Asks the turn that streams into a thread to end. */
export async function stopStream(ctx: MutationCtx, thread: Thread, nowMs: number): Promise<void> {
  const { activeStreamId } = thread;
  const session =
    activeStreamId === undefined ? null : await ctx.db.get("streamSessions", activeStreamId);
  if (session?.status === "streaming" && session.abortRequestedAt === undefined)
    await ctx.db.patch("streamSessions", session._id, { abortRequestedAt: nowMs });
}

/** Deletes one batch of what belonged to a thread; says whether, and when, to come back. */
export async function deleteContents(
  ctx: MutationCtx,
  threadId: Id<"threads">,
): Promise<{ readonly more: boolean; readonly delayMs: number }> {
  const batch = newBatch();
  const messages = await takeBatch(
    ctx.db.query("messages").withIndex("by_thread", (q) => q.eq("threadId", threadId)),
    batch,
  );
  for (const { _id } of messages) await ctx.db.delete("messages", _id);
  const shares = await takeBatch(
    ctx.db.query("sharedThreads").withIndex("by_thread", (q) => q.eq("threadId", threadId)),
    batch,
  );
  for (const { _id } of shares) await ctx.db.delete("sharedThreads", _id);
  let streaming = false;
  let after = 0;
  while (!batch.full) {
    const sessions = ctx.db
      .query("streamSessions")
      .withIndex("by_thread", (q) => q.eq("threadId", threadId).gt("_creationTime", after));
    const session = await takeFirst(sessions, batch);
    if (session === null) break;
    // A turn that still runs settles into its session: its frames wait for that.
    if (session.status !== "streaming") await Streams.deleteStream(ctx, session._id, batch);
    else [streaming, after] = [true, session._creationTime];
  }
  return { more: batch.full || streaming, delayMs: batch.full ? 0 : MINUTE };
}

/** Makes a share token for a thread and stores its hash. */
export async function share(ctx: MutationCtx, userId: string, thread: Thread): Promise<string> {
  const token = hex(crypto.getRandomValues(new Uint8Array(SHARE_TOKEN_BYTES)));
  await ctx.db.insert("sharedThreads", {
    threadId: thread._id,
    tokenHash: await hashOf(token),
    createdByUserId: userId,
  });
  return token;
}

/** The thread a token was made for, or null. */
export async function findShared(ctx: QueryCtx, token: string): Promise<Thread | null> {
  const tokenHash = await hashOf(token);
  const shared = await ctx.db
    .query("sharedThreads")
    .withIndex("by_token_hash", (q) => q.eq("tokenHash", tokenHash))
    .unique();
  return shared === null ? null : await ctx.db.get("threads", shared.threadId);
}

/** Copies a thread's newest finished messages to another user. */
export async function fork(
  ctx: MutationCtx,
  userId: string,
  source: Thread,
): Promise<Id<"threads">> {
  const threadId = await ctx.db.insert("threads", {
    userId,
    lastMessageAt: Date.now(),
    isPinned: false,
    sharedFromThreadId: source._id,
    ...(source.title === undefined ? {} : { title: source.title }),
    ...(source.modelId === undefined ? {} : { modelId: source.modelId }),
  });
  const newest = await newestFirst(ctx, source._id, MESSAGES_PER_CALL);
  const unfinished = new Set(newest.filter(isUnfinished).map(({ streamId }) => streamId));
  for (const message of newest.reverse()) {
    // What tools said for an answer that is left out is left out with it.
    if (message.streamId !== undefined && unfinished.has(message.streamId)) continue;
    // Usage, streams and client ids are the owner's; the copy is of what was said.
    const { role, content, modelId, toolCalls, toolCallId, name, status } = message;
    await ctx.db.insert("messages", {
      threadId,
      role,
      content,
      ...(status === undefined ? {} : { status }),
      ...(modelId === undefined ? {} : { modelId }),
      ...(toolCalls === undefined ? {} : { toolCalls }),
      ...(toolCallId === undefined ? {} : { toolCallId }),
      ...(name === undefined ? {} : { name }),
    });
  }
  return threadId;
}

const isUnfinished = ({ status }: Doc<"messages">): boolean =>
  status !== undefined && status !== "completed";

async function hashOf(token: string): Promise<string> {
  return hex(
    new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(token))),
  );
}

const hex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
