import { v } from "convex/values";
import { AppError } from "../src/errors/appError";
import { findMessage, requireThread, requireUserId } from "./model/access";
import { mutation, query } from "./model/functionBoundaries";
import * as Messages from "./model/messages";
import * as Streams from "./model/streams";
import * as Threads from "./model/threads";

/**
 * A thread's newest messages, oldest first, at most `limit` (to 200) and 2 MiB. One that is
 * streaming shows what has been stored of it.
 */
export const list = query({
  args: { threadId: v.string(), limit: v.optional(v.number()) },
  returns: v.array(Messages.messageView),
  handler: async (ctx, { threadId, limit = Messages.MESSAGES_PER_CALL }) => {
    const thread = await requireThread(ctx, await requireUserId(ctx), threadId);
    const messages = await Messages.newestFirst(ctx, thread._id, limit);
    const views = messages.reverse().map(Messages.view);
    const streaming = views.find(({ status }) => status === "streaming");
    if (streaming !== undefined && thread.activeStreamId !== undefined)
      streaming.content = (await Streams.storedAnswer(ctx, thread.activeStreamId)).text;
    return views;
  },
});

/** Sends a message of the caller; the same `clientMessageId` twice is one message. */
export const send = mutation({
  args: { threadId: v.string(), content: v.string(), clientMessageId: v.optional(v.string()) },
  returns: v.id("messages"),
  handler: async (ctx, { threadId, content, clientMessageId }) => {
    const thread = await requireThread(ctx, await requireUserId(ctx), threadId);
    Messages.checkContent(content);
    await ctx.db.patch("threads", thread._id, { lastMessageAt: Date.now() });
    return await Messages.insertUserMessage(ctx, thread._id, {
      content,
      ...(clientMessageId === undefined
        ? {}
        : { clientMessageId: Messages.checkClientId(clientMessageId) }),
    });
  },
});

/** Changes a message of the caller's own. What the model or a tool said cannot be changed. */
export const update = mutation({
  args: { threadId: v.string(), messageId: v.string(), content: v.string() },
  returns: v.null(),
  handler: async (ctx, { threadId, messageId, content }) => {
    const thread = await requireThread(ctx, await requireUserId(ctx), threadId);
    const message = await findMessage(ctx, thread._id, messageId);
    if (message === null) throw new AppError("not_found");
    if (message.role !== "user") throw new AppError("forbidden");
    Messages.checkContent(content);
    await ctx.db.patch("messages", message._id, { content, editedAt: Date.now() });
    return null;
  },
});

/**
 * Deletes what follows a message, so that it can be answered anew; with `inclusive` also itself.
 * At most 200 at once: `hasMore` says whether to call again. Refused while an answer is streaming.
 */
export const deleteAfter = mutation({
  args: { threadId: v.string(), messageId: v.string(), inclusive: v.optional(v.boolean()) },
  returns: v.object({ deleted: v.number(), hasMore: v.boolean() }),
  handler: async (ctx, { threadId, messageId, inclusive = false }) => {
    const thread = await requireThread(ctx, await requireUserId(ctx), threadId);
    if (thread.activeStreamId !== undefined) throw new AppError("request_in_progress");
    const message = await findMessage(ctx, thread._id, messageId);
    if (message === null) throw new AppError("not_found");
    return await Messages.deleteFrom(ctx, message, inclusive);
  },
});

/** Asks for the end of the answer being streamed into a message; does nothing where it has ended. */
export const abort = mutation({
  args: { threadId: v.string(), messageId: v.string() },
  returns: v.null(),
  handler: async (ctx, { threadId, messageId }) => {
    const thread = await requireThread(ctx, await requireUserId(ctx), threadId);
    const message = await findMessage(ctx, thread._id, messageId);
    if (message === null) throw new AppError("not_found");
    if (message.streamId !== undefined && message.streamId === thread.activeStreamId)
      await Threads.stopStream(ctx, thread, Date.now());
    return null;
  },
});
