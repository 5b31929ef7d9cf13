import { v } from "convex/values";
import { AppError } from "../src/errors/appError";
import { internal } from "./_generated/api";
import { requireStream, requireThread, requireUserId } from "./model/access";
import { mutation } from "./model/functionBoundaries";
import * as Threads from "./model/threads";
import { beginTurn } from "./model/turnAdmission";

/**
 * Starts an answer to the newest message of a thread in the background; its frames are read with
 * `GET /api/chat/stream?streamId=…`. Refusals are thrown with the codes of `POST /api/chat`. Tries
 * after a conflict are the client's here, so no limit is ever left out of them.
 */
export const start = mutation({
  args: {
    threadId: v.string(),
    messageId: v.optional(v.string()),
    modelId: v.optional(v.string()),
    webSearch: v.optional(v.boolean()),
  },
  returns: v.object({ streamId: v.id("streamSessions"), messageId: v.id("messages") }),
  handler: async (ctx, { webSearch = false, ...wanted }) => {
    const userId = await requireUserId(ctx);
    const turn = await beginTurn(ctx, { userId, ...wanted }, internal.chatTurns.reap);
    if (turn.kind === "replay") throw new Error("a turn without a key is never a replay");
    if (turn.kind === "refused") {
      const { code, ...extra } = turn.error;
      throw new AppError(code, extra);
    }
    const { streamId, messageId, route, fallback, history, historyIsWhole, frames } = turn;
    await ctx.scheduler.runAfter(0, internal.chat.run, {
      turn: { userId, streamId, route, fallback, history, historyIsWhole, frames, webSearch },
    });
    return { streamId, messageId };
  },
});

/** Asks a stream of the caller to end; does nothing where it has ended. */
export const abort = mutation({
  args: { streamId: v.string() },
  returns: v.null(),
  handler: async (ctx, { streamId }) => {
    const userId = await requireUserId(ctx);
    const session = await requireStream(ctx, userId, streamId);
    const thread = await requireThread(ctx, userId, session.threadId);
    if (thread.activeStreamId === session._id) await Threads.stopStream(ctx, thread, Date.now());
    return null;
  },
});
