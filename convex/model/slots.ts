import type { WithoutSystemFields } from "convex/server";
import { type Counts, NO_COUNTS, type Tally } from "../../src/core/tally";
import { internal } from "../_generated/api";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { load, type Picked } from "./slotPicks";

type Slot = Doc<"slots">;

/** A slot held until it expires. The fence proves to later calls that it is still the same holding. */
export interface Lease {
  readonly slotId: Id<"slots">;
  readonly fence: number;
}

export interface SlotRequest {
  readonly pool: string;
  /** Slots in the pool. Slots at or above it drain: nobody takes them again. */
  readonly size: number;
  readonly leaseMs: number;
  /** Stored where somebody looks for it, such as a job's id. */
  readonly holder?: string;
  /** When the caller began to ask, in epoch milliseconds: one who has lost races does not race on. */
  readonly askedAtMs?: number;
}

/** A free slot found, and what to write when every other guard agrees as well. */
export interface FreeSlot {
  readonly request: SlotRequest;
  readonly index: number;
  readonly row: Slot | null;
}

/** Slots of one pool at most; a larger knob is not accepted. */
export const POOL_SLOTS_MAX = 500;

/** Pools smaller than this are never worth leaving a slot to others. */
const CROWDED_POOL_MIN = 32;
/** Busy slots in a row after which a free one is scarce. */
const SCARCE_GAP = 8;
/** Slots walked along before a pool is looked through as a whole. */
const WALK = 16;
/** A slot that has been free for longer than this is one that nobody races for. */
const RACED_FOR_MS = 250;
/** How long asking takes that has met a conflict or two. */
const LATE_MS = 120;
/** Slots looked at here and there before a pool is walked along. */
const POINTS = 4;
/** Picks that turn out taken before the pool counts as full. */
const PICKS_MAX = 3;

export type Search =
  | { readonly kind: "free"; readonly slot: FreeSlot }
  /**
   * None was free within a short walk, or one that is `left` to others, since a crowd would race
   * for it. `busy` are slots that were held.
   */
  | { readonly kind: "none"; readonly left: boolean; readonly busy: readonly Id<"slots">[] };

/**
 * Looks for a free slot without writing, a few slots far. The transaction depends on the one slot
 * it found and no other.
 */
export async function search(
  ctx: MutationCtx,
  request: SlotRequest,
  nowMs: number,
): Promise<Search> {
  let busy: readonly Id<"slots">[] = [];
  for (let tries = 0; tries < PICKS_MAX; tries++) {
    const picked = await pickStale(ctx, request, WALK, nowMs);
    ({ busy } = picked);
    const slot = await confirm(ctx, request, picked, nowMs);
    if (slot === "none" || slot === "left") return { kind: "none", left: slot === "left", busy };
    if (slot !== "taken") return { kind: "free", slot };
  }
  return { kind: "none", left: false, busy };
}

/** As `search`, but looks through the whole pool before it says that nothing is free. */
export async function findFree(
  ctx: MutationCtx,
  request: SlotRequest,
  nowMs: number,
): Promise<FreeSlot | null> {
  const found = await search(ctx, request, nowMs);
  if (found.kind === "free") return found.slot;
  // What was left to others once is left to them: a second look would only bring the crowd back.
  if (found.left) return null;
  const picked = await pickStale(ctx, request, POOL_SLOTS_MAX, nowMs);
  const slot = await confirm(ctx, request, picked, nowMs);
  return typeof slot === "string" ? null : slot;
}

/** Reads the slot that was picked as it is now. */
async function confirm(
  ctx: MutationCtx,
  request: SlotRequest,
  { crowded, free, gap }: Picked,
  nowMs: number,
): Promise<FreeSlot | "none" | "left" | "taken"> {
  if (crowded) return "left";
  if (free === null) return "none";
  if (isLeftToOthers(request.size, { gap, freeForMs: nowMs - free.sinceMs })) return "left";
  const row = await load(ctx, request.pool, free);
  return row === null || row.e <= nowMs ? { request, index: free.index, row } : "taken";
}

/**
 * Whether a scarce slot is left to others: in a crowded pool all who look at once see the same last
 * few, and who races for them loses time to conflicts. One of those who see it should take it.
 */
function isLeftToOthers(
  size: number,
  { freeForMs, gap }: Pick<Picked, "gap"> & { readonly freeForMs: number },
): boolean {
  if (size < CROWDED_POOL_MIN || gap <= SCARCE_GAP || freeForMs > RACED_FOR_MS) return false;
  return Math.random() * gap >= SCARCE_GAP;
}

/**
 * Whether a caller has asked for so long that it may have lost races already. The platform retries a
 * few times and then fails for good: such a caller does not race in a crowd, it is refused.
 */
export const isLate = (
  { askedAtMs, size }: Pick<SlotRequest, "askedAtMs" | "size">,
  nowMs: number,
): boolean => size >= CROWDED_POOL_MIN && askedAtMs !== undefined && nowMs - askedAtMs > LATE_MS;

async function pickStale(
  ctx: MutationCtx,
  request: SlotRequest,
  looks: number,
  nowMs: number,
): Promise<Picked> {
  const { pool, size } = request;
  const points = Array.from({ length: Math.min(POINTS, size) }, () =>
    Math.floor(Math.random() * size),
  );
  return await ctx.runQuery(
    internal.bulkhead.pickFree,
    { pool, size, points, looks, late: isLate(request, nowMs), nowMs },
    { useStaleSnapshot: true },
  );
}

/** Takes a slot that was found free in this transaction. */
export async function take(ctx: MutationCtx, free: FreeSlot, nowMs: number): Promise<Lease> {
  const { pool, holder, leaseMs } = free.request;
  const { row } = free;
  const fence = (row?.f ?? 0) + 1;
  const held = { e: nowMs + leaseMs, f: fence, ...(holder === undefined ? {} : { h: holder }) };
  if (row === null) {
    const slotId = await ctx.db.insert("slots", { p: pool, i: free.index, ...held });
    return { slotId, fence };
  }
  await ctx.db.replace("slots", row._id, { ...fieldsOf(row), ...held });
  return { slotId: row._id, fence };
}

/** The slot if this is still its holding, else null: another took it over after it expired. */
export async function loadHeld(ctx: QueryCtx, { slotId, fence }: Lease): Promise<Slot | null> {
  const row = await ctx.db.get("slots", slotId);
  return row?.f === fence ? row : null;
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
  const row = await loadHeld(ctx, lease);
  if (row === null) return false;
  if (row.e - nowMs < leaseMs / 2) await ctx.db.patch("slots", row._id, { e: nowMs + leaseMs });
  return true;
}

/** What a release may write besides: what rides on the slot. */
export type Riding = Partial<Pick<Slot, "n" | "d" | "q" | "t">>;

/** Frees a slot that `loadHeld` found in this transaction. The fence moves on: nobody holds it. */
export async function release(
  ctx: MutationCtx,
  row: Slot,
  nowMs: number,
  riding: Riding = {},
): Promise<void> {
  await ctx.db.replace("slots", row._id, { ...fieldsOf(row), ...riding, e: nowMs, f: row.f + 1 });
}

/** Gives a held slot to its next holder, with a new fence, in one write. */
export async function handOver(
  ctx: MutationCtx,
  row: Slot,
  next: { readonly holder: string; readonly expiresAtMs: number } & Riding,
): Promise<Lease> {
  const { holder, expiresAtMs, ...riding } = next;
  const fence = row.f + 1;
  const held = { h: holder, e: expiresAtMs, f: fence };
  await ctx.db.replace("slots", row._id, { ...fieldsOf(row), ...riding, ...held });
  return { slotId: row._id, fence };
}

/** Slots of a pool held at `nowMs`. */
export async function held(ctx: QueryCtx, pool: string, nowMs: number): Promise<Slot[]> {
  return (await ofPool(ctx, pool)).filter((row) => row.e > nowMs);
}

/** Every slot a pool ever used, or the first `rowsMax` of them. */
export async function ofPool(
  ctx: QueryCtx,
  pool: string,
  rowsMax = POOL_SLOTS_MAX,
): Promise<Slot[]> {
  return await ctx.db
    .query("slots")
    .withIndex("by_pool_index", (q) => q.eq("p", pool))
    .take(rowsMax);
}

/** The tally of the calls settled through a slot. */
export function tallyOf({ t }: Slot): Tally | null {
  if (t === undefined) return null;
  return {
    generation: t.g,
    halfFromMs: t.w,
    current: countsOf(t.c),
    previous: countsOf(t.p),
    lastSuccessMs: t.l ?? 0,
    runMs: t.x ?? [],
  };
}

/** A tally as it is stored: what is zero or empty takes no bytes. */
export function storedTally(tally: Tally): NonNullable<Slot["t"]> {
  const { current, generation, halfFromMs, lastSuccessMs, previous, runMs } = tally;
  const before = storedCounts(previous);
  return {
    g: generation,
    w: halfFromMs,
    c: storedCounts(current),
    ...(Object.keys(before).length === 0 ? {} : { p: before }),
    ...(lastSuccessMs === 0 ? {} : { l: lastSuccessMs }),
    ...(runMs.length === 0 ? {} : { x: [...runMs] }),
  };
}

type StoredCounts = NonNullable<Slot["t"]>["c"];

const countsOf = (stored: StoredCounts | undefined): Counts =>
  stored === undefined
    ? NO_COUNTS
    : {
        calls: stored.c ?? 0,
        failures: stored.f ?? 0,
        slow: stored.s ?? 0,
        retries: stored.r ?? 0,
      };

const storedCounts = ({ calls, failures, slow, retries }: Counts): StoredCounts => ({
  ...(calls === 0 ? {} : { c: calls }),
  ...(failures === 0 ? {} : { f: failures }),
  ...(slow === 0 ? {} : { s: slow }),
  ...(retries === 0 ? {} : { r: retries }),
});

/** What stays of a row when it changes hands: everything but the holder. */
function fieldsOf({ p, i, e, f, n, d, q, t }: Slot): WithoutSystemFields<Slot> {
  return {
    p,
    i,
    e,
    f,
    ...(n === undefined ? {} : { n }),
    ...(d === undefined ? {} : { d }),
    ...(q === undefined ? {} : { q }),
    ...(t === undefined ? {} : { t }),
  };
}
