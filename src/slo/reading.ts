/** What a verdict looks at, and where a reading becomes a problem. */
import { MINUTE } from "../core/time";
import type { SloBreach } from "./objectives";

/** `note`: worth knowing, and no reason for another verdict. */
export type Severity = "note" | "degraded" | "critical";

export interface BreakerReading {
  readonly provider: string;
  readonly state: "closed" | "open" | "half_open" | "forced_open" | "metrics_only";
  /** Service that needs one of its providers to answer at all, such as `chat`; null for others. */
  readonly essentialTo: string | null;
}

interface PoolReading {
  readonly pool: string;
  readonly inFlight: number;
  readonly limit: number;
  /** Calls of the window that found every slot held, and how many of them are usual. */
  readonly refused: number;
  readonly refusedMax: number;
}

export interface QueueReading {
  readonly tool: string;
  readonly queued: number;
  readonly queuedMax: number;
  readonly running: number;
  /** Null where nothing waits or runs. */
  readonly oldestQueuedAgeMs: number | null;
  readonly oldestRunningAgeMs: number | null;
}

/** Refusals of one policy in the window. */
interface LimiterReading {
  readonly bucket: string;
  readonly blocked: number;
  /** Refused because the limit itself could not be had. */
  readonly contended: number;
  readonly blockedMax: number;
  readonly contendedMax: number;
}

interface ConfigReading {
  readonly name: string;
  readonly problem: string;
  readonly used: string;
  /** Whether it guards something, so that what it guards is refused meanwhile. */
  readonly security: boolean;
}

/** Answers of one provider or route in the window. */
interface ServedReading {
  readonly key: string;
  readonly served: number;
  /** Of those, stale or partial ones. */
  readonly degraded: number;
}

/** Everything a verdict looks at. Empty lists and zeroes are a system without a problem. */
export interface VerdictInput {
  readonly breakers: readonly BreakerReading[];
  /** Pools of providers; a tool's running jobs belong to its queue. */
  readonly bulkheads: readonly PoolReading[];
  readonly queues: readonly QueueReading[];
  /** Tool jobs that were given up on, and that nobody has dealt with. */
  readonly deadLetters: number;
  readonly webhooks: {
    readonly queued: number;
    readonly deadLetters: number;
    readonly oldestQueuedAgeMs: number | null;
  };
  readonly limiters: readonly LimiterReading[];
  readonly alerts: {
    /** Waiting to be delivered. */
    readonly waiting: number;
    /** Given up on. */
    readonly undelivered: number;
    /** There was nobody to deliver them to. */
    readonly notConfigured: number;
    readonly oldestWaitingAgeMs: number | null;
  };
  readonly config: readonly ConfigReading[];
  /** Streams that claim to be running and whose worker gave no sign of life. */
  readonly orphanStreams: number;
  readonly served: readonly ServedReading[];
  readonly sloBreaches: readonly SloBreach[];
  /** Sections of the snapshot whose figures are lower bounds. */
  readonly truncated: readonly string[];
}

/** A system in which nothing is wrong; a reading is made by spreading over it. */
export const NOTHING_WRONG: VerdictInput = {
  breakers: [],
  bulkheads: [],
  queues: [],
  deadLetters: 0,
  webhooks: { queued: 0, deadLetters: 0, oldestQueuedAgeMs: null },
  limiters: [],
  alerts: { waiting: 0, undelivered: 0, notConfigured: 0, oldestWaitingAgeMs: null },
  config: [],
  orphanStreams: 0,
  served: [],
  sloBreaches: [],
  truncated: [],
};

/** Where a reading becomes a problem; the queue's come from its alert knobs. */
export interface VerdictLimits {
  readonly queuedAgeMsMax: number;
  readonly runningAgeMsMax: number;
  readonly deadLettersMax: number;
  /** Share of a queue's cap from which it is about to refuse. */
  readonly queueUtilizationMax: number;
  readonly alertAgeMsMax: number;
  readonly degradedShareMax: number;
  /** Fewer answers than this say nothing about a share. */
  readonly servedMin: number;
  /** Burn rate at which a month's budget is gone in two days. */
  readonly criticalBurnRate: number;
}

export const VERDICT_LIMITS: VerdictLimits = {
  queuedAgeMsMax: MINUTE,
  runningAgeMsMax: 5 * MINUTE,
  deadLettersMax: 20,
  queueUtilizationMax: 0.8,
  alertAgeMsMax: 15 * MINUTE,
  degradedShareMax: 0.1,
  servedMin: 20,
  criticalBurnRate: 14.4,
};
