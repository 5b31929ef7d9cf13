import { v } from "convex/values";
import { env } from "../src/config/env";
import { configWarnings, readKnob } from "../src/config/read";
import { internalQuery } from "./_generated/server";
import * as Snapshot from "./model/snapshot";

const MINUTES_MAX = 1_440;
const LIMIT_MIN = 5;

/**
 * What an operator looks at first: configuration in force, pressure, breakers, bulkheads, replay
 * protection, cache and queue. `minutes` (1 to 1,440) is the window of what is counted over time,
 * `limit` (5 to OPS_MAX_ROWS_PER_SECTION) bounds each list; what was asked for beyond that is said
 * in `clamped`, and sections cut short are named in `truncated`. Holds no payload, user text or
 * secret.
 */
export const getReliabilitySnapshot = internalQuery({
  args: { minutes: v.optional(v.number()), limit: v.optional(v.number()) },
  returns: v.any(),
  handler: async (ctx, args) => {
    const limitMax = readKnob(env, "OPS_MAX_ROWS_PER_SECTION");
    const minutes = clamp(
      args.minutes ?? readKnob(env, "OPS_DEFAULT_WINDOW_MINUTES"),
      1,
      MINUTES_MAX,
    );
    const limit = clamp(args.limit ?? limitMax, LIMIT_MIN, limitMax);
    // An operator asks for now: this query is read by people and gates, and is not subscribed to.
    const window = { nowMs: Date.now(), minutes, limit };
    const truncated: Snapshot.Truncated = new Set();
    const { chatStreams, webhookInbox } = await Snapshot.backlog(ctx, window, truncated);
    return {
      generatedAt: window.nowMs,
      windowMinutes: minutes,
      clamped: [
        ...(args.minutes !== undefined && args.minutes !== minutes ? ["minutes"] : []),
        ...(args.limit !== undefined && args.limit !== limit ? ["limit"] : []),
      ],
      config: Snapshot.config(),
      configWarnings: configWarnings(env),
      rateLimitPressure: await Snapshot.rateLimitPressure(ctx, window, truncated),
      circuitBreakers: await Snapshot.circuitBreakers(ctx),
      bulkheads: await Snapshot.bulkheads(ctx, window, truncated),
      replayProtection: await Snapshot.replayProtection(ctx, window, truncated),
      toolCache: await Snapshot.toolCache(ctx, window, truncated),
      toolJobs: await Snapshot.toolJobs(ctx, window, truncated),
      chatStreams,
      webhookInbox,
      truncated: [...truncated],
    };
  },
});

const clamp = (value: number, min: number, max: number): number =>
  Math.min(max, Math.max(min, Math.floor(value) || min));
