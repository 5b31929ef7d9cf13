import { v } from "convex/values";
import { env } from "../src/config/env";
import { readKnob } from "../src/config/read";
import { internalQuery } from "./model/functionBoundaries";
import * as Snapshot from "./model/snapshot";
import { snapshot } from "./model/snapshotShape";

const MINUTES_MAX = 1_440;
const LIMIT_MIN = 5;

/**
 * What an operator looks at first: whether anything is wrong, why, and what to do; then the
 * configuration in force, pressure, breakers, bulkheads, replay protection, cache, queue and
 * objectives. `minutes` (1 to 1,440) is the window of what is counted over time, `limit` (5 to
 * OPS_MAX_ROWS_PER_SECTION) bounds each list; what was asked for beyond that is said in `clamped`,
 * and sections cut short are named in `truncated`. Holds no payload, user text or secret.
 */
export const getReliabilitySnapshot = internalQuery({
  args: { minutes: v.optional(v.number()), limit: v.optional(v.number()) },
  returns: snapshot,
  handler: async (ctx, args) => {
    const limitMax = readKnob(env, "OPS_MAX_ROWS_PER_SECTION");
    const minutes = clamp(
      args.minutes ?? readKnob(env, "OPS_DEFAULT_WINDOW_MINUTES"),
      1,
      MINUTES_MAX,
    );
    const limit = clamp(args.limit ?? limitMax, LIMIT_MIN, limitMax);
    // An operator asks for now: this query is read by people and gates, and is not subscribed to.
    const taken = await Snapshot.take(ctx, { nowMs: Date.now(), minutes, limit });
    return {
      ...taken,
      clamped: [
        ...(args.minutes !== undefined && args.minutes !== minutes ? ["minutes"] : []),
        ...(args.limit !== undefined && args.limit !== limit ? ["limit"] : []),
      ],
    };
  },
});

const clamp = (value: number, min: number, max: number): number =>
  Math.min(max, Math.max(min, Math.floor(value) || min));
