import { v } from "convex/values";
import { mutation } from "./server";

export const seed = mutation({
  args: { key: v.string() },
  returns: v.null(),
  handler: async (ctx, { key }) => {
    await ctx.db.insert("bare", { key, n: 0 });
    return null;
  },
});

/** The least a mutation with state can do: read one document by index and patch it. */
export const readPatch = mutation({
  args: { key: v.string() },
  returns: v.null(),
  handler: async (ctx, { key }) => {
    const row = await ctx.db
      .query("bare")
      .withIndex("by_key", (q) => q.eq("key", key))
      .unique();
    if (row === null) throw new Error("The row is seeded first.");
    await ctx.db.patch("bare", row._id, { n: row.n + 1 });
    return null;
  },
});

const amount = v.object({ used: v.number(), remaining: v.number() });

/** For the harness's own check: reads and writes of every kind, and what the platform counts. */
export const countedByPlatform = mutation({
  args: {},
  returns: v.record(v.string(), amount),
  handler: async (ctx) => {
    const row = await ctx.db
      .query("bare")
      .withIndex("by_key", (q) => q.eq("key", "a"))
      .first();
    if (row === null) throw new Error("The row is seeded first.");
    await ctx.db.patch("bare", row._id, { n: row.n + 1 });
    await ctx.db.insert("bare", { key: "z", n: 0 });
    await ctx.db.query("bare").take(10);
    const last = await ctx.db.query("bare").order("desc").first();
    if (last !== null) await ctx.db.delete("bare", last._id);
    return { ...(await ctx.meta.getTransactionMetrics()) };
  },
});
