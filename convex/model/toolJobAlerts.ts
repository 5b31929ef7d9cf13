/** What operators are told of the health of the job queue. */
import type { Infer } from "convex/values";
import { v } from "convex/values";
import { env } from "../../src/config/env";
import { readKnob } from "../../src/config/read";
import { type Finding, FINDING_KINDS, type FindingKind } from "../../src/core/queue";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import * as Alerts from "./alerts";
import { findingsOf, type QueueStats } from "./toolJobStats";

export const queueAlertKind = v.union(
  v.literal("queued_depth"),
  v.literal("oldest_queued_age"),
  v.literal("oldest_running_age"),
  v.literal("dead_letter_depth"),
);

export const queueHealth = v.object({
  enabled: v.boolean(),
  createdAlerts: v.number(),
  /** Alerts that are over. */
  recoveredAlerts: v.number(),
  /** Notices handed to the outbox: of new alerts, reminders and recoveries. */
  sentryAlerts: v.number(),
  windowMinutes: v.number(),
});

const SAID: Readonly<Record<FindingKind, (finding: Finding) => string>> = {
  queued_depth: ({ observed, threshold }) => `Tool jobs: ${observed} wait, more than ${threshold}.`,
  oldest_queued_age: ({ observed, threshold }) =>
    `Tool jobs: the oldest has waited for ${observed} ms, longer than ${threshold}.`,
  oldest_running_age: ({ observed, threshold }) =>
    `Tool jobs: the oldest has run for ${observed} ms, longer than ${threshold}.`,
  dead_letter_depth: ({ observed, threshold }) =>
    `Tool jobs: ${observed} dead letters, more than ${threshold}.`,
};

const keyOf = (kind: FindingKind): string => `tool_queue:${kind}`;

const conditionOf = (finding: Finding): Alerts.Condition => ({
  alertKey: keyOf(finding.kind),
  kind: finding.kind,
  severity: "warning",
  summary: SAID[finding.kind](finding),
  observed: finding.observed,
  threshold: finding.threshold,
  windowMinutes: readKnob(env, "TOOL_QUEUE_ALERT_WINDOW_MIN"),
  cooldownMs: readKnob(env, "TOOL_QUEUE_ALERT_COOLDOWN_MS"),
});

/** Raises what is found now and clears what is over. */
export async function monitor(
  ctx: MutationCtx,
  stats: QueueStats,
  nowMs: number,
): Promise<Infer<typeof queueHealth>> {
  const enabled = readKnob(env, "TOOL_QUEUE_ALERTS_ENABLED") === "true";
  const changes: Alerts.Change[] = [];
  const found = enabled ? findingsOf(stats) : [];
  for (const kind of enabled ? FINDING_KINDS : []) {
    const finding = found.find((one) => one.kind === kind);
    changes.push(
      finding === undefined
        ? await Alerts.applyClear(ctx, keyOf(kind), nowMs)
        : (await raise(ctx, finding, nowMs)).change,
    );
  }
  const count = (change: Alerts.Change): number => changes.filter((one) => one === change).length;
  return {
    enabled,
    createdAlerts: count("created"),
    recoveredAlerts: count("recovered"),
    sentryAlerts: changes.length - count("unchanged"),
    windowMinutes: readKnob(env, "TOOL_QUEUE_ALERT_WINDOW_MIN"),
  };
}

/** Raises one finding; nobody is told of it twice within the cooldown. */
export const raise = (ctx: MutationCtx, finding: Finding, nowMs: number) =>
  Alerts.applyRaise(ctx, conditionOf(finding), nowMs);

/** Alerts about the queue, the newest first. */
export const recent = (ctx: QueryCtx, limit: number) =>
  Alerts.recent(ctx, { kinds: FINDING_KINDS, limit });
