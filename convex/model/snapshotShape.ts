/** The shape of a snapshot, as it is promised to scripts and gates. */
import { v } from "convex/values";
import { alertFields, alertKind } from "./telemetryTables";
import { cacheUse } from "./toolTables";

const counts = v.record(v.string(), v.number());
const nullableNumber = v.union(v.number(), v.null());
const nullableText = v.union(v.string(), v.null());

export const breakerRow = v.object({
  provider: v.string(),
  state: v.union(
    v.literal("closed"),
    v.literal("open"),
    v.literal("half_open"),
    v.literal("forced_open"),
    v.literal("metrics_only"),
  ),
  reason: nullableText,
  /** Failures since the last success. */
  failureCount: v.number(),
  /** Within the breaker's own window, as all that follow. */
  callCount: v.number(),
  failedCount: v.number(),
  slowCount: v.number(),
  retryCount: v.number(),
  cooldownUntil: nullableNumber,
  generation: v.number(),
  updatedAt: nullableNumber,
});

export const breakerSection = v.object({
  recent: v.array(breakerRow),
  /** Circuits that refuse every call, held open ones included. */
  openCount: v.number(),
  halfOpenCount: v.number(),
  /** Circuits that an operator has set by hand. */
  forcedCount: v.number(),
});

export const bulkheadSection = v.object({
  activeLeaseCount: v.number(),
  inFlightByProvider: counts,
  /** Slots of each pool, as its knob says. */
  sizes: counts,
  /** Share of a pool's slots that is held; pools with none held are left out. */
  saturation: counts,
  saturated: v.array(v.string()),
});

const replayScope = v.object({
  totalKeys: v.number(),
  /** Keys that can have had a duplicate: no more than there are keys, or were duplicates. */
  duplicateKeys: v.number(),
  duplicateHits: v.number(),
});

export const replaySection = v.object({
  keysInWindow: v.number(),
  duplicateHitsInWindow: v.number(),
  byScope: v.record(v.string(), replayScope),
});

export const streamSection = v.object({
  streaming: v.number(),
  /** Of those: whose worker is dead, and which nobody has ended yet. */
  orphaned: v.number(),
});

export const webhookSection = v.object({
  queued: v.number(),
  deadLetter: v.number(),
  oldestQueuedAgeMs: nullableNumber,
});

export const cacheSection = v.object({
  /** Answers stored, exact however many and large. */
  sampledActiveEntries: v.number(),
  byNamespace: counts,
  /** Start of the first five minutes counted in `use`; null where nothing was counted. */
  useFromMs: nullableNumber,
  /** What the cache was to the tool calls of the window. */
  use: v.array(cacheUse),
});

export const jobCounts = v.object({
  queued: v.number(),
  running: v.number(),
  completed: v.number(),
  failed: v.number(),
  deadLetter: v.number(),
});

export const toolJobSection = v.object({
  sampled: v.number(),
  byStatus: jobCounts,
  byTool: v.record(v.string(), jobCounts),
  pressureByTool: v.record(
    v.string(),
    v.object({ queuedUtilization: v.number(), runningUtilization: v.number() }),
  ),
  oldestQueuedAgeMs: nullableNumber,
  oldestRunningAgeMs: nullableNumber,
  recentDeadLetters: v.array(
    v.object({
      jobId: v.string(),
      toolName: v.string(),
      attempts: v.number(),
      reason: nullableText,
      errorCode: nullableText,
      deadLetterAt: nullableNumber,
    }),
  ),
});

/** An alert in names and figures. */
export const alertRow = v.object({
  alertKey: v.string(),
  kind: alertKind,
  severity: alertFields.severity,
  observed: v.number(),
  threshold: v.number(),
  windowMinutes: v.number(),
  status: v.string(),
  delivery: v.string(),
  attempts: v.number(),
  lastFailure: nullableText,
  createdAt: v.number(),
  resolvedAt: nullableNumber,
});

export const alertSection = v.object({
  alertsInWindow: v.number(),
  recent: v.array(alertRow),
});

const refusalSection = v.object({
  sampledEvents: v.number(),
  byBucketOutcome: counts,
  byBucketOutcomeReason: counts,
  recentAlerts: v.array(alertRow),
  alertsInWindow: v.number(),
});

export const objectiveRow = v.object({
  key: v.string(),
  name: v.string(),
  state: v.union(v.literal("met"), v.literal("breached"), v.literal("insufficient")),
  total: v.number(),
  errorRatio: v.number(),
  burnRate: v.number(),
  /** Share of the whole period's error budget that the window spent, at even traffic. */
  budgetSpent: v.number(),
  degradedRatio: v.number(),
  p95Ms: nullableNumber,
  breaches: v.array(
    v.object({
      promise: v.union(v.literal("availability"), v.literal("latency"), v.literal("degraded")),
      actual: v.number(),
      limit: v.number(),
    }),
  ),
});

export const degradedRow = v.object({
  key: v.string(),
  served: v.number(),
  degraded: v.number(),
  ratio: v.number(),
});

const cause = v.object({
  /** Stable, such as `circuit_open:serper_search`. */
  id: v.string(),
  severity: v.union(v.literal("note"), v.literal("degraded"), v.literal("critical")),
  section: v.string(),
  detail: v.string(),
  runbook: v.string(),
});

const configWarning = v.object({
  name: v.string(),
  problem: v.string(),
  used: v.string(),
  /** Whether it guards something, so that what it guards is refused meanwhile. */
  security: v.boolean(),
});

export const snapshot = v.object({
  verdict: v.union(v.literal("ok"), v.literal("degraded"), v.literal("critical")),
  /** The causes' sentences, worst first. */
  reasons: v.array(v.string()),
  causes: v.array(cause),
  nextAction: v.object({ what: v.string(), command: nullableText, playbook: nullableText }),
  generatedAt: v.number(),
  windowMinutes: v.number(),
  /** Arguments that were beyond what is allowed. */
  clamped: v.array(v.string()),
  /** Knobs in force, in sections; secrets as a mark. */
  config: v.any(),
  configWarnings: v.array(configWarning),
  rateLimitPressure: refusalSection,
  circuitBreakers: breakerSection,
  bulkheads: bulkheadSection,
  replayProtection: replaySection,
  toolCache: cacheSection,
  toolJobs: toolJobSection,
  chatStreams: streamSection,
  webhookInbox: webhookSection,
  toolQueueAlerts: alertSection,
  alerts: v.object({
    ...alertSection.fields,
    /** Alerts whose condition holds. */
    active: v.number(),
    /** Notices that are due or being tried. */
    waiting: v.number(),
    /** Notices that were given up on within a day. */
    undelivered: v.number(),
    /** Notices of the last day that nobody could be told of: `SENTRY_DSN` is not set. */
    notConfigured: v.number(),
    oldestWaitingAgeMs: nullableNumber,
  }),
  slo: v.array(objectiveRow),
  degradedServe: v.array(degradedRow),
  /** Sections whose figures are lower bounds, because not everything could be read. */
  truncated: v.array(v.string()),
});
