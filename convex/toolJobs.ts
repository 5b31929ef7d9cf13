import { type Infer, v } from "convex/values";
import { env } from "../src/config/env";
import { readKnob } from "../src/config/read";
import { beginningOf } from "../src/core/wellFormed";
import { AppError } from "../src/errors/appError";
import { internal } from "./_generated/api";
import * as Alerts from "./model/alerts";
import { internalAction, internalMutation, internalQuery } from "./model/functionBoundaries";
import * as QueueAlerts from "./model/toolJobAlerts";
import * as Batches from "./model/toolJobBatches";
import { cleanUp } from "./model/toolJobCleanup";
import * as DeadLetters from "./model/toolJobDeadLetters";
import * as Input from "./model/toolJobInput";
import * as Rows from "./model/toolJobRows";
import * as ToolJobs from "./model/toolJobs";
import {
  cacheEntry,
  cacheKey,
  claimed,
  deadLetter,
  enqueued,
  failed,
  held,
  jobView,
  next,
  processed,
  qosClass,
  queueStats,
  refused,
  source,
} from "./model/toolJobShapes";
import * as Starts from "./model/toolJobStarts";
import * as Stats from "./model/toolJobStats";
import * as ToolResults from "./model/toolResults";

/**
 * Makes a job: `run` where the caller is to run it at once, `waiting` where others will, `joined` to
 * identical work in flight or not, or `saturated`. With `run: "worker"` the caller never runs it.
 * With `cache`, a result that was stored since the caller looked there is `cached`, a failure that is
 * remembered there is `negative`, and no job is made. `deadlineMs` from now on the job is not started
 * any more. Throws `invalid_request` for an unknown tool, for arguments that are too large or no JSON,
 * and for a deadline that has passed.
 */
export const enqueue = internalMutation({
  args: {
    source,
    toolName: v.string(),
    argsJson: v.string(),
    workKey: v.optional(v.string()),
    maxAttempts: v.optional(v.number()),
    run: v.optional(v.union(v.literal("caller"), v.literal("worker"))),
    qosClass: v.optional(qosClass),
    deadlineMs: v.optional(v.number()),
    cache: v.optional(cacheKey),
  },
  returns: enqueued,
  handler: async (ctx, { cache, run = "caller", toolName, ...job }) => {
    const queue = Input.queueFor(toolName, [job], job.deadlineMs);
    // Between a caller's look at the cache and this, the job it would have joined may have ended.
    const known = cache === undefined ? null : await ToolResults.findEnded(ctx, cache, Date.now());
    if (known !== null) return known;
    return await ToolJobs.enqueue(ctx, queue, { ...job, run });
  },
});

/**
 * Makes up to 100 jobs of one tool for workers to run, in one transaction. The id of each, in order;
 * null for one that was refused because too many wait. Throws `invalid_request` as `enqueue` does.
 */
export const enqueueMany = internalMutation({
  args: {
    source,
    toolName: v.string(),
    jobs: v.array(v.object({ argsJson: v.string(), workKey: v.optional(v.string()) })),
    maxAttempts: v.optional(v.number()),
    qosClass: v.optional(qosClass),
    deadlineMs: v.optional(v.number()),
  },
  returns: v.object({
    jobIds: v.array(v.union(v.id("toolJobs"), v.null())),
    started: v.number(),
    waiting: v.number(),
    refused: v.number(),
    retryAfterMs: v.number(),
  }),
  handler: async (ctx, { jobs, toolName, ...common }) => {
    const queue = Input.queueFor(toolName, jobs, common.deadlineMs);
    if (jobs.length > Batches.BATCH_JOBS_MAX)
      throw new AppError("invalid_request", { detail: "Too many jobs at once." });
    const many = await Batches.enqueueMany(
      ctx,
      queue,
      jobs.map((job) => ({ ...common, ...job })),
    );
    const refused = many.jobIds.filter((jobId) => jobId === null).length;
    const retryAfterMs = refused === 0 ? 0 : ToolJobs.SATURATED_RETRY_MS;
    return { ...many, jobIds: [...many.jobIds], refused, retryAfterMs };
  },
});

/** The state of a job with its result, or null where it is gone. Times in epoch milliseconds. */
export const get = internalQuery({
  args: { jobId: v.id("toolJobs") },
  returns: v.union(v.null(), jobView),
  handler: async (ctx, { jobId }) => {
    const job = await ctx.db.get("toolJobs", jobId);
    return job === null ? null : await Rows.view(ctx, job, Date.now());
  },
});

/**
 * Takes the next waiting job of a tool, or of any, for an operator to run; null where none waits or
 * no slot is free, as it is as long as the queue runs by itself.
 */
export const claimNext = internalMutation({
  args: { toolName: v.optional(v.string()) },
  returns: v.union(claimed, v.null()),
  handler: async (ctx, { toolName }) => {
    const nowMs = Date.now();
    for (const tool of toolName === undefined ? Rows.QUEUED_TOOLS : [toolName]) {
      const queue = Rows.queueOf(tool);
      const taken = queue === null ? null : await Starts.serve(ctx, queue, nowMs);
      const job = taken === null ? null : await ctx.db.get("toolJobs", taken.jobId);
      if (taken !== null && job !== null)
        return { ...taken, _id: job._id, maxAttempts: Rows.attemptsMaxOfJob(job) };
    }
    return null;
  },
});

/**
 * Runs jobs that wait although slots are free, up to `maxJobs` (1 to 20, default
 * TOOL_JOB_MAX_PER_RUN). The queue does this by itself; this is for an operator who raised a tool's
 * limit and does not want to wait for the next job's end. `skipped` where jobs wait and no slot of
 * theirs is free.
 */
export const processQueue = internalAction({
  args: { maxJobs: v.optional(v.number()) },
  returns: processed,
  handler: async (ctx, args): Promise<Infer<typeof processed>> => {
    const maxJobs = args.maxJobs ?? readKnob(env, "TOOL_JOB_MAX_PER_RUN");
    // The work needs what mutations must not load, so it is done next door.
    const done: Infer<typeof processed> = await ctx.runAction(internal.toolRuns.processWaiting, {
      maxJobs,
    });
    if (done.processed > 0) return done;
    const stats: Stats.QueueStats = await ctx.runQuery(internal.toolJobs.getQueueStats, {});
    return Stats.isHeldUp(stats) ? { ...done, skipped: "worker_saturated" } : done;
  },
});

/**
 * Ends a job well and caches its result in the same transaction, unless the namespace was cleared
 * since the job was begun. Not `ok` for a stale worker, nor for a job that was cancelled. The slot
 * goes to whoever is next: as `next` to a worker that `wantsNext`, else to a worker that this starts.
 */
export const complete = internalMutation({
  args: {
    ...held,
    resultJson: v.string(),
    cache: v.optional(cacheEntry),
    wantsNext: v.optional(v.boolean()),
  },
  returns: v.object({ ok: v.boolean(), next }),
  handler: async (ctx, { cache, wantsNext = false, ...done }) => {
    const { claimedAtMs, ...completed } = await ToolJobs.complete(ctx, { ...done, wantsNext });
    const keeps = completed.ok && cache !== undefined;
    if (keeps && !(await ToolResults.isClearedSince(ctx, cache.namespace, claimedAtMs)))
      await ToolResults.store(ctx, cache, Date.now());
    return completed;
  },
});

/** Longest description of an error that is kept, in characters. */
const ERROR_CHARS_MAX = 600;

/**
 * Ends an attempt badly: the next is scheduled in the same transaction, or the job is buried, as it
 * is at once where the failure is not `retryable`. What went wrong is said by `errorCode`, or by an
 * operator in words of `error`; throws `invalid_request` where neither says anything. With
 * `cache`, a burial is remembered there for a short time, so that nobody asks again at once, unless
 * the namespace was cleared since the attempt was begun. The slot goes on as in `complete`.
 */
export const fail = internalMutation({
  args: {
    ...held,
    error: v.optional(v.string()),
    errorCode: v.optional(v.string()),
    retryable: v.optional(v.boolean()),
    cache: v.optional(cacheKey),
    wantsNext: v.optional(v.boolean()),
  },
  returns: failed,
  handler: async (
    ctx,
    { cache, error = "", fence, jobId, retryable = true, wantsNext = false, ...said },
  ) => {
    const errorCode = beginningOf(
      said.errorCode === undefined || said.errorCode === "" ? error : said.errorCode,
      ERROR_CHARS_MAX,
    );
    if (errorCode === "") throw new AppError("invalid_request", { detail: "Say what failed." });
    const ended = { jobId, fence, errorCode, retryable, wantsNext };
    const { claimedAtMs, ...outcome } = await ToolJobs.fail(ctx, ended);
    const keeps = cache !== undefined && outcome.status === "dead_letter";
    if (keeps && !(await ToolResults.isClearedSince(ctx, cache.namespace, claimedAtMs)))
      await ToolResults.storeFailure(ctx, { ...cache, code: errorCode }, Date.now());
    return { ok: outcome.status !== "missing" && outcome.status !== "not_running", ...outcome };
  },
});

/**
 * Extends a worker's lease and notes its progress, from 0 to 1. Not `ok` where the job is another's;
 * `cancelled` where nobody wants it any more and the worker should stop and report.
 */
export const heartbeat = internalMutation({
  args: { ...held, progress: v.optional(v.number()) },
  returns: v.object({ ok: v.boolean(), cancelled: v.boolean(), leaseExpiresAt: v.number() }),
  handler: (ctx, beat) => ToolJobs.heartbeat(ctx, beat),
});

/** Cancels a job: at once where it waits, else (`cancelling`) when its worker or its lease ends. */
export const cancel = internalMutation({
  args: { jobId: v.id("toolJobs") },
  returns: v.union(
    v.object({
      ok: v.literal(true),
      status: v.union(v.literal("cancelled"), v.literal("cancelling")),
    }),
    v.object({
      ok: v.literal(false),
      reason: v.union(v.literal("missing"), v.literal("ended")),
    }),
  ),
  handler: (ctx, { jobId }) => ToolJobs.cancel(ctx, jobId),
});

/** Starts a job whose time to be tried again has come, or puts it in line. */
export const dispatch = internalMutation({
  args: held,
  returns: v.null(),
  handler: async (ctx, job) => {
    await ToolJobs.dispatch(ctx, job);
    return null;
  },
});

/** Takes a job back from a worker that went silent, and gives its slot to whoever is next. */
export const expireLease = internalMutation({
  args: { slotId: v.id("slots"), fence: v.number() },
  returns: v.null(),
  handler: async (ctx, lease) => {
    await ToolJobs.expireLease(ctx, lease);
    return null;
  },
});

/** Goes on looking through a line in which many came too late to be started. */
export const serveLine = internalMutation({
  args: { toolName: v.string() },
  returns: v.null(),
  handler: async (ctx, { toolName }) => {
    const queue = Rows.queueOf(toolName);
    const claimed = queue === null ? null : await Starts.serve(ctx, queue, Date.now());
    if (claimed !== null) await Starts.startWorkers(ctx, [claimed]);
    return null;
  },
});

/** Dead letters without arguments or results, the newest first, up to 500. */
export const listDeadLetters = internalQuery({
  args: { limit: v.optional(v.number()) },
  returns: v.array(deadLetter),
  handler: (ctx, { limit = 50 }) => DeadLetters.list(ctx, limit),
});

/** Puts one dead letter back into the queue with all its attempts before it, and starts it. */
export const requeueDeadLetter = internalMutation({
  args: { jobId: v.id("toolJobs") },
  returns: v.union(v.object({ ok: v.literal(true) }), refused),
  handler: (ctx, { jobId }) => DeadLetters.requeue(ctx, jobId),
});

/**
 * Puts the oldest dead letters back, of one tool or of all, up to 100; `dryRun` only says which.
 * Throws `invalid_request` for a limit below 1.
 */
export const requeueDeadLetters = internalMutation({
  args: {
    toolName: v.optional(v.string()),
    limit: v.number(),
    dryRun: v.optional(v.boolean()),
  },
  returns: v.object({
    requeued: v.number(),
    jobIds: v.array(v.id("toolJobs")),
    dryRun: v.boolean(),
    hasMore: v.boolean(),
  }),
  handler: async (ctx, { dryRun = false, ...wanted }) => {
    Input.checkCount(wanted.limit);
    const { hasMore, jobIds } = await DeadLetters.requeueMany(ctx, { ...wanted, dryRun });
    return { requeued: dryRun ? 0 : jobIds.length, jobIds: [...jobIds], dryRun, hasMore };
  },
});

/**
 * Puts a dead letter off until a time, or by a delay, at which it goes back into the queue by
 * itself; it is kept until then, with the reason. Throws `invalid_request` without a time within a
 * year, or without a reason.
 */
export const deferDeadLetter = internalMutation({
  args: {
    jobId: v.id("toolJobs"),
    untilMs: v.optional(v.number()),
    delayMs: v.optional(v.number()),
    reason: v.string(),
  },
  returns: v.union(v.object({ ok: v.literal(true), untilMs: v.number() }), refused),
  handler: async (ctx, { jobId, ...wanted }) => {
    const untilMs = Input.deferredUntil(wanted, Date.now());
    return await DeadLetters.defer(ctx, { jobId, reason: wanted.reason, untilMs });
  },
});

/** Puts a deferred dead letter back when its time has come. */
export const requeueDeferred = internalMutation({
  args: { jobId: v.id("toolJobs"), untilMs: v.number() },
  returns: v.null(),
  handler: async (ctx, deferred) => {
    await DeadLetters.requeueDeferred(ctx, deferred);
    return null;
  },
});

/** How many jobs there are. Nothing is sampled, so `limit` is taken and changes nothing. */
export const getQueueStats = internalQuery({
  args: { limit: v.optional(v.number()) },
  returns: queueStats,
  handler: (ctx) => Stats.queueStats(ctx, Date.now()),
});

/**
 * Tells operators what of the queue is above its thresholds, and what no longer is. Run by a cron.
 * Looks at the queue as it was a moment ago, so that nobody who uses it waits for this.
 */
export const monitorQueueHealth = internalMutation({
  args: {},
  returns: QueueAlerts.queueHealth,
  handler: async (ctx): Promise<Infer<typeof QueueAlerts.queueHealth>> => {
    const stats: Stats.QueueStats = await ctx.runQuery(
      internal.toolJobs.getQueueStats,
      {},
      { useStaleSnapshot: true },
    );
    return await QueueAlerts.monitor(ctx, stats, Date.now());
  },
});

/** Raises an alert about the queue, unless it was within the cooldown. */
export const raiseQueueAlertIfNeeded = internalMutation({
  args: { kind: QueueAlerts.queueAlertKind, observed: v.number(), threshold: v.number() },
  returns: v.object({ created: v.boolean(), alertId: v.union(v.id("alerts"), v.null()) }),
  handler: async (ctx, finding) => {
    const { alertId, change } = await QueueAlerts.raise(ctx, finding, Date.now());
    return { created: change === "created", alertId };
  },
});

/** Alerts about the queue, the newest first, up to 200. */
export const listRecentQueueAlerts = internalQuery({
  args: { limit: v.optional(v.number()) },
  returns: v.array(Alerts.shownFields),
  handler: async (ctx, { limit = 50 }) => {
    const most = Math.min(200, Math.max(1, Math.floor(limit) || 1));
    return (await QueueAlerts.recent(ctx, most)).map(Alerts.shown);
  },
});

/** Deletes jobs whose retention is over, in bounded batches, until none is left. */
export const cleanupExpired = internalMutation({
  args: {},
  returns: v.object({
    deleted: v.number(),
    deletedJobs: v.number(),
    buriedJobs: v.number(),
    /** Always 0: alerts of all kinds are one table, which rateLimit:cleanupExpired cleans up. */
    deletedAlerts: v.number(),
  }),
  handler: async (ctx) => {
    const { buriedJobs, deletedJobs, hasMore } = await cleanUp(ctx);
    if (hasMore) await ctx.scheduler.runAfter(0, internal.toolJobs.cleanupExpired, {});
    return { deleted: deletedJobs, deletedJobs, buriedJobs, deletedAlerts: 0 };
  },
});
