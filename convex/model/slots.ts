import { MINUTE } from "../../src/core/time";
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";

/** A slot held until it expires. The fence proves to later calls that it is still the same holding. */
export interface Lease {
  readonly pool: string;
  readonly index: number;
  readonly fence: number;
}

export interface SlotRequest {
  readonly pool: string;
  /** Slots in the pool. Slots at or above it drain: nobody takes them again. */
  readonly size: number;
  readonly holder: string;
  readonly leaseMs: number;
}

/** A free slot found, and what to write when every other guard agrees as well. */
export interface FreeSlot {
  readonly request: SlotRequest;
  readonly index: number;
  readonly row: Doc<"slots"> | null;
}

/** Window of the calls and retries counted on a slot. */
const TRAFFIC_WINDOW_MS = 2 * MINUTE;
/** Slots of one pool read for a sum; no pool is larger. */
export const SLOTS_READ_MAX = 500;

/** Random places looked at before the whole pool is read. */
const RANDOM_TRIES = 3;

/**
 * Finds a free slot without writing. The transaction depends on the slots it looked at: a few at
 * random while the pool has room, each of them only when it refuses.
 */
export async function findFree(
  ctx: MutationCtx,
  request: SlotRequest,
  nowMs: number,
): Promise<FreeSlot | null> {
  const first = Math.floor(Math.random() * request.size);
  for (let i = 0; i < Math.min(RANDOM_TRIES, request.size); i++) {
    const index = i === 0 ? first : Math.floor(Math.random() * request.size);
    const row = await load(ctx, request.pool, index);
    if (isFree(row, nowMs)) return { request, index, row };
  }
  for (let i = 0; i < request.size; i++) {
    const index = (first + i) % request.size;
    const row = await load(ctx, request.pool, index);
    if (isFree(row, nowMs)) return { request, index, row };
  }
  return null;
}

/** Takes a slot that `findFree` found in this transaction. */
export async function take(ctx: MutationCtx, free: FreeSlot, nowMs: number): Promise<Lease> {
  const { pool, holder, leaseMs } = free.request;
  const fence = (free.row?.fence ?? 0) + 1;
  const fields = {
    pool,
    index: free.index,
    holder,
    fence,
    expiresAt: nowMs + leaseMs,
    countedFromMs: free.row?.countedFromMs ?? nowMs,
    calls: free.row?.calls ?? 0,
    retries: free.row?.retries ?? 0,
  };
  if (free.row === null) await ctx.db.insert("slots", fields);
  else await ctx.db.replace("slots", free.row._id, fields);
  return { pool, index: free.index, fence };
}

/**
 * Extends a lease, writing only once half of it has passed. False when it was lost: expired and
 * taken by another holder.
 */
export async function renew(
  ctx: MutationCtx,
  lease: Lease,
  { nowMs, leaseMs }: { readonly nowMs: number; readonly leaseMs: number },
): Promise<boolean> {
  const row = await load(ctx, lease.pool, lease.index);
  if (row?.fence !== lease.fence || row.holder === null) return false;
  if (row.expiresAt - nowMs < leaseMs / 2)
    await ctx.db.patch("slots", row._id, { expiresAt: nowMs + leaseMs });
  return true;
}

/** Frees the slot if it is still this holding, and counts its requests; else changes nothing. */
export async function release(
  ctx: MutationCtx,
  lease: Lease,
  { attempts, nowMs }: { readonly attempts: number; readonly nowMs: number },
): Promise<boolean> {
  const row = await load(ctx, lease.pool, lease.index);
  if (row?.fence !== lease.fence || row.holder === null) return false;
  const fresh = nowMs - row.countedFromMs < TRAFFIC_WINDOW_MS;
  await ctx.db.patch("slots", row._id, {
    holder: null,
    expiresAt: 0,
    countedFromMs: fresh ? row.countedFromMs : nowMs,
    calls: (fresh ? row.calls : 0) + 1,
    retries: (fresh ? row.retries : 0) + Math.max(0, attempts - 1),
  });
  return true;
}

/** Calls and retries a pool has settled lately. They ride on the slots, which are written anyway. */
export async function traffic(
  ctx: QueryCtx,
  pool: string,
  nowMs: number,
): Promise<{ readonly calls: number; readonly retries: number }> {
  const rows = await ctx.db
    .query("slots")
    .withIndex("by_pool_index", (q) => q.eq("pool", pool))
    .take(SLOTS_READ_MAX);
  const recent = rows.filter((row) => nowMs - row.countedFromMs < TRAFFIC_WINDOW_MS);
  return {
    calls: recent.reduce((sum, row) => sum + row.calls, 0),
    retries: recent.reduce((sum, row) => sum + row.retries, 0),
  };
}

/** Slots of a pool held at `nowMs`, at most `limit` of them. */
export async function held(
  ctx: QueryCtx,
  { pool, limit }: { readonly pool: string; readonly limit: number },
  nowMs: number,
): Promise<Doc<"slots">[]> {
  const rows = await ctx.db
    .query("slots")
    .withIndex("by_pool_index", (q) => q.eq("pool", pool))
    .take(limit);
  return rows.filter((row) => !isFree(row, nowMs));
}

function isFree(row: Doc<"slots"> | null, nowMs: number): boolean {
  if (row === null) return true;
  return row.holder === null || row.expiresAt <= nowMs;
}

async function load(ctx: QueryCtx, pool: string, index: number): Promise<Doc<"slots"> | null> {
  return await ctx.db
    .query("slots")
    .withIndex("by_pool_index", (q) => q.eq("pool", pool).eq("index", index))
    .unique();
}
