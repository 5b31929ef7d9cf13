import { type Infer, v } from "convex/values";

/** What an admitted call holds until it is settled. */
export const permitFields = v.object({
  provider: v.string(),
  /** Breaker generation at admission: an outcome of an earlier one changes nothing. */
  generation: v.number(),
  pool: v.string(),
  index: v.number(),
  fence: v.number(),
  admittedAtMs: v.number(),
});
export type Permit = Infer<typeof permitFields>;

export const outcomeKind = v.union(
  v.literal("success"),
  v.literal("failure"),
  v.literal("neutral"),
  v.literal("infrastructure"),
);
