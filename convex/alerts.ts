import { v } from "convex/values";
import { env } from "../src/config/env";
import { readKnob } from "../src/config/read";
import * as Alerts from "./model/alerts";
import * as Conditions from "./model/conditions";
import { internalMutation, internalQuery } from "./model/functionBoundaries";
import * as Monitor from "./model/monitor";
import { alertKind } from "./model/telemetryTables";

const change = v.union(
  v.literal("created"),
  v.literal("reminded"),
  v.literal("recovered"),
  v.literal("unchanged"),
);

/** Notes that a condition held at `atMs`. Scheduled by the transaction that saw it begin. */
export const raise = internalMutation({
  args: { condition: Alerts.conditionFields, atMs: v.number() },
  returns: change,
  handler: async (ctx, { atMs, condition }) =>
    (await Alerts.applyRaise(ctx, condition, atMs)).change,
});

/** Notes that a condition no longer held at `atMs`. */
export const clear = internalMutation({
  args: { alertKey: v.string(), atMs: v.number() },
  returns: change,
  handler: async (ctx, { alertKey, atMs }) => await Alerts.applyClear(ctx, alertKey, atMs),
});

/**
 * Looks at a provider whose circuit or pool refused calls. Scheduled when refusals begin to be
 * counted, so that operators know within seconds of what callers notice.
 */
export const lookAtProvider = internalMutation({
  args: { provider: v.string(), outcome: v.string() },
  returns: change,
  handler: async (ctx, { outcome, provider }) => {
    const nowMs = Date.now();
    if (outcome !== "bulkhead_saturated") return await Monitor.lookAtCircuit(ctx, provider, nowMs);
    const cooldownMs = readKnob(env, "BULKHEAD_SENTRY_COOLDOWN_MS");
    const condition = Conditions.saturation(provider, cooldownMs);
    return (await Alerts.applyRaise(ctx, condition, nowMs)).change;
  },
});

/** Takes what is due to be told, at most ten. `more` where another delivery should follow. */
export const claimDue = internalMutation({
  args: {},
  returns: v.object({ notices: v.array(Alerts.noticeFields), more: v.boolean() }),
  handler: async (ctx) => await Alerts.claimDue(ctx, Date.now()),
});

/** Notes how an attempt to tell somebody ended. */
export const settleAttempt = internalMutation({
  args: { alertId: v.id("alerts"), attempt: v.number(), ended: Alerts.attemptFields },
  returns: v.null(),
  handler: async (ctx, attempt) => {
    await Alerts.settleAttempt(ctx, attempt, Date.now());
    return null;
  },
});

const LIST_MAX = 200;
const LIST_DEFAULT = 50;
const KINDS = alertKind.members.map(({ value }) => value);

/**
 * Alerts of every kind, the newest first, and what became of each: `delivery` is `dead` for those
 * that nobody was told of after many attempts, `not_configured` where `SENTRY_DSN` is not set.
 * `limit` is 1 to 200.
 */
export const listRecent = internalQuery({
  args: { limit: v.optional(v.number()), kind: v.optional(alertKind) },
  returns: v.array(Alerts.shownFields),
  handler: async (ctx, { kind, limit = LIST_DEFAULT }) => {
    const count = Math.min(LIST_MAX, Math.max(1, Math.floor(limit) || 1));
    const kinds = kind === undefined ? KINDS : [kind];
    return (await Alerts.recent(ctx, { kinds, limit: count })).map(Alerts.shown);
  },
});
