import type { Doc } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";

type Counted = Doc<"toolJobCounts">;
export type Change = Partial<Pick<Counted, "completed" | "failed" | "cancelled" | "deadLetters">>;

const SHARDS = 8;

/** Adds to what is counted of a tool's jobs beside the slots, on one shard of several. */
export async function add(ctx: MutationCtx, tool: string, change: Change): Promise<void> {
  const shard = Math.floor(Math.random() * SHARDS);
  const row = await ctx.db
    .query("toolJobCounts")
    .withIndex("by_tool_shard", (q) => q.eq("t", tool).eq("z", shard))
    .unique();
  const counts = {
    completed: (row?.completed ?? 0) + (change.completed ?? 0),
    failed: (row?.failed ?? 0) + (change.failed ?? 0),
    cancelled: (row?.cancelled ?? 0) + (change.cancelled ?? 0),
    deadLetters: (row?.deadLetters ?? 0) + (change.deadLetters ?? 0),
  };
  if (row === null) await ctx.db.insert("toolJobCounts", { t: tool, z: shard, ...counts });
  else await ctx.db.replace("toolJobCounts", row._id, { t: tool, z: shard, ...counts });
}
