import { internal } from "../_generated/api";
import type { Id } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";

/** Jobs of one scheduled run, so that its nested transactions stay within one second. */
export const JOBS_PER_RUN = 20;

export interface Job {
  readonly id: Id<"webhookInbox">;
  readonly attempts: number;
}

/** A run of these jobs now: one after another, and then that of the part `nextId`. */
export async function scheduleRun(
  ctx: MutationCtx,
  jobs: Job[],
  nextId?: Id<"webhookInbox">,
): Promise<void> {
  const next = nextId === undefined ? {} : { nextId };
  await ctx.scheduler.runAfter(0, internal.integrations.inbox.processJobs, { jobs, ...next });
}
