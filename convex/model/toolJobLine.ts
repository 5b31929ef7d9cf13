/** Where a job waits: next in one slot, or in its tool's line, which is striped. */
import {
  anyStripe,
  classOf,
  drawClass,
  lineOf,
  PLACE,
  type PerQos,
  placeInLine,
  type QosCode,
  type Standing,
  standingOf,
  STRIPES,
  stripeMax,
} from "../../src/core/queue";
import { internal } from "../_generated/api";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import * as Slots from "./slots";
import type { Job, ToolQueue } from "./toolJobRows";

type Slot = Doc<"slots">;
type Stripe = Doc<"toolJobStripes">;

/** Where there is room for a job, in the order in which it is looked for. */
export type Seat =
  | { readonly kind: "slot"; readonly free: Slots.FreeSlot }
  | { readonly kind: "next"; readonly slot: Slot }
  | { readonly kind: "line"; readonly stripe: number; readonly row: Stripe | null }
  | { readonly kind: "full" };

/** Stripes tried after the first was full. */
const STRIPE_TRIES = 3;
/** Slots tried for a place as next. */
const NEXT_TRIES = 2;

const requestOf = ({ pool, size, slotMs }: ToolQueue): Slots.SlotRequest => ({
  pool,
  size,
  leaseMs: slotMs,
});

export type Look =
  | { readonly kind: "free"; readonly free: Slots.FreeSlot }
  /** `slot` is held now, and this transaction fails should it be given back meanwhile. */
  | { readonly kind: "busy"; readonly slot: Slot; readonly seen: readonly Id<"slots">[] };

/**
 * A free slot, or one that is busy in this very moment. Whoever then decides to wait cannot be
 * forgotten: the end of that slot's job either sees who waits or makes this transaction start over.
 */
export async function findSlot(ctx: MutationCtx, queue: ToolQueue, nowMs: number): Promise<Look> {
  const request = requestOf(queue);
  const found = await Slots.search(ctx, request, nowMs);
  if (found.kind === "free") return { kind: "free", free: found.slot };
  for (const id of found.busy) {
    const row = await ctx.db.get("slots", id);
    if (row === null || row.i >= queue.size) continue;
    return row.e > nowMs
      ? { kind: "busy", slot: row, seen: found.busy }
      : { kind: "free", free: { request, index: row.i, row } };
  }
  // Every slot that was picked was taken meanwhile: any one of them, as it is now, says enough.
  const index = Math.floor(Math.random() * queue.size);
  const row = await ctx.db
    .query("slots")
    .withIndex("by_pool_index", (q) => q.eq("p", queue.pool).eq("i", index))
    .unique();
  return row !== null && row.e > nowMs
    ? { kind: "busy", slot: row, seen: [] }
    : { kind: "free", free: { request, index, row } };
}

/** Where a job may go. One that must not be refused is put in line however long that is. */
export async function findSeat(
  ctx: MutationCtx,
  queue: ToolQueue,
  { mustFit, nowMs }: { readonly mustFit: boolean; readonly nowMs: number },
): Promise<Seat> {
  const look = await findSlot(ctx, queue, nowMs);
  if (look.kind === "free") return { kind: "slot", free: look.free };
  const slot = queue.room.nexts ? await findSlotWithoutNext(ctx, queue, look, nowMs) : null;
  if (slot !== null) return { kind: "next", slot };
  return await findStripe(ctx, queue, mustFit);
}

/** A busy slot nobody is to run in next, where nobody stands in line. */
async function findSlotWithoutNext(
  ctx: MutationCtx,
  { pool, size, tool }: ToolQueue,
  { seen, slot }: Extract<Look, { kind: "busy" }>,
  nowMs: number,
): Promise<Slot | null> {
  const from = Math.floor(Math.random() * size);
  const open: Id<"slots">[] = await ctx.runQuery(
    internal.toolJobPicks.pickOpenSlots,
    { toolName: tool, slotIds: [slot._id, ...seen], pool, size, from, looks: NEXT_TRIES, nowMs },
    { useStaleSnapshot: true },
  );
  for (const id of open) {
    const row = await ctx.db.get("slots", id);
    if (row !== null && row.e > nowMs && row.n === undefined && row.i < size) return row;
  }
  return null;
}

interface OpenSlotsRequest {
  readonly toolName: string;
  /** Slots that were busy, looked at first. */
  readonly slotIds: readonly Id<"slots">[];
  readonly pool: string;
  readonly size: number;
  /** Where the look through the pool begins when those have a next. */
  readonly from: number;
  /** Slots that are enough. */
  readonly looks: number;
  readonly nowMs: number;
}

/**
 * Slots that have no next, where nobody stands in line: among some, else in the whole pool. One job
 * in line costs more than the look: all slots that end without a next would race for it. To be run
 * on a stale snapshot.
 */
export async function pickOpenSlots(
  ctx: QueryCtx,
  { from, looks, nowMs, pool, size, slotIds, toolName }: OpenSlotsRequest,
): Promise<Id<"slots">[]> {
  if ((await pickStripe(ctx, { toolName, from: 0 })) !== null) return [];
  const open = new Set<Id<"slots">>();
  for (const id of slotIds) {
    const row = await ctx.db.get("slots", id);
    if (row !== null && row.n === undefined) open.add(id);
    if (open.size >= looks) break;
  }
  if (open.size > 0) return [...open];
  for (const [first, end] of [
    [from, size],
    [0, from],
  ] as const) {
    const rows = ctx.db
      .query("slots")
      .withIndex("by_pool_index", (q) => q.eq("p", pool).gte("i", first).lt("i", end));
    for await (const row of rows) {
      if (row.e > nowMs && row.n === undefined) open.add(row._id);
      if (open.size >= looks) return [...open];
    }
  }
  return [...open];
}

async function findStripe(
  ctx: MutationCtx,
  { room, tool }: ToolQueue,
  mustFit: boolean,
): Promise<Seat> {
  const stripe = anyStripe(room.inLine, Math.random);
  const row = await loadStripe(ctx, tool, stripe);
  if (standing(row) < stripeMax(stripe, room.inLine)) return { kind: "line", stripe, row };
  const open: number[] = await ctx.runQuery(
    internal.toolJobPicks.pickOpenStripes,
    { toolName: tool, inLine: room.inLine },
    { useStaleSnapshot: true },
  );
  for (let tries = 0; tries < STRIPE_TRIES && open.length > 0; tries++) {
    const [other = stripe] = open.splice(Math.floor(Math.random() * open.length), 1);
    const there = await loadStripe(ctx, tool, other);
    if (standing(there) < stripeMax(other, room.inLine))
      return { kind: "line", stripe: other, row: there };
  }
  return mustFit ? { kind: "line", stripe, row } : { kind: "full" };
}

/** Stripes with room. To be run on a stale snapshot. */
export async function pickOpenStripes(
  ctx: QueryCtx,
  { inLine, toolName }: { toolName: string; inLine: number },
): Promise<number[]> {
  const rows = await stripesOf(ctx, toolName);
  const standingIn = new Map(rows.map((row) => [row.z, standing(row)]));
  return Array.from({ length: STRIPES }, (_, stripe) => stripe).filter(
    (stripe) => (standingIn.get(stripe) ?? 0) < stripeMax(stripe, inLine),
  );
}

/** Jobs that stand on a stripe. */
export const standing = (row: Pick<Stripe, QosCode> | null): number =>
  row === null ? 0 : row.r + row.i + row.b;

export async function stripesOf(ctx: QueryCtx, tool: string): Promise<Stripe[]> {
  return await ctx.db
    .query("toolJobStripes")
    .withIndex("by_tool_stripe", (q) => q.eq("t", tool))
    .take(STRIPES);
}

/** The first stripe with a job from a starting point on, round. To be run on a stale snapshot. */
export async function pickStripe(
  ctx: QueryCtx,
  { from, toolName }: { toolName: string; from: number },
): Promise<Id<"toolJobStripes"> | null> {
  const after = await ctx.db
    .query("toolJobStripes")
    .withIndex("by_tool_stripe", (q) => q.eq("t", toolName).gte("z", from))
    .first();
  if (after !== null || from === 0) return after?._id ?? null;
  const before = await ctx.db
    .query("toolJobStripes")
    .withIndex("by_tool_stripe", (q) => q.eq("t", toolName).lt("z", from))
    .first();
  return before?._id ?? null;
}

/** A job in line, with the stripe it stands on. */
export interface InLine {
  readonly job: Job;
  readonly stripe: Stripe | null;
}

/**
 * Who is served next: the head of a stripe found at random, of a class drawn among all. Where the
 * class drawn is not on that stripe it is looked for on the others, since a class with few jobs is
 * on few stripes and would wait for chance to find them; where it is nowhere, one is drawn among
 * those on the stripe.
 * Each hand-over finds every stripe with a job with a chance of 1/16 or more, so the head of a class
 * of weight w out of W is served by it with at least w / 16 W: that it is still there after n of them
 * has a chance of (1 - w / 16 W)^n at most, whoever comes meanwhile. Behind the head, it is as many
 * times that as there are jobs before it on its stripe.
 * Where that finds nobody, the whole line is read as it is now: who joins it meanwhile makes this
 * transaction start over, so that nobody is overlooked.
 */
export async function firstInLine(
  ctx: MutationCtx,
  { tool, weights }: ToolQueue,
): Promise<InLine | null> {
  const stripeId: Id<"toolJobStripes"> | null = await ctx.runQuery(
    internal.toolJobPicks.pickStripe,
    { toolName: tool, from: Math.floor(Math.random() * STRIPES) },
    { useStaleSnapshot: true },
  );
  const stripe = stripeId === null ? null : await ctx.db.get("toolJobStripes", stripeId);
  const drawn = stripe === null ? null : drawClass(EVERY_CLASS, weights, Math.random);
  if (stripe !== null && drawn !== null && stripe[drawn] === 0) {
    const job = await elsewhere(ctx, { tool, qos: drawn, stripe: stripe.z });
    if (job !== null) return { job, stripe: null };
  }
  const qos =
    stripe === null || drawn === null || stripe[drawn] > 0
      ? drawn
      : drawClass(stripe, weights, Math.random);
  if (stripe !== null && qos !== null) {
    const job = await headOf(ctx, { tool, qos, stripe: stripe.z });
    if (job !== null) return { job, stripe };
  }
  const job = await firstOfLine(ctx, tool);
  return job === null ? null : { job, stripe: null };
}

const EVERY_CLASS: PerQos = { r: 1, i: 1, b: 1 };

/** Somebody of a class that is not on a stripe, if it is on another. */
async function elsewhere(ctx: MutationCtx, at: Standing): Promise<Job | null> {
  const jobId: Id<"toolJobs"> | null = await ctx.runQuery(internal.toolJobPicks.pickOfClass, at, {
    useStaleSnapshot: true,
  });
  const job = jobId === null ? null : await ctx.db.get("toolJobs", jobId);
  const standing = job === null ? null : standingOf(job.p);
  return standing?.tool === at.tool && standing.qos === at.qos ? job : null;
}

/** The head of the first stripe with a job of a class on it, from a stripe on, round the line. */
export async function pickOfClass(ctx: QueryCtx, at: Standing): Promise<Id<"toolJobs"> | null> {
  const { from, to } = classOf(at);
  const start = placeInLine(at);
  for (const [first, end] of [
    [start, to],
    [from, start],
  ] as const) {
    const job = await ctx.db
      .query("toolJobs")
      .withIndex("by_place", (q) => q.gte("p", first).lt("p", end))
      .first();
    if (job !== null) return job._id;
  }
  return null;
}

/** Anybody who stands in line. */
export async function firstOfLine(ctx: QueryCtx, tool: string): Promise<Job | null> {
  const { from, to } = lineOf(tool);
  return await ctx.db
    .query("toolJobs")
    .withIndex("by_place", (q) => q.gte("p", from).lt("p", to))
    .first();
}

/** Who has stood longest on a stripe, of one class. */
export async function headOf(ctx: QueryCtx, at: Standing): Promise<Job | null> {
  return await ctx.db
    .query("toolJobs")
    .withIndex("by_place", (q) => q.eq("p", placeInLine(at)))
    .first();
}

/** Counts jobs that join a stripe, or with negative numbers leave it. `row` is the stripe as read. */
export async function count(
  ctx: MutationCtx,
  change: {
    readonly tool: string;
    readonly stripe: number;
    readonly joined: PerQos;
    readonly row: Stripe | null;
  },
): Promise<void> {
  const { joined, row, stripe, tool } = change;
  if (joined.r === 0 && joined.i === 0 && joined.b === 0) return;
  const counts = {
    r: (row?.r ?? 0) + joined.r,
    i: (row?.i ?? 0) + joined.i,
    b: (row?.b ?? 0) + joined.b,
  };
  const fields = { t: tool, z: stripe, ...counts };
  if (row === null) await ctx.db.insert("toolJobStripes", fields);
  else if (standing(counts) <= 0) await ctx.db.delete("toolJobStripes", row._id);
  else await ctx.db.replace("toolJobStripes", row._id, fields);
}

/** So many jobs of one class. */
export const ofClass = (qos: QosCode, jobs: number): PerQos => ({ ...NONE, [qos]: jobs });

const NONE: PerQos = { r: 0, i: 0, b: 0 };

export async function loadStripe(
  ctx: QueryCtx,
  tool: string,
  stripe: number,
): Promise<Stripe | null> {
  return await ctx.db
    .query("toolJobStripes")
    .withIndex("by_tool_stripe", (q) => q.eq("t", tool).eq("z", stripe))
    .unique();
}

/** Takes a job off its waiting place; what becomes of its row is the caller's to write. */
export async function leave(ctx: MutationCtx, { job, stripe }: InLine): Promise<void> {
  const at = standingOf(job.p);
  if (at !== null) {
    const row = stripe ?? (await loadStripe(ctx, at.tool, at.stripe));
    await count(ctx, { ...at, joined: ofClass(at.qos, -1), row });
  }
  if (job.p !== PLACE.next || job.l === undefined) return;
  const slot = await ctx.db.get("slots", job.l);
  if (slot?.n === job._id) await ctx.db.patch("slots", slot._id, { n: undefined });
}
