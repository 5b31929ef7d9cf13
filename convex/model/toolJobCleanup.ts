/** The end of retention, and of jobs whose tool is no more. */
import { env } from "../../src/config/env";
import { readKnob } from "../../src/config/read";
import { PLACE } from "../../src/core/queue";
import type { MutationCtx } from "../_generated/server";
import { type Batch, charge, newBatch, takeFirst } from "./batch";
import * as Counts from "./toolJobCounts";
import { bury } from "./toolJobEnds";
import * as Line from "./toolJobLine";
import { type Job, payloadOf, queueOf } from "./toolJobRows";

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
    const ended = await deleteEnded(ctx, { place, untilMs }, batch);
    for (const [tool, jobs] of byTool(ended)) await Counts.add(ctx, tool, { [counted]: -jobs });
    deletedJobs += ended.length;
  }
  const buriedJobs = batch.full ? 0 : await buryToolless(ctx, batch, nowMs);
  return { deletedJobs, buriedJobs, hasMore: batch.full };
}

/** Deletes jobs that stand somewhere since before, as far as a batch goes: payloads are the most of it. */
async function deleteEnded(
  ctx: MutationCtx,
  { place, untilMs }: { readonly place: string; readonly untilMs: number },
  batch: Batch,
): Promise<Job[]> {
  const deleted: Job[] = [];
  while (!batch.full) {
    const ended = ctx.db
      .query("toolJobs")
      .withIndex("by_place", (q) => q.eq("p", place).lte("a", untilMs));
    const job = await takeFirst(ended, batch);
    if (job === null) break;
    const payload = await payloadOf(ctx, job);
    if (payload !== null) {
      charge(batch, payload);
      await ctx.db.delete("toolJobPayloads", payload._id);
    }
    await ctx.db.delete("toolJobs", job._id);
    deleted.push(job);
  }
  return deleted;
}

function byTool(jobs: readonly Job[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { t } of jobs) counts.set(t, (counts.get(t) ?? 0) + 1);
  return counts;
}

/** Stripes looked at, those of all tools that there are with room for as many again. */
const STRIPE_ROWS_MAX = 100;
/** Rows that a job leaving its line reads and writes besides its own: its stripe, and its count. */
const ROWS_OF_BURIAL = 2;

/** Nobody serves the line of a tool that was removed: who stands in it is buried. */
async function buryToolless(ctx: MutationCtx, batch: Batch, nowMs: number): Promise<number> {
  const stripes = await ctx.db.query("toolJobStripes").take(STRIPE_ROWS_MAX);
  batch.rowsLeft -= stripes.length;
  const removed = new Set(stripes.map(({ t }) => t).filter((tool) => queueOf(tool) === null));
  let buried = 0;
  for (const tool of removed)
    while (!batch.full) {
      const job = await Line.firstOfLine(ctx, tool);
      if (job === null) break;
      batch.full = batch.rowsLeft <= 0;
      if (batch.full) break;
      await Line.leave(ctx, { job, stripe: null });
      await bury(ctx, job, "unknown_tool", nowMs);
      charge(batch, job);
      batch.rowsLeft -= ROWS_OF_BURIAL;
      buried += 1;
    }
  return buried;
}
