/** Looks at a pool that choose a slot and decide nothing, and the read that what is decided rests on. */
import type { Doc, Id } from "../_generated/dataModel";
import type { QueryCtx } from "../_generated/server";

type Slot = Doc<"slots">;

/** What a pick saw of a pool, at a moment that may lie a little back. */
export interface Picked {
  /** A slot that was free: its row where it has one. */
  readonly free: {
    readonly index: number;
    readonly id: Id<"slots"> | null;
    /** Since when it has been free, in epoch milliseconds; 0 for one never taken. */
    readonly sinceMs: number;
  } | null;
  /** Busy slots that lay between the last point and the free one. */
  readonly gap: number;
  /** Busy slots seen on the way, the nearest first. */
  readonly busy: readonly Id<"slots">[];
  /** Whether so few are free that a late caller is to leave them to others. */
  readonly crowded: boolean;
}

export interface PickRequest {
  readonly pool: string;
  readonly size: number;
  /** Indexes to look at first, drawn at random. At least one. */
  readonly points: readonly number[];
  /** Busy slots looked at in a row. */
  readonly looks: number;
  /** Whether the caller may have lost races already. */
  readonly late: boolean;
}

/**
 * A free slot: one of the points, else the first one after the last of them, round the pool. The
 * points come first because the slot behind a run of busy ones is found by all who start in that
 * run. Meant to be run on a stale snapshot: depending on the busy slots it reads would make every
 * caller wait for every other.
 */
export async function pick(
  ctx: QueryCtx,
  { pool, size, points, looks, late }: PickRequest,
  nowMs: number,
): Promise<Picked> {
  const from = points.at(-1) ?? 0;
  if (late) return await pickLate(ctx, { pool, size, from, draw: points[0] ?? 0 }, nowMs);
  for (const index of points.slice(0, -1)) {
    const row = await load(ctx, pool, { id: null, index });
    if (row === null || row.e <= nowMs)
      return { free: freeAt(index, row), gap: 0, busy: [], crowded: false };
  }
  return { ...(await walk(ctx, { pool, size, from, looks }, nowMs)), crowded: false };
}

const freeAt = (index: number, row: Slot | null): NonNullable<Picked["free"]> => ({
  index,
  id: row?._id ?? null,
  sinceMs: row?.e ?? 0,
});

/** Slots that a late caller looks at, and how many of them must be free for it to take one. */
const SAMPLE = 16;
const SAMPLE_FREE_MIN = 4;

/**
 * One of the free slots of a stretch, any of them, where it has several: then there is little to
 * race for. Few are left to those who have not lost a race yet.
 */
async function pickLate(
  ctx: QueryCtx,
  { pool, size, from, draw }: { pool: string; size: number; from: number; draw: number },
  nowMs: number,
): Promise<Picked> {
  const end = Math.min(size, from + SAMPLE);
  const rest = Math.min(from, from + SAMPLE - end);
  const free = [
    ...(await freeIn(ctx, { pool, first: from, end }, nowMs)),
    ...(await freeIn(ctx, { pool, first: 0, end: rest }, nowMs)),
  ];
  const crowded = free.length < Math.min(SAMPLE_FREE_MIN, size);
  const chosen = crowded ? null : (free[draw % free.length] ?? null);
  return { free: chosen, gap: 0, busy: [], crowded };
}

/** The free slots of a stretch, those never taken among them. */
async function freeIn(
  ctx: QueryCtx,
  { pool, first, end }: { pool: string; first: number; end: number },
  nowMs: number,
): Promise<NonNullable<Picked["free"]>[]> {
  const rows = await ctx.db
    .query("slots")
    .withIndex("by_pool_index", (q) => q.eq("p", pool).gte("i", first).lt("i", end))
    .take(SAMPLE);
  const known = new Map(rows.map((row) => [row.i, row]));
  return Array.from({ length: end - first }, (_, i) => first + i).flatMap((index) => {
    const row = known.get(index) ?? null;
    return row === null || row.e <= nowMs ? [freeAt(index, row)] : [];
  });
}

/** The first free slot from a starting point on. */
async function walk(
  ctx: QueryCtx,
  { pool, size, from, looks }: { pool: string; size: number; from: number; looks: number },
  nowMs: number,
): Promise<Omit<Picked, "crowded">> {
  const busy: Id<"slots">[] = [];
  const stretches = [
    { first: from, end: size },
    { first: 0, end: from },
  ];
  for (const { first, end } of stretches) {
    let index = first;
    const rows = ctx.db
      .query("slots")
      .withIndex("by_pool_index", (q) => q.eq("p", pool).gte("i", first).lt("i", end));
    for await (const row of rows) {
      // A gap in the numbers is a slot that was never taken.
      if (row.i > index) break;
      if (row.e <= nowMs) return { free: freeAt(index, row), gap: busy.length, busy };
      busy.push(row._id);
      index += 1;
      if (busy.length >= looks) return { free: null, gap: busy.length, busy };
    }
    if (index < end) return { free: freeAt(index, null), gap: busy.length, busy };
  }
  return { free: null, gap: busy.length, busy };
}

/** Reads a slot now. For one never taken the read also sees whoever creates it at the same time. */
export async function load(
  ctx: QueryCtx,
  pool: string,
  { id, index }: { readonly id: Id<"slots"> | null; readonly index: number },
): Promise<Slot | null> {
  if (id !== null) return await ctx.db.get("slots", id);
  return await ctx.db
    .query("slots")
    .withIndex("by_pool_index", (q) => q.eq("p", pool).eq("i", index))
    .unique();
}
