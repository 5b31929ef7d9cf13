/** Many jobs at once: each slot and each stripe is looked at once for all of them. */
import { placeInLine, type QosCode, STRIPES, stripeMax } from "../../src/core/queue";
import { internal } from "../_generated/api";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import * as Slots from "./slots";
import * as Line from "./toolJobLine";
import {
  type Claim,
  type JobId,
  newRow,
  type NewJob,
  saveRow,
  type ToolQueue,
} from "./toolJobRows";
import { findInFlight } from "./toolJobs";
import * as Starts from "./toolJobStarts";

/** Jobs put into the queue in one transaction, at most. */
export const BATCH_JOBS_MAX = 100;

interface FreeSeat {
  readonly index: number;
  readonly id: Id<"slots"> | null;
}

/** Free slots of a pool, from a starting point on. To be run on a stale snapshot. */
export async function pickFreeSlots(
  ctx: QueryCtx,
  {
    from,
    limit,
    nowMs,
    pool,
    size,
  }: {
    readonly pool: string;
    readonly size: number;
    readonly from: number;
    readonly limit: number;
    readonly nowMs: number;
  },
): Promise<FreeSeat[]> {
  const rows = await Slots.ofPool(ctx, pool);
  const rowAt = new Map(rows.map((row) => [row.i, row]));
  return Array.from({ length: size }, (_, step) => (from + step) % size)
    .filter((index) => (rowAt.get(index)?.e ?? 0) <= nowMs)
    .slice(0, limit)
    .map((index) => ({ index, id: rowAt.get(index)?._id ?? null }));
}

/** Makes many jobs of one tool for workers to run; those of work in flight are joined to it. */
export async function enqueueMany(
  ctx: MutationCtx,
  queue: ToolQueue,
  jobs: readonly NewJob[],
): Promise<PlacedMany> {
  const nowMs = Date.now();
  const drafts: Starts.Draft[] = [];
  const draftOfKey = new Map<string, number>();
  const joins: ({ readonly jobId: JobId } | { readonly draft: number })[] = [];
  for (const job of jobs) {
    const { argsJson, workKey } = job;
    const inFlight = await findInFlight(ctx, workKey, nowMs);
    const draft = (workKey === undefined ? undefined : draftOfKey.get(workKey)) ?? drafts.length;
    joins.push(inFlight === null ? { draft } : { jobId: inFlight._id });
    if (inFlight !== null || draft < drafts.length) continue;
    drafts.push({ row: newRow(job, queue, nowMs), of: { argsJson } });
    if (workKey !== undefined) draftOfKey.set(workKey, draft);
  }
  const placed = await placeMany(ctx, queue, drafts, { mustFit: false, nowMs });
  const jobIds = joins.map((join) =>
    "jobId" in join ? join.jobId : (placed.jobIds[join.draft] ?? null),
  );
  return { ...placed, jobIds };
}

export interface PlacedMany {
  /** In the order of the drafts; null for one that was refused. */
  readonly jobIds: readonly (JobId | null)[];
  readonly started: number;
  readonly waiting: number;
}

/**
 * Starts as many jobs as slots are free, each worker with a few of them, and puts the others in
 * line, spread over its stripes. Where all are full the rest is refused, unless it must fit.
 */
export async function placeMany(
  ctx: MutationCtx,
  queue: ToolQueue,
  drafts: readonly Starts.Draft[],
  { mustFit, nowMs }: { readonly mustFit: boolean; readonly nowMs: number },
): Promise<PlacedMany> {
  const claims = await startMany(ctx, queue, drafts, nowMs);
  await Starts.startWorkers(ctx, claims);
  const rest = drafts.slice(claims.length);
  const look = rest.length === 0 ? null : await Line.findSlot(ctx, queue, nowMs);
  const line = look === null ? [] : await lineUp(ctx, queue, rest, { mustFit, nowMs });
  // One came free since the look at all of them: whoever stands first in line takes it.
  const late = look?.kind === "free" ? await Starts.serve(ctx, queue, nowMs) : null;
  if (late !== null) await Starts.startWorkers(ctx, [late]);
  return {
    jobIds: [...claims.map(({ jobId }) => jobId), ...line],
    started: claims.length + (late === null ? 0 : 1),
    waiting: line.filter((jobId) => jobId !== null).length - (late === null ? 0 : 1),
  };
}

async function startMany(
  ctx: MutationCtx,
  queue: ToolQueue,
  drafts: readonly Starts.Draft[],
  nowMs: number,
): Promise<Claim[]> {
  const { pool, size, slotMs } = queue;
  const from = Math.floor(Math.random() * size);
  const picked: FreeSeat[] = await ctx.runQuery(
    internal.toolJobPicks.pickFreeSlots,
    { pool, size, from, limit: drafts.length, nowMs },
    { useStaleSnapshot: true },
  );
  const claims: Claim[] = [];
  for (const { id, index } of picked) {
    const draft = drafts[claims.length];
    if (draft === undefined) break;
    const row = id === null ? await slotAt(ctx, pool, index) : await ctx.db.get("slots", id);
    if (row !== null && row.e > nowMs) continue;
    const free = { request: { pool, size, leaseMs: slotMs }, index, row };
    claims.push(await Starts.start(ctx, queue, draft, { free, nowMs }));
  }
  return claims;
}

const slotAt = (ctx: QueryCtx, pool: string, index: number) =>
  ctx.db
    .query("slots")
    .withIndex("by_pool_index", (q) => q.eq("p", pool).eq("i", index))
    .unique();

/** A stripe while jobs are being put on it. */
interface Filling {
  readonly stripe: number;
  readonly row: Doc<"toolJobStripes"> | null;
  readonly joined: Record<QosCode, number>;
  room: number;
}

async function lineUp(
  ctx: MutationCtx,
  { room, tool }: ToolQueue,
  drafts: readonly Starts.Draft[],
  { mustFit, nowMs }: { readonly mustFit: boolean; readonly nowMs: number },
): Promise<(JobId | null)[]> {
  const rows = await Line.stripesOf(ctx, tool);
  const from = Math.floor(Math.random() * STRIPES);
  const stripes = Array.from({ length: STRIPES }, (_, step): Filling => {
    const stripe = (from + step) % STRIPES;
    const row = rows.find(({ z }) => z === stripe) ?? null;
    const left = stripeMax(stripe, room.inLine) - Line.standing(row);
    return { stripe, row, joined: { r: 0, i: 0, b: 0 }, room: left };
  });
  const jobIds: (JobId | null)[] = [];
  for (const { of, row } of drafts) {
    const filling = roomiest(stripes);
    if (filling === null || (filling.room <= 0 && !mustFit)) {
      jobIds.push(null);
      continue;
    }
    const p = placeInLine({ tool, qos: row.c, stripe: filling.stripe });
    jobIds.push(await saveRow(ctx, { ...row, p, a: nowMs }, of));
    filling.joined[row.c] += 1;
    filling.room -= 1;
  }
  for (const { joined, row, stripe } of stripes)
    await Line.count(ctx, { tool, stripe, joined, row });
  return jobIds;
}

/** The stripe with most room, so that jobs spread evenly; the first of equals. */
function roomiest(stripes: readonly Filling[]): Filling | null {
  return stripes.reduce<Filling | null>(
    (best, one) => (best === null || one.room > best.room ? one : best),
    null,
  );
}
