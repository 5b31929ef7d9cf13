import { type Infer, v } from "convex/values";
import { type AdmittedTurn, runAdmittedTurn } from "../src/channels/chat/backend";
import { throughContention } from "../src/channels/contention";
import { env } from "../src/config/env";
import { readKnob } from "../src/config/read";
import { AppError } from "../src/errors/appError";
import { failOpenLimits } from "../src/http/guards";
import { routeRow } from "../src/http/routes";
import { internal } from "./_generated/api";
import type { ActionCtx } from "./_generated/server";
import { requireUserId } from "./model/access";
import { chatFunctions } from "./model/chatFunctions";
import { action, internalAction } from "./model/functionBoundaries";
import { admittedTurn, type TurnVerdict } from "./model/turnAdmission";

const answer = v.object({
  streamId: v.id("streamSessions"),
  messageId: v.id("messages"),
  status: v.string(),
  ending: v.string(),
  errorCode: v.union(v.string(), v.null()),
});

/**
 * The turn of `POST /api/chat` as an action: answers the newest message of a thread and returns
 * when the answer is stored. Frames can be read meanwhile with `GET /api/chat/stream`. Refusals are
 * thrown with the codes of the route; how the answer ended is returned.
 */
export const streamAnswer = action({
  args: {
    threadId: v.string(),
    messageId: v.optional(v.string()),
    modelId: v.optional(v.string()),
    webSearch: v.optional(v.boolean()),
    sessionId: v.optional(v.string()),
  },
  returns: answer,
  handler: async (
    ctx,
    { threadId, messageId, modelId, webSearch = false },
  ): Promise<Infer<typeof answer>> => {
    const userId = await requireUserId(ctx);
    const request = {
      userId,
      threadId,
      ...(messageId === undefined ? {} : { messageId }),
      ...(modelId === undefined ? {} : { modelId }),
    };
    const verdict: TurnVerdict = await throughContention(
      (leaveOut) => ctx.runMutation(internal.chatTurns.admit, { request, leaveOut }),
      {
        failOpen: failOpenLimits(routeRow("chatPost")),
        lost: () =>
          ctx.scheduler.runAfter(0, internal.rateLimit.recordEvent, {
            source: "chat_action",
            bucket: "chat_stream",
            outcome: "contention_fallback",
          }),
      },
    );
    if (verdict.kind === "replay") throw new Error("a turn without a key is never a replay");
    if (verdict.kind === "refused") {
      const { code, ...extra } = verdict.error;
      throw new AppError(code, extra);
    }
    const { streamId } = verdict;
    const result = await runTurn(ctx, { ...verdict, userId, webSearch });
    const { status, ending, errorCode = null } = result;
    return { streamId, messageId: verdict.messageId, status, ending, errorCode };
  },
});

/** Runs a turn that `streamSessions:start` admitted. */
export const run = internalAction({
  args: { turn: admittedTurn },
  returns: v.null(),
  handler: async (ctx, { turn }) => {
    await runTurn(ctx, turn);
    return null;
  },
});

async function runTurn(ctx: ActionCtx, turn: AdmittedTurn): ReturnType<typeof runAdmittedTurn> {
  return await runAdmittedTurn(turn, {
    ctx,
    env,
    functions: chatFunctions,
    source: "chat_action",
    cyclesMax: readKnob(env, "CHAT_CYCLES_ACTION_MAX"),
    // Nobody listens: the frames are read from where they are stored.
    send: () => undefined,
  });
}
