import {
  mutationGeneric,
  queryGeneric,
  makeFunctionReference,
  type DataModelFromSchemaDefinition,
  type GenericMutationCtx,
  type MutationBuilder,
  type QueryBuilder,
} from "convex/server";
import { v } from "convex/values";
import type schema from "./schema";

type DataModel = DataModelFromSchemaDefinition<typeof schema>;
const mutation = mutationGeneric as MutationBuilder<DataModel, "public">;
const query = queryGeneric as QueryBuilder<DataModel, "public">;

const item = (key: number) => ({ key, title: "", count: 0, tags: [] });
const LOG_KEY = 1_000_000;

const range = { from: v.number(), to: v.number() };
const touch = v.union(
  v.object({ kind: v.literal("all"), ...range }),
  v.object({ kind: v.literal("first"), ...range, descending: v.boolean() }),
  v.object({ kind: v.literal("take"), ...range, count: v.number() }),
  v.object({ kind: v.literal("filter"), ...range }),
  v.object({ kind: v.literal("stale"), ...range }),
  v.object({ kind: v.literal("get"), id: v.id("items") }),
  v.object({ kind: v.literal("patch"), id: v.id("items") }),
  v.object({ kind: v.literal("nothing") }),
);

export const count = query({
  args: range,
  returns: v.number(),
  handler: async ({ db }, { from, to }) =>
    (
      await db
        .query("items")
        .withIndex("by_key", (q) => q.gte("key", from).lt("key", to))
        .collect()
    ).length,
});
const countReference = makeFunctionReference<"query", { from: number; to: number }, number>(
  "touches:count",
);

/** Touches some documents, then adds one far away: the last thing it does. */
export const touchAndLog = mutation({
  args: { touch },
  returns: v.null(),
  handler: async (ctx, { touch: what }) => {
    await touchIt(ctx, what);
    await ctx.db.insert("items", item(LOG_KEY));
    return null;
  },
});

async function touchIt(
  ctx: GenericMutationCtx<DataModel>,
  what: typeof touch.type,
): Promise<unknown> {
  const { db } = ctx;
  if (what.kind === "get") return db.get("items", what.id);
  if (what.kind === "patch") return db.patch("items", what.id, { title: "touched" });
  if (what.kind === "nothing") return null;
  const { from, to } = what;
  if (what.kind === "stale")
    return ctx.runQuery(countReference, { from, to }, { useStaleSnapshot: true });
  const found = db.query("items").withIndex("by_key", (q) => q.gte("key", from).lt("key", to));
  if (what.kind === "first") return found.order(what.descending ? "desc" : "asc").first();
  if (what.kind === "take") return found.take(what.count);
  if (what.kind === "filter") return found.filter((q) => q.eq(q.field("title"), "none")).collect();
  return found.collect();
}

export const add = mutation({
  args: { key: v.number() },
  returns: v.id("items"),
  handler: ({ db }, { key }) => db.insert("items", item(key)),
});

export const move = mutation({
  args: { id: v.id("items"), key: v.number() },
  returns: v.null(),
  handler: async ({ db }, { id, key }) => {
    await db.patch("items", id, { key });
    return null;
  },
});

export const remove = mutation({
  args: { id: v.id("items") },
  returns: v.null(),
  handler: async ({ db }, { id }) => {
    await db.delete("items", id);
    return null;
  },
});

const amount = v.object({ used: v.number(), remaining: v.number() });

/** Reads and writes of every kind, and what the platform counts of them. */
export const counted = mutation({
  args: { id: v.id("items") },
  returns: v.record(v.string(), amount),
  handler: async (ctx, { id }) => {
    const { db } = ctx;
    await touchIt(ctx, { kind: "filter", from: 0, to: 100 });
    await touchIt(ctx, { kind: "first", from: 0, to: 100, descending: true });
    await touchIt(ctx, { kind: "stale", from: 0, to: 100 });
    await db.get("items", id);
    await db.patch("items", id, { title: "changed" });
    await db.patch("items", id, { title: "changed again" });
    const added = await db.insert("items", item(7));
    await db.delete("items", added);
    await db.insert("items", item(8));
    return { ...(await ctx.meta.getTransactionMetrics()) };
  },
});
