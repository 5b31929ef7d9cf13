import { v } from "convex/values";
import { AppError } from "../src/errors/appError";
import { internal } from "./_generated/api";
import { requireThread, requireUserId } from "./model/access";
import { internalMutation, mutation, query } from "./model/functionBoundaries";
import * as Threads from "./model/threads";

/** Creates an empty thread of the caller; returns its id. */
export const create = mutation({
  args: { title: v.optional(v.string()), modelId: v.optional(v.string()) },
  returns: v.id("threads"),
  handler: async (ctx, { title, modelId }) => {
    const userId = await requireUserId(ctx);
    return await ctx.db.insert("threads", {
      userId,
      lastMessageAt: Date.now(),
      isPinned: false,
      ...(title === undefined ? {} : { title: Threads.checkName("title", title) }),
      ...(modelId === undefined ? {} : { modelId: Threads.checkName("modelId", modelId) }),
    });
  },
});

/** One thread of the caller. Throws `not_found` for a missing, foreign or malformed id alike. */
export const get = query({
  args: { threadId: v.string() },
  returns: Threads.threadView,
  handler: async (ctx, { threadId }) =>
    Threads.view(await requireThread(ctx, await requireUserId(ctx), threadId)),
});

/** The caller's threads, the pinned ones first, then by their last message; at most `limit`. */
export const list = query({
  args: { limit: v.optional(v.number()) },
  returns: v.array(Threads.threadView),
  handler: async (ctx, { limit = Threads.THREADS_PER_LIST }) => {
    const threads = await Threads.recent(ctx, await requireUserId(ctx), limit);
    return threads.map(Threads.view);
  },
});

/** Renames a thread; the title is trimmed and at most 200 characters. */
export const rename = mutation({
  args: { threadId: v.string(), title: v.string() },
  returns: v.null(),
  handler: async (ctx, { threadId, title }) => {
    const thread = await requireThread(ctx, await requireUserId(ctx), threadId);
    await ctx.db.patch("threads", thread._id, { title: Threads.checkName("title", title) });
    return null;
  },
});

/** Pins a thread, or lets it go; returns what it is now. */
export const togglePinned = mutation({
  args: { threadId: v.string() },
  returns: v.object({ isPinned: v.boolean() }),
  handler: async (ctx, { threadId }) => {
    const thread = await requireThread(ctx, await requireUserId(ctx), threadId);
    const isPinned = !thread.isPinned;
    await ctx.db.patch("threads", thread._id, { isPinned });
    return { isPinned };
  },
});

/** Removes a thread. It is gone at once; its messages and streams follow in bounded batches. */
export const remove = mutation({
  args: { threadId: v.string() },
  returns: v.null(),
  handler: async (ctx, { threadId }) => {
    const thread = await requireThread(ctx, await requireUserId(ctx), threadId);
    await Threads.stopStream(ctx, thread, Date.now());
    await ctx.db.delete("threads", thread._id);
    await ctx.scheduler.runAfter(0, internal.threads.removeContents, { threadId: thread._id });
    return null;
  },
});

/** Deletes what belonged to a removed thread, in batches, until nothing is left. */
export const removeContents = internalMutation({
  args: { threadId: v.id("threads") },
  returns: v.null(),
  handler: async (ctx, args) => {
    const left = await Threads.deleteContents(ctx, args.threadId);
    if (left.more)
      await ctx.scheduler.runAfter(left.delayMs, internal.threads.removeContents, args);
    return null;
  },
});

/** Makes a link token with which others may fork this thread. It is shown once and stored hashed. */
export const createShareToken = mutation({
  args: { threadId: v.string() },
  returns: v.object({ shareToken: v.string() }),
  handler: async (ctx, { threadId }) => {
    const userId = await requireUserId(ctx);
    const thread = await requireThread(ctx, userId, threadId);
    return { shareToken: await Threads.share(ctx, userId, thread) };
  },
});

/** Copies a shared thread to the caller as it is now; returns the new thread's id. */
export const createShareFork = mutation({
  args: { shareToken: v.string() },
  returns: v.id("threads"),
  handler: async (ctx, { shareToken }) => {
    const userId = await requireUserId(ctx);
    const source = await Threads.findShared(ctx, shareToken);
    if (source === null) throw new AppError("not_found");
    return await Threads.fork(ctx, userId, source);
  },
});
