import {
  mutationGeneric,
  queryGeneric,
  type DataModelFromSchemaDefinition,
  type MutationBuilder,
  type QueryBuilder,
} from "convex/server";
import { v } from "convex/values";
import type schema from "./schema";

type DataModel = DataModelFromSchemaDefinition<typeof schema>;
const mutation = mutationGeneric as MutationBuilder<DataModel, "public">;
const query = queryGeneric as QueryBuilder<DataModel, "public">;

/** Adds documents with the keys from `from` up to, not with, `to`. */
export const fill = mutation({
  args: { from: v.number(), to: v.number() },
  returns: v.null(),
  handler: async ({ db }, { from, to }) => {
    for (let key = from; key < to; key++) {
      await db.insert("items", { key, title: `Item ${key}`, count: 0, tags: ["a", "b"] });
    }
    return null;
  },
});

/** What is measured: find one document by its key and change it. */
export const bump = mutation({
  args: { key: v.number() },
  returns: v.number(),
  handler: async ({ db }, { key }) => {
    const item = await db
      .query("items")
      .withIndex("by_key", (q) => q.eq("key", key))
      .unique();
    if (item === null) throw new Error(`There is no item ${key}.`);
    await db.patch("items", item._id, { count: item.count + 1 });
    return item.count + 1;
  },
});

/** What is measured for reads: find one document by its key. */
export const look = query({
  args: { key: v.number() },
  returns: v.union(v.number(), v.null()),
  handler: async ({ db }, { key }) => {
    const item = await db
      .query("items")
      .withIndex("by_key", (q) => q.eq("key", key))
      .unique();
    return item === null ? null : item.count;
  },
});
