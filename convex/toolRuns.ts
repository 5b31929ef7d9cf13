import { v } from "convex/values";
import { runClaim } from "../src/channels/chat/claimRunner";
import { env } from "../src/config/env";
import { MINUTE } from "../src/core/time";
import { internal } from "./_generated/api";
import type { ActionCtx } from "./_generated/server";
import { chatFunctions } from "./model/chatFunctions";
import { internalAction } from "./model/functionBoundaries";
import type { Claim, JobId } from "./model/toolJobRows";
import { claim } from "./model/toolJobShapes";

/** How long one worker goes from job to job; then another one goes on with the next. */
const WORKER_MS = 4 * MINUTE;
/** Jobs an operator may have run in one call. */
const PROCESS_JOBS_MAX = 20;

/**
 * Runs the jobs it is handed, at once, and in the slot of each whatever is next when it ended, until
 * nothing waits. Stops after a few minutes: then the end of each job starts another worker.
 */
export const run = internalAction({
  args: { claims: v.array(claim) },
  returns: v.null(),
  handler: async (ctx, { claims }) => {
    const untilMs = Date.now() + WORKER_MS;
    const lanes = claims.map((first) => runLane(ctx, first, untilMs));
    // The end of an action ends all it does: the fault of one lane must not cut the others short.
    const failed = (await Promise.allSettled(lanes)).find(({ status }) => status === "rejected");
    if (failed?.status === "rejected") throw failed.reason;
    return null;
  },
});

async function runLane(ctx: ActionCtx, first: Claim, untilMs: number): Promise<void> {
  for (let job: Claim | null = first; job !== null;) {
    const wantsNext = Date.now() < untilMs;
    const ran: { next: Claim | null } = await runClaim(job, {
      ctx,
      env,
      functions: chatFunctions,
      wantsNext,
    });
    job = ran.next;
  }
}

/** Runs jobs that wait although slots are free, one after the other, for `toolJobs:processQueue`. */
export const processWaiting = internalAction({
  args: { maxJobs: v.number() },
  returns: v.object({
    processed: v.number(),
    jobs: v.array(v.object({ jobId: v.id("toolJobs"), status: v.string() })),
  }),
  handler: async (ctx, { maxJobs }): Promise<Processed> => {
    const jobs: Processed["jobs"] = [];
    const most = Math.min(PROCESS_JOBS_MAX, Math.max(1, Math.floor(maxJobs) || 1));
    while (jobs.length < most) {
      const taken: Claim | null = await ctx.runMutation(internal.toolJobs.claimNext, {});
      if (taken === null) break;
      await runClaim(taken, { ctx, env, functions: chatFunctions });
      const job = await ctx.runQuery(internal.toolJobs.get, { jobId: taken.jobId });
      jobs.push({ jobId: taken.jobId, status: job?.status ?? "missing" });
    }
    return { processed: jobs.length, jobs };
  },
});

interface Processed {
  processed: number;
  jobs: { jobId: JobId; status: string }[];
}
