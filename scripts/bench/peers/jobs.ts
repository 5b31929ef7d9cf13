import { Workpool } from "@convex-dev/workpool";
import { makeFunctionReference } from "convex/server";
import { v } from "convex/values";
import { components, internalAction, mutation } from "./server";

/** What the benchmark watches of jobs as they start, and how long one takes. */
export const watch = {
  workMs: 0,
  failsOnce: new Set<number>(),
  startedAtMs: new Map<number, number>(),
  doneAtMs: new Map<number, number>(),
};

/** Shared state of the module is the harness's, not the app's: it tells when a job began. */
export const job = internalAction({
  args: { i: v.number() },
  returns: v.null(),
  handler: async (_ctx, { i }) => {
    if (!watch.startedAtMs.has(i)) watch.startedAtMs.set(i, Date.now());
    if (watch.workMs > 0) await new Promise((done) => setTimeout(done, watch.workMs));
    if (watch.failsOnce.delete(i)) throw new Error("The first attempt fails.");
    watch.doneAtMs.set(i, Date.now());
    return null;
  },
});

const jobReference = makeFunctionReference<"action", { i: number }, null>("jobs:job");

/** Enqueues jobs `from` up to, not with, `to` at once; `retry` lets a failed one be tried again. */
export const enqueue = mutation({
  args: { from: v.number(), to: v.number(), maxParallelism: v.number(), retry: v.boolean() },
  returns: v.null(),
  handler: async (ctx, { from, to, maxParallelism, retry }) => {
    const pool = new Workpool(components.workpool, {
      maxParallelism,
      logLevel: "ERROR",
      defaultRetryBehavior: { maxAttempts: 2, initialBackoffMs: 250, base: 2 },
    });
    const all = Array.from({ length: to - from }, (_, place) => ({ i: from + place }));
    const [first] = all;
    if (all.length === 1 && first !== undefined)
      await pool.enqueueAction(ctx, jobReference, first, { retry });
    else await pool.enqueueActionBatch(ctx, jobReference, all, { retry });
    return null;
  },
});
