import { v } from "convex/values";
import { runClaim } from "../src/channels/chat/claimRunner";
import { env } from "../src/config/env";
import { internal } from "./_generated/api";
import { internalAction } from "./_generated/server";
import { chatFunctions } from "./model/chatFunctions";

/** Runs one waiting job of a tool, if there is one; its completion starts the next worker. */
export const run = internalAction({
  args: { toolName: v.string() },
  returns: v.null(),
  handler: async (ctx, { toolName }) => {
    const claim = await ctx.runMutation(internal.toolJobs.claimNext, { toolName });
    if (claim !== null) await runClaim(claim, { ctx, env, functions: chatFunctions });
    return null;
  },
});
