import type { Doc } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { DAY } from "../../src/core/time";
import { type Batch, takeBatch } from "./batch";

/** The UTC day of a moment, as `2026-01-31`. */
export const dayOf = (nowMs: number): string => new Date(nowMs).toISOString().slice(0, 10);

/** Until budgets start anew, in milliseconds. */
export const untilNextDayMs = (nowMs: number): number => DAY - (nowMs % DAY);

/** What a user has reserved or spent on a day. */
export async function load(
  ctx: QueryCtx,
  userId: string,
  day: string,
): Promise<Doc<"tokenBudgets"> | null> {
  return await ctx.db
    .query("tokenBudgets")
    .withIndex("by_user_day", (q) => q.eq("userId", userId).eq("day", day))
    .unique();
}

/** Adds tokens, negative to give some back. A budget never goes below zero. */
export async function add(
  ctx: MutationCtx,
  { userId, day, tokens }: { userId: string; day: string; tokens: number },
): Promise<void> {
  const row = await load(ctx, userId, day);
  if (row === null)
    await ctx.db.insert("tokenBudgets", { userId, day, tokens: Math.max(0, tokens) });
  else await ctx.db.patch("tokenBudgets", row._id, { tokens: Math.max(0, row.tokens + tokens) });
}

/** Deletes budgets of days before yesterday: a turn that began before midnight may still settle. */
export async function deletePast(ctx: MutationCtx, nowMs: number, batch: Batch): Promise<number> {
  const past = await takeBatch(
    ctx.db.query("tokenBudgets").withIndex("by_day", (q) => q.lt("day", dayOf(nowMs - DAY))),
    batch,
  );
  for (const { _id } of past) await ctx.db.delete("tokenBudgets", _id);
  return past.length;
}
