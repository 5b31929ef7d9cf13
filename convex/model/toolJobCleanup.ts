/** The end of retention, and of jobs whose tool is no more. */
import { env } from "../../src/config/env";
import { readKnob } from "../../src/config/read";
import { PLACE } from "../../src/core/queue";
import type { MutationCtx } from "../_generated/server";
import { type Batch, newBatch, takeBatch } from "./batch";
import * as Counts from "./toolJobCounts";
import { bury } from "./toolJobEnds";
import * as Line from "./toolJobLine";
import { deletePayload, type Job, queueOf } from "./toolJobRows";

/** Ended jobs by where they stand: what keeps them, and what counts them. */
const ENDED = [
  { place: PLACE.completed, ttlKnob: "TOOL_JOB_TTL_MS", counted: "completed" },
  { place: PLACE.failed, ttlKnob: "TOOL_JOB_TTL_MS", counted: "failed" },
  { place: PLACE.cancelled, ttlKnob: "TOOL_JOB_TTL_MS", counted: "cancelled" },
  { place: PLACE.deadLetter, ttlKnob: "TOOL_JOB_DLQ_TTL_MS", counted: "deadLetters" },
] as const;

export interface Cleaned {
  readonly deletedJobs: number;
  /** Jobs that waited for a tool that is no more, and are dead letters now. */
  readonly buriedJobs: number;
  readonly hasMore: boolean;
}

/** Deletes ended jobs whose retention is over, with their payloads, one batch of them. */
export async function cleanUp(ctx: MutationCtx): Promise<Cleaned> {
  const nowMs = Date.now();
  const batch = newBatch();
  let deletedJobs = 0;
  for (const { counted, place, ttlKnob } of ENDED) {
    const untilMs = nowMs - readKnob(env, ttlKnob);
    const ended = await takeBatch(
      ctx.db.query("toolJobs").withIndex("by_place", (q) => q.eq("p", place).lte("a", untilMs)),
      batch,
    );
    for (const job of ended) {
      await deletePayload(ctx, job);
      await ctx.db.delete("toolJobs", job._id);
    }
    for (const [tool, jobs] of byTool(ended)) await Counts.add(ctx, tool, { [counted]: -jobs });
    deletedJobs += ended.length;
  }
  const buriedJobs = await buryToolless(ctx, batch, nowMs);
  return { deletedJobs, buriedJobs, hasMore: batch.full };
}

function byTool(jobs: readonly Job[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { t } of jobs) counts.set(t, (counts.get(t) ?? 0) + 1);
  return counts;
}

/** Stripes of all tools, those that are no more included. */
const STRIPE_ROWS_MAX = 200;

/** Nobody serves the line of a tool that was removed: who stands in it is buried. */
async function buryToolless(ctx: MutationCtx, batch: Batch, nowMs: number): Promise<number> {
  const stripes = await ctx.db.query("toolJobStripes").take(STRIPE_ROWS_MAX);
  const removed = new Set(stripes.map(({ t }) => t).filter((tool) => queueOf(tool) === null));
  let buried = 0;
  for (const tool of removed)
    while (batch.rowsLeft > 0) {
      const job = await Line.firstOfLine(ctx, tool);
      if (job === null) break;
      await Line.leave(ctx, { job, stripe: null });
      await bury(ctx, job, "unknown_tool", nowMs);
      batch.rowsLeft -= 1;
      buried += 1;
      batch.full ||= batch.rowsLeft <= 0;
    }
  return buried;
}
