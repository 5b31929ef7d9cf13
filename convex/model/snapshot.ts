/**
 * What an operator looks at first, from the tables as they are: every section reads its share of one
 * small allowance, and the verdict is made of what the sections found.
 */
import type { Infer } from "convex/values";
import { env } from "../../src/config/env";
import { knobRow } from "../../src/config/knobs";
import { configWarnings, readKnob } from "../../src/config/read";
import { PROVIDER_IDS } from "../../src/providers/table";
import { VERDICT_LIMITS, type VerdictInput, type VerdictLimits } from "../../src/slo/reading";
import { decideVerdict } from "../../src/slo/verdict";
import type { QueryCtx } from "../_generated/server";
import * as Alerts from "./snapshotAlerts";
import { config } from "./snapshotConfig";
import * as Guards from "./snapshotGuards";
import * as Limits from "./snapshotLimits";
import * as Objectives from "./snapshotObjectives";
import { newReading, type Reading } from "./snapshotReading";
import type { snapshot } from "./snapshotShape";
import * as Tools from "./snapshotTools";
import * as Traffic from "./snapshotTraffic";

type Snapshot = Infer<typeof snapshot>;

/** Takes a snapshot of the last `minutes`, its lists cut to `limit` rows. */
export async function take(
  ctx: QueryCtx,
  asked: { readonly nowMs: number; readonly minutes: number; readonly limit: number },
): Promise<Omit<Snapshot, "clamped">> {
  const reading = newReading(asked);
  const seen = await read(ctx, reading);
  const refused = Limits.refused(seen.counted.refusals);
  const objectives = Objectives.objectives(seen.counted.calls, reading);
  const served = [
    ...Objectives.servedCalls(seen.counted.calls),
    ...Tools.cacheServed(seen.toolCache),
  ];
  const warnings = configWarnings(env).map((warning) => ({
    ...warning,
    security: knobRow(warning.name).security,
  }));
  const truncated = [...reading.truncated].sort();
  const found: VerdictInput = {
    ...readingsOf(seen),
    bulkheads: Guards.poolReadings(seen.pools, reading.nowMs)
      .filter(({ pool }) => isProvider(pool))
      .map((one) => ({ ...one, ...Limits.poolRefusals(one.pool, refused, reading) })),
    limiters: Limits.limiterReadings(refused, reading),
    config: warnings,
    served,
    sloBreaches: objectives.flatMap(({ breaches }) => breaches),
    truncated,
  };
  const verdict = decideVerdict(found, limits());
  const { alerts } = seen;
  return {
    verdict: verdict.verdict,
    reasons: [...verdict.reasons],
    causes: [...verdict.causes],
    nextAction: verdict.nextAction,
    generatedAt: reading.nowMs,
    windowMinutes: reading.minutes,
    config: config(),
    configWarnings: warnings,
    rateLimitPressure: {
      sampledEvents: refused.total,
      byBucketOutcome: refused.byBucketOutcome,
      byBucketOutcomeReason: refused.byBucketOutcomeReason,
      recentAlerts: alerts.ofLimits.recent,
      alertsInWindow: alerts.ofLimits.alertsInWindow,
    },
    circuitBreakers: Guards.circuitBreakers(seen.circuits, reading),
    bulkheads: Guards.bulkheads(seen.pools, reading.nowMs),
    replayProtection: seen.replayProtection,
    toolCache: seen.toolCache,
    toolJobs: { ...seen.jobs.section, recentDeadLetters: seen.recentDeadLetters },
    chatStreams: seen.chatStreams,
    webhookInbox: seen.webhookInbox,
    toolQueueAlerts: alerts.ofQueues,
    alerts: { ...alerts.all, active: alerts.active, ...alerts.outbox },
    slo: Objectives.shownObjectives(objectives),
    degradedServe: Objectives.degradedServe(served),
    truncated,
  };
}

type Seen = Awaited<ReturnType<typeof read>>;

/** Every section, in the order of what a verdict needs most: the last ones have what is left. */
async function read(ctx: QueryCtx, reading: Reading) {
  const jobs = await Tools.toolJobs(ctx, reading);
  const pools = await Guards.readPools(ctx, reading);
  const circuits = await Guards.circuits(ctx, reading, pools);
  const webhookInbox = await Traffic.webhookInbox(ctx, reading);
  const chatStreams = await Traffic.chatStreams(ctx, reading);
  const alerts = await Alerts.alerts(ctx, reading);
  const counted = await Objectives.counted(ctx, reading);
  const toolCache = await Tools.toolCache(ctx, reading);
  const recentDeadLetters = await Tools.recentDeadLetters(ctx, reading);
  const hits = Limits.duplicateHits(counted.refusals);
  const replayProtection = await Traffic.replayProtection(ctx, reading, hits);
  const guards = { pools, circuits, replayProtection };
  const work = { jobs, recentDeadLetters, toolCache, webhookInbox, chatStreams };
  return { ...guards, ...work, alerts, counted };
}

/** What a verdict takes from the sections as they stand. */
const readingsOf = ({ alerts, chatStreams, circuits, jobs, webhookInbox }: Seen) => ({
  breakers: Guards.breakerReadings(circuits),
  queues: jobs.queues,
  deadLetters: jobs.section.byStatus.deadLetter,
  webhooks: { ...webhookInbox, deadLetters: webhookInbox.deadLetter },
  alerts: alerts.outbox,
  orphanStreams: chatStreams.orphaned,
});

/** The queue is held to what its alerts are set to. */
const limits = (): VerdictLimits => ({
  ...VERDICT_LIMITS,
  queuedAgeMsMax: readKnob(env, "TOOL_QUEUE_ALERT_MAX_QUEUED_AGE_MS"),
  runningAgeMsMax: readKnob(env, "TOOL_QUEUE_ALERT_MAX_RUNNING_AGE_MS"),
  // Alerts are of as many and more, a verdict of more.
  deadLettersMax: readKnob(env, "TOOL_QUEUE_ALERT_MAX_DLQ") - 1,
});

const isProvider = (pool: string): boolean => PROVIDER_IDS.some((id) => id === pool);
