/**
 * What an operator looks at first, from the tables as they are: every section reads its share of one
 * small allowance, and the verdict is made of what the sections found.
 */
import type { Infer } from "convex/values";
import { env } from "../../src/config/env";
import { knobRow } from "../../src/config/knobs";
import { configWarnings } from "../../src/config/read";
import { PROVIDER_IDS } from "../../src/providers/table";
import { NOTHING_WRONG } from "../../src/slo/reading";
import { decideVerdict } from "../../src/slo/verdict";
import type { QueryCtx } from "../_generated/server";
import { config } from "./snapshotConfig";
import * as Guards from "./snapshotGuards";
import * as Limits from "./snapshotLimits";
import * as Objectives from "./snapshotObjectives";
import { newReading } from "./snapshotReading";
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
  const { nowMs } = reading;
  // In the order of what a verdict needs most: what is left for the last ones is what they may read.
  const pools = await Guards.readPools(ctx, reading);
  const circuits = await Guards.circuits(ctx, reading, pools);
  const jobs = await Tools.toolJobs(ctx, reading);
  const webhookInbox = await Traffic.webhookInbox(ctx, reading);
  const chatStreams = await Traffic.chatStreams(ctx, reading);
  const refused = await Limits.refused(ctx, reading);
  const measured = await Objectives.measured(ctx, reading);
  const toolCache = await Tools.toolCache(ctx, reading);
  const replayProtection = await Traffic.replayProtection(ctx, reading, new Map());
  const recentDeadLetters = await Tools.recentDeadLetters(ctx, reading);

  const objectives = Objectives.objectives(measured, reading);
  const warnings = configWarnings(env).map((warning) => ({
    ...warning,
    security: knobRow(warning.name).security,
  }));
  const served = [
    ...[...measured].map(([key, counted]) => ({ key, ...counted })),
    ...Tools.cacheServed(toolCache),
  ];
  const truncated = [...reading.truncated].sort();
  const verdict = decideVerdict({
    ...NOTHING_WRONG,
    breakers: Guards.breakerReadings(circuits),
    bulkheads: Guards.poolReadings(pools, nowMs).filter(({ pool }) => isProvider(pool)),
    queues: jobs.queues,
    deadLetters: jobs.section.byStatus.deadLetter,
    webhooks: { ...webhookInbox, deadLetters: webhookInbox.deadLetter },
    config: warnings,
    orphanStreams: chatStreams.orphaned,
    served,
    sloBreaches: objectives.flatMap(({ breaches }) => breaches),
    truncated,
  });
  return {
    verdict: verdict.verdict,
    reasons: [...verdict.reasons],
    causes: [...verdict.causes],
    nextAction: verdict.nextAction,
    generatedAt: nowMs,
    windowMinutes: reading.minutes,
    config: config(),
    configWarnings: warnings,
    rateLimitPressure: {
      sampledEvents: refused.total,
      byBucketOutcome: refused.byBucketOutcome,
      recentAlerts: [],
      alertsInWindow: 0,
    },
    circuitBreakers: Guards.circuitBreakers(circuits, reading),
    bulkheads: Guards.bulkheads(pools, nowMs),
    replayProtection,
    toolCache,
    toolJobs: { ...jobs.section, recentDeadLetters },
    chatStreams,
    webhookInbox,
    slo: Objectives.shownObjectives(objectives),
    degradedServe: Objectives.degradedServe(served),
    truncated,
  };
}

const isProvider = (pool: string): boolean => PROVIDER_IDS.some((id) => id === pool);
