import { v } from "convex/values";
import { DAY, SECOND } from "../src/core/time";
import { AppError } from "../src/errors/appError";
import { internal } from "./_generated/api";
import { newBatch, takeBatch } from "./model/batch";
import { internalMutation, internalQuery } from "./model/functionBoundaries";
import * as SlotPicks from "./model/slotPicks";
import * as Slots from "./model/slots";

const LEASE_MIN_MS = 15 * SECOND;
const LEASE_MAX_MS = DAY;
const SATURATED_RETRY_MS = SECOND;
const LIST_MAX = 500;

interface Held extends Slots.Lease {
  readonly holder: string | null;
}

interface Acquired {
  acquired: boolean;
  inFlight: number;
  retryAfterMs: number;
  fence: number | null;
}

/**
 * Takes one of `maxConcurrent` slots for `leaseId`, or says when to come back. Asking again with
 * the same lease id renews it: a reply that was lost costs no second slot. Throws `invalid_request`
 * for a size out of 1 to 500, and a lease above a day.
 */
export const acquireSlot = internalMutation({
  args: {
    provider: v.string(),
    leaseId: v.string(),
    maxConcurrent: v.number(),
    leaseTtlMs: v.number(),
  },
  returns: v.object({
    acquired: v.boolean(),
    /** Slots held of those seen; exact where the pool is full. */
    inFlight: v.number(),
    retryAfterMs: v.number(),
    fence: v.union(v.number(), v.null()),
  }),
  handler: async (ctx, { leaseId, leaseTtlMs, maxConcurrent, provider }): Promise<Acquired> => {
    const nowMs = Date.now();
    const size = Math.floor(maxConcurrent);
    if (!(size >= 1 && size <= Slots.POOL_SLOTS_MAX))
      throw new AppError("invalid_request", { detail: "maxConcurrent is 1 to 500." });
    if (leaseTtlMs > LEASE_MAX_MS)
      throw new AppError("invalid_request", { detail: "leaseTtlMs is at most a day." });
    const leaseMs = Math.max(LEASE_MIN_MS, Math.floor(leaseTtlMs) || LEASE_MIN_MS);
    const seen: Held[] = await ctx.runQuery(
      internal.bulkhead.listHeld,
      { provider, nowMs },
      { useStaleSnapshot: true },
    );
    const own = seen.find(({ holder }) => holder === leaseId);
    if (own !== undefined && (await Slots.renew(ctx, own, { nowMs, leaseMs })))
      return { acquired: true, inFlight: seen.length, retryAfterMs: 0, fence: own.fence };
    const request = { pool: provider, size, leaseMs, holder: leaseId };
    const free = await Slots.findFree(ctx, request, nowMs);
    if (free === null)
      return {
        acquired: false,
        inFlight: seen.length,
        retryAfterMs: SATURATED_RETRY_MS,
        fence: null,
      };
    const { fence } = await Slots.take(ctx, free, nowMs);
    return { acquired: true, inFlight: seen.length + 1, retryAfterMs: 0, fence };
  },
});

/** Frees the slot that `leaseId` holds. A lease that expired and was taken over frees nothing. */
export const releaseSlot = internalMutation({
  args: { provider: v.string(), leaseId: v.string(), fence: v.optional(v.number()) },
  returns: v.object({ released: v.boolean() }),
  handler: async (ctx, { fence, leaseId, provider }): Promise<{ released: boolean }> => {
    const nowMs = Date.now();
    const seen: Held[] = await ctx.runQuery(
      internal.bulkhead.listHeld,
      { provider, nowMs },
      { useStaleSnapshot: true },
    );
    const own = seen.find(({ holder }) => holder === leaseId);
    const row = (own === undefined ? null : await Slots.loadHeld(ctx, own)) ?? (await heldNow());
    if (row === null || (fence !== undefined && row.f !== fence)) return { released: false };
    await Slots.release(ctx, row, nowMs);
    return { released: true };

    // A slot taken a moment ago is not in an older snapshot; left to its lease, it would be lost.
    async function heldNow() {
      const held = await Slots.held(ctx, provider, nowMs);
      return held.find(({ h }) => h === leaseId) ?? null;
    }
  },
});

/** Slots of a provider that are held now, up to `limit` (at most 500). */
export const listInFlightByProvider = internalQuery({
  args: { provider: v.string(), limit: v.optional(v.number()) },
  returns: v.array(
    v.object({
      provider: v.string(),
      index: v.number(),
      leaseId: v.union(v.string(), v.null()),
      expiresAt: v.number(),
    }),
  ),
  handler: async (ctx, { provider, limit = LIST_MAX }) => {
    const held = await Slots.held(ctx, provider, Date.now());
    return held
      .slice(0, Math.min(LIST_MAX, Math.max(1, Math.floor(limit) || 1)))
      .map(({ e, h, i }) => ({ provider, index: i, leaseId: h ?? null, expiresAt: e }));
  },
});

/** The slots held in a pool. For an acquisition, on a stale snapshot. */
export const listHeld = internalQuery({
  args: { provider: v.string(), nowMs: v.number() },
  returns: v.array(
    v.object({
      slotId: v.id("slots"),
      fence: v.number(),
      holder: v.union(v.string(), v.null()),
    }),
  ),
  handler: async (ctx, { nowMs, provider }) =>
    (await Slots.held(ctx, provider, nowMs)).map(({ _id, f, h }) => ({
      slotId: _id,
      fence: f,
      holder: h ?? null,
    })),
});

/** A free slot at or after some random points. For an admission, on a stale snapshot. */
export const pickFree = internalQuery({
  args: {
    pool: v.string(),
    size: v.number(),
    points: v.array(v.number()),
    looks: v.number(),
    late: v.boolean(),
    nowMs: v.number(),
  },
  returns: v.object({
    free: v.union(
      v.null(),
      v.object({
        index: v.number(),
        id: v.union(v.id("slots"), v.null()),
        sinceMs: v.number(),
      }),
    ),
    gap: v.number(),
    busy: v.array(v.id("slots")),
    crowded: v.boolean(),
  }),
  handler: async (ctx, { nowMs, ...request }) => {
    const { busy, ...picked } = await SlotPicks.pick(ctx, request, nowMs);
    return { ...picked, busy: [...busy] };
  },
});

/**
 * Forgets the holders of leases that ran out, in bounded batches. Nothing waits for it: an expired
 * slot is free to whoever looks.
 */
export const cleanupExpiredLeases = internalMutation({
  args: { after: v.optional(v.number()) },
  returns: v.object({ deleted: v.number() }),
  handler: async (ctx, { after }) => {
    const nowMs = Date.now();
    const batch = newBatch();
    const rows = await takeBatch(
      ctx.db.query("slots").withIndex("by_creation_time", (q) => q.gt("_creationTime", after ?? 0)),
      batch,
    );
    let deleted = 0;
    for (const row of rows) {
      if (row.h === undefined || row.e > nowMs) continue;
      await Slots.release(ctx, row, row.e);
      deleted += 1;
    }
    const last = rows.at(-1);
    if (batch.full && last !== undefined)
      await ctx.scheduler.runAfter(0, internal.bulkhead.cleanupExpiredLeases, {
        after: last._creationTime,
      });
    return { deleted };
  },
});
