/** How a job gets a slot, and how a slot goes from one job to the next. */
import { env } from "../../src/config/env";
import { readKnob } from "../../src/config/read";
import { isPast, PLACE, placeInLine } from "../../src/core/queue";
import { internal } from "../_generated/api";
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import * as Slots from "./slots";
import { bury, missDeadline } from "./toolJobEnds";
import * as Line from "./toolJobLine";
import {
  argsOf,
  attemptsOf,
  type Claim,
  deadlineOf,
  type Job,
  type JobId,
  type JobRow,
  LEASE_GRACE_MS,
  looseRow,
  queueOf,
  saveRow,
  type ToolQueue,
  without,
} from "./toolJobRows";

type Slot = Doc<"slots">;

/** A job to be put somewhere: a new one, or one that is there and stands nowhere. */
export interface Draft {
  readonly row: JobRow;
  readonly of: { readonly id: JobId } | { readonly argsJson: string };
}

export const draftOf = (job: Job): Draft => ({ row: looseRow(job), of: { id: job._id } });

/** Where a job is now, and what to run it with where it is its turn. */
export interface Placed {
  readonly jobId: JobId;
  readonly claim: Claim | null;
}

/** Puts a job where room was found for it. */
export async function place(
  ctx: MutationCtx,
  queue: ToolQueue,
  draft: Draft,
  { nowMs, seat }: { readonly seat: Exclude<Line.Seat, { kind: "full" }>; readonly nowMs: number },
): Promise<Placed> {
  const { of, row } = draft;
  switch (seat.kind) {
    case "slot": {
      const claim = await start(ctx, queue, draft, { free: seat.free, nowMs });
      return { jobId: claim.jobId, claim };
    }
    case "next": {
      const jobId = await saveRow(ctx, { ...row, p: PLACE.next, a: nowMs, l: seat.slot._id }, of);
      await ctx.db.patch("slots", seat.slot._id, { n: jobId });
      return { jobId, claim: null };
    }
    case "line": {
      const at = { tool: queue.tool, qos: row.c, stripe: seat.stripe };
      const jobId = await saveRow(ctx, { ...row, p: placeInLine(at), a: nowMs }, of);
      await Line.count(ctx, { ...at, joined: Line.ofClass(row.c, 1), row: seat.row });
      return { jobId, claim: null };
    }
  }
}

/** Starts a job in a free slot. */
export async function start(
  ctx: MutationCtx,
  queue: ToolQueue,
  draft: Draft,
  { free, nowMs }: { readonly free: Slots.FreeSlot; readonly nowMs: number },
): Promise<Claim> {
  const { row } = free;
  if (row === null) {
    // A slot taken for the first time has no id before it is written.
    const lease = await Slots.take(ctx, free, nowMs);
    const claim = await claimFor(ctx, queue, draft, { lease, nowMs });
    await ctx.db.patch("slots", lease.slotId, { h: claim.jobId });
    return claim;
  }
  const lease = { slotId: row._id, fence: row.f + 1 };
  const claim = await claimFor(ctx, queue, draft, { lease, nowMs });
  const request = { ...free.request, holder: claim.jobId };
  await Slots.take(ctx, { ...free, request }, nowMs);
  return claim;
}

/** Writes down that a job runs under a lease, and schedules the end of that. */
async function claimFor(
  ctx: MutationCtx,
  { leaseMs }: ToolQueue,
  { of, row }: Draft,
  { lease, nowMs }: { readonly lease: Slots.Lease; readonly nowMs: number },
): Promise<Claim> {
  const { fence: g, slotId: l } = lease;
  const leaseExpiresAt = nowMs + leaseMs;
  const x = await ctx.scheduler.runAt(
    leaseExpiresAt + LEASE_GRACE_MS,
    internal.toolJobs.expireLease,
    { slotId: l, fence: g },
  );
  const running = { ...row, p: PLACE.running, a: nowMs, f: row.f + 1, l, g, x };
  const jobId = await saveRow(ctx, running, of);
  return {
    jobId,
    fence: running.f,
    toolName: row.t,
    argsJson: "id" in of ? await argsOf(ctx, of.id, row) : of.argsJson,
    attempts: attemptsOf(running),
    leaseExpiresAt,
    ...(row.d === undefined ? {} : { deadlineAt: row.d }),
  };
}

/** Starts workers for claims, a few for each. */
export async function startWorkers(ctx: MutationCtx, claims: readonly Claim[]): Promise<void> {
  const each = readKnob(env, "TOOL_JOB_MAX_PER_RUN");
  for (let from = 0; from < claims.length; from += each)
    await ctx.scheduler.runAfter(0, internal.toolRuns.run, {
      claims: claims.slice(from, from + each),
    });
}

type Turn =
  | { readonly kind: "job"; readonly job: Job }
  | { readonly kind: "nobody" }
  /** As many as one look may take could not be started any more; there may be others. */
  | { readonly kind: "unknown" };

/** Jobs that came too late and are ended in one transaction: it bears no more, whatever the knob. */
const BURDEN_MAX = 200;
/** Jobs that weigh as much as one with large arguments, which are read and deleted. */
const PAYLOAD_BURDEN = 4;

/** Whose turn it is in a slot, taken off its waiting place. Who came too late is told so. */
async function nextTurn(
  ctx: MutationCtx,
  queue: ToolQueue,
  { next, nowMs }: { readonly next: Job | null; readonly nowMs: number },
): Promise<Turn> {
  const looks = readKnob(env, "TOOL_JOB_CLAIM_SCAN");
  let chosen = next;
  let burden = 0;
  for (let look = 0; look < looks && burden < BURDEN_MAX; look++) {
    const found =
      chosen === null ? await Line.firstInLine(ctx, queue) : { job: chosen, stripe: null };
    chosen = null;
    if (found === null) return { kind: "nobody" };
    if (found.job.p !== PLACE.next) await Line.leave(ctx, found);
    if (!isPast(deadlineOf(found.job), nowMs)) return { kind: "job", job: found.job };
    await missDeadline(ctx, found.job, nowMs);
    burden += found.job.v === true ? PAYLOAD_BURDEN : 1;
  }
  return { kind: "unknown" };
}

/**
 * Gives the slot of a job that ended to whoever is next, in one write, or frees it. Returns what to
 * run there, for the caller to run or to start a worker with.
 */
export async function handOn(
  ctx: MutationCtx,
  held: Slot,
  {
    completed,
    nowMs,
    toolName,
  }: {
    readonly toolName: string;
    readonly completed: boolean;
    readonly nowMs: number;
  },
): Promise<Claim | null> {
  const slot = without(held, ["n"]);
  const riding = completed ? { d: (slot.d ?? 0) + 1 } : {};
  const next = await loadNext(ctx, held);
  const queue = queueOf(toolName);
  if (queue === null) {
    await Slots.release(ctx, slot, nowMs, riding);
    if (next !== null) await bury(ctx, next, "unknown_tool", nowMs);
    return null;
  }
  if (slot.i >= queue.size) {
    await Slots.release(ctx, slot, nowMs, riding);
    return await moveOn(ctx, queue, { next, nowMs });
  }
  const turn = await nextTurn(ctx, queue, { next, nowMs });
  if (turn.kind !== "job") {
    await Slots.release(ctx, slot, nowMs, riding);
    if (turn.kind === "unknown") await serveLater(ctx, queue);
    return null;
  }
  const lease = { slotId: slot._id, fence: slot.f + 1 };
  const claim = await claimFor(ctx, queue, draftOf(turn.job), { lease, nowMs });
  const holder = { holder: claim.jobId, expiresAtMs: nowMs + queue.slotMs, ...riding };
  await Slots.handOver(ctx, slot, holder);
  return claim;
}

/** The job that was chosen to run next in a slot, if it still is. */
async function loadNext(ctx: MutationCtx, { _id, n }: Slot): Promise<Job | null> {
  const jobId = n === undefined ? null : ctx.db.normalizeId("toolJobs", n);
  const job = jobId === null ? null : await ctx.db.get("toolJobs", jobId);
  return job?.p === PLACE.next && job.l === _id ? job : null;
}

/** Looks after those who counted on a slot that is not used any more: its pool became smaller. */
async function moveOn(
  ctx: MutationCtx,
  queue: ToolQueue,
  { next, nowMs }: { readonly next: Job | null; readonly nowMs: number },
): Promise<Claim | null> {
  const isLate = next !== null && isPast(deadlineOf(next), nowMs);
  if (isLate) await missDeadline(ctx, next, nowMs);
  if (next === null || isLate) return await serve(ctx, queue, nowMs);
  const seat = await Line.findSeat(ctx, queue, { mustFit: true, nowMs });
  if (seat.kind === "full") throw new Error("a job that must fit finds a place");
  return (await place(ctx, queue, draftOf(next), { seat, nowMs })).claim;
}

/** Starts whoever is next in line in a free slot. Null where nobody waits or none is free. */
export async function serve(
  ctx: MutationCtx,
  queue: ToolQueue,
  nowMs: number,
): Promise<Claim | null> {
  const look = await Line.findSlot(ctx, queue, nowMs);
  if (look.kind === "busy") return null;
  const turn = await nextTurn(ctx, queue, { next: null, nowMs });
  if (turn.kind === "unknown") await serveLater(ctx, queue);
  if (turn.kind !== "job") return null;
  return await start(ctx, queue, draftOf(turn.job), { free: look.free, nowMs });
}

async function serveLater(ctx: MutationCtx, { tool }: ToolQueue): Promise<void> {
  await ctx.scheduler.runAfter(0, internal.toolJobs.serveLine, { toolName: tool });
}
