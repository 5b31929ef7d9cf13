import { type Infer, v } from "convex/values";

/** What an admitted call holds until it is settled. */
export const permitFields = v.object({
  provider: v.string(),
  /** Breaker generation at admission: an outcome of an earlier one changes nothing. */
  generation: v.number(),
  slotId: v.id("slots"),
  fence: v.number(),
  admittedAtMs: v.number(),
  /** Its place among the probes, where the circuit was half-open. */
  probeId: v.optional(v.id("breakerProbes")),
});
export type Permit = Infer<typeof permitFields>;

export const outcomeKind = v.union(
  v.literal("success"),
  v.literal("failure"),
  v.literal("neutral"),
  v.literal("infrastructure"),
);
