/** What the functions of the job queue take and give, as validators. */
import { v } from "convex/values";

/** A job to be run, as its worker is handed it. */
export const claim = v.object({
  jobId: v.id("toolJobs"),
  /** Proves to later calls that the job is still this worker's. */
  fence: v.number(),
  toolName: v.string(),
  argsJson: v.string(),
  /** Which attempt this is; the first is 1. */
  attempts: v.number(),
  leaseExpiresAt: v.number(),
  /** When the result is of no use any more, in epoch ms. */
  deadlineAt: v.optional(v.number()),
});

/** A claim as an operator takes it. */
export const claimed = v.object({
  ...claim.fields,
  _id: v.id("toolJobs"),
  maxAttempts: v.number(),
});

/** A worker's proof that a job is its own. */
export const held = { jobId: v.id("toolJobs"), fence: v.number() };

/** What to run next in the slot of a job that ended. */
export const next = v.union(claim, v.null());

/** Where the work's result is cached. */
export const cacheKey = v.object({ namespace: v.string(), key: v.string() });

/** A result, and where it is cached. */
export const cacheEntry = v.object({
  namespace: v.string(),
  key: v.string(),
  ttlMs: v.number(),
  value: v.string(),
});

/** What became of a wish for a job. */
export const enqueued = v.union(
  v.object({ kind: v.literal("cached"), value: v.string() }),
  v.object({ kind: v.literal("negative"), retryAfterMs: v.number() }),
  v.object({ kind: v.literal("run"), claim }),
  v.object({ kind: v.literal("waiting"), jobId: v.id("toolJobs"), joined: v.boolean() }),
  v.object({ kind: v.literal("saturated"), retryAfterMs: v.number() }),
);

/** How an attempt that failed ended. */
export const failed = v.object({
  ok: v.boolean(),
  status: v.union(
    v.literal("requeued"),
    v.literal("dead_letter"),
    v.literal("failed"),
    v.literal("cancelled"),
    v.literal("missing"),
    v.literal("not_running"),
  ),
  retryDelayMs: v.number(),
  next,
});

/** What was run of those who waited. */
export const processed = v.object({
  processed: v.number(),
  jobs: v.array(v.object({ jobId: v.id("toolJobs"), status: v.string() })),
  skipped: v.optional(v.literal("worker_saturated")),
});

export const source = v.union(
  v.literal("chat_action"),
  v.literal("chat_http"),
  v.literal("operator"),
);
export const qosClass = v.union(
  v.literal("realtime"),
  v.literal("interactive"),
  v.literal("batch"),
);

const textOrNull = v.union(v.string(), v.null());
const numberOrNull = v.union(v.number(), v.null());

/** The state of a job. Times in epoch milliseconds. */
export const jobView = v.object({
  _id: v.id("toolJobs"),
  toolName: v.string(),
  /** queued, running, completed, failed (past its deadline), dead_letter or cancelled. */
  status: v.string(),
  attempts: v.number(),
  maxAttempts: v.number(),
  /** From 0 to 1, where its worker says. */
  progress: numberOrNull,
  resultJson: textOrNull,
  lastError: textOrNull,
  deadLetterReason: textOrNull,
  deadLetterAt: numberOrNull,
  /** Since when it may run, or when it will be tried again. */
  availableAt: v.number(),
  updatedAt: v.number(),
  createdAt: v.number(),
  completedAt: numberOrNull,
});

/** A dead letter without what users asked. */
export const deadLetter = v.object({
  jobId: v.id("toolJobs"),
  toolName: v.string(),
  attempts: v.number(),
  maxAttempts: v.number(),
  reason: textOrNull,
  errorCode: textOrNull,
  deadLetterAt: v.number(),
  /** Attempts that failed, those before it was last requeued included: the last few of them. */
  history: v.array(v.object({ atMs: v.number(), code: v.string() })),
  /** When it goes back into the queue, and why then, where an operator decided so. */
  deferred: v.union(v.object({ untilMs: v.number(), reason: v.string() }), v.null()),
});

/** Why an operator's wish for a dead letter was not done. */
export const refused = v.object({
  ok: v.literal(false),
  reason: v.union(v.literal("missing"), v.literal("not_dead_letter"), v.literal("unknown_tool")),
});

const jobCounts = v.object({
  queued: v.number(),
  running: v.number(),
  completed: v.number(),
  /** Ended without a result and without being a dead letter: past their deadline. */
  failed: v.number(),
  cancelled: v.number(),
  deadLetter: v.number(),
});

/** Counts of jobs, exact whenever none is in between two states; ages in milliseconds. */
export const queueStats = v.object({
  /** All jobs counted. None is left out: the name is older than that. */
  sampled: v.number(),
  truncated: v.boolean(),
  byStatus: jobCounts,
  byTool: v.record(v.string(), jobCounts),
  pressureByTool: v.record(
    v.string(),
    v.object({ queuedUtilization: v.number(), runningUtilization: v.number() }),
  ),
  oldestQueuedAgeMs: numberOrNull,
  oldestRunningAgeMs: numberOrNull,
});
