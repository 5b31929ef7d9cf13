import { RateLimiter } from "@convex-dev/rate-limiter";
import { v } from "convex/values";
import { MINUTE } from "../../../src/core/time";
import { components, mutation } from "./server";

const MANY = { kind: "token bucket", rate: 1_000_000, period: MINUTE } as const;

const limiter = new RateLimiter(components.rateLimiter, {
  tb: MANY,
  tbDeny: { kind: "token bucket", rate: 1, period: MINUTE },
  tb64: { ...MANY, shards: 64 },
  tbAsync: { ...MANY, applyUpdates: "asynchronously" },
});

const limitName = v.union(
  v.literal("tb"),
  v.literal("tbDeny"),
  v.literal("tb64"),
  v.literal("tbAsync"),
);

/** One call of the component's limiter in the caller's mutation. */
export const limit = mutation({
  args: { name: limitName, key: v.string() },
  returns: v.boolean(),
  handler: async (ctx, { name, key }) => {
    const { ok } = await limiter.limit(ctx, name, { key });
    return ok;
  },
});
