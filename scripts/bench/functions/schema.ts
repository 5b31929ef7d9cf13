import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

/** The one table of the benchmark: documents found by a key. */
export default defineSchema({
  items: defineTable({
    key: v.number(),
    title: v.string(),
    count: v.number(),
    tags: v.array(v.string()),
  }).index("by_key", ["key"]),
});
