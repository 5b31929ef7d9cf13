/**
 * Looks at the queue that choose and do not decide: mutations run them on a stale snapshot, which
 * adds nothing to what they depend on, and then read what was chosen as it is now.
 */
import { v } from "convex/values";
import { internalQuery } from "./model/functionBoundaries";
import * as Batches from "./model/toolJobBatches";
import * as Line from "./model/toolJobLine";
import * as ToolJobs from "./model/toolJobs";

/** The first stripe of a tool's line with a job on it, from a starting point on. */
export const pickStripe = internalQuery({
  args: { toolName: v.string(), from: v.number() },
  returns: v.union(v.id("toolJobStripes"), v.null()),
  handler: (ctx, args) => Line.pickStripe(ctx, args),
});

/** A job of a class in a tool's line, from a stripe on. */
export const pickOfClass = internalQuery({
  args: {
    tool: v.string(),
    qos: v.union(v.literal("r"), v.literal("i"), v.literal("b")),
    stripe: v.number(),
  },
  returns: v.union(v.id("toolJobs"), v.null()),
  handler: (ctx, args) => Line.pickOfClass(ctx, args),
});

/** Stripes of a tool's line with room for another job, where all of it has room for `inLine`. */
export const pickOpenStripes = internalQuery({
  args: { toolName: v.string(), inLine: v.number() },
  returns: v.array(v.number()),
  handler: (ctx, args) => Line.pickOpenStripes(ctx, args),
});

/** Slots that nobody is to run in next, these first; none where somebody stands in line. */
export const pickOpenSlots = internalQuery({
  args: {
    toolName: v.string(),
    slotIds: v.array(v.id("slots")),
    pool: v.string(),
    size: v.number(),
    from: v.number(),
    looks: v.number(),
    nowMs: v.number(),
  },
  returns: v.array(v.id("slots")),
  handler: (ctx, args) => Line.pickOpenSlots(ctx, args),
});

/** Free slots of a pool, from a starting point on. */
export const pickFreeSlots = internalQuery({
  args: {
    pool: v.string(),
    size: v.number(),
    from: v.number(),
    limit: v.number(),
    nowMs: v.number(),
  },
  returns: v.array(v.object({ index: v.number(), id: v.union(v.id("slots"), v.null()) })),
  handler: async (ctx, args) =>
    (await Batches.pickFreeSlots(ctx, args)).map((slot) => ({ ...slot })),
});

/** The job that runs under a lease whose slot was lost to another. */
export const findRunning = internalQuery({
  args: { slotId: v.id("slots"), fence: v.number() },
  returns: v.union(v.id("toolJobs"), v.null()),
  handler: (ctx, args) => ToolJobs.findRunning(ctx, args),
});
