import { v } from "convex/values";
import { AppError } from "../src/errors/appError";
import { internal } from "./_generated/api";
import { internalMutation, internalQuery } from "./_generated/server";
import * as ToolJobs from "./model/toolJobs";
import * as ToolResults from "./model/toolResults";

const functions: ToolJobs.QueueFunctions = {
  run: internal.toolRuns.run,
  dispatch: internal.toolJobs.dispatch,
  expireLease: internal.toolJobs.expireLease,
};

const claim = v.object({
  jobId: v.id("toolJobs"),
  fence: v.number(),
  toolName: v.string(),
  argsJson: v.string(),
  attempts: v.number(),
  leaseExpiresAt: v.number(),
});

/** Where the work's result is cached. */
const cacheKey = v.object({ namespace: v.string(), key: v.string() });

/** Largest arguments of a job, in characters. */
const ARGS_CHARS_MAX = 16 * 1024;

/**
 * Hands a job to the caller to run at once, queues it, joins it to identical work in flight, or
 * refuses as `saturated`. With `cache`, a result that was stored since the caller looked there is
 * `cached`, and no job is made. Throws `invalid_request` for an unknown tool or oversized arguments.
 */
export const enqueue = internalMutation({
  args: {
    source: v.union(v.literal("chat_action"), v.literal("chat_http"), v.literal("operator")),
    toolName: v.string(),
    argsJson: v.string(),
    workKey: v.optional(v.string()),
    maxAttempts: v.optional(v.number()),
    run: v.optional(v.union(v.literal("caller"), v.literal("worker"))),
    cache: v.optional(cacheKey),
  },
  returns: v.union(
    v.object({ kind: v.literal("cached"), value: v.string() }),
    v.object({ kind: v.literal("run"), claim }),
    v.object({ kind: v.literal("waiting"), jobId: v.id("toolJobs"), joined: v.boolean() }),
    v.object({ kind: v.literal("saturated"), retryAfterMs: v.number() }),
  ),
  handler: async (ctx, { cache, ...job }) => {
    const toolName = ToolJobs.toolOf(job.toolName);
    if (toolName === null) throw new AppError("invalid_request", { detail: "Unknown tool." });
    if (job.argsJson.length > ARGS_CHARS_MAX)
      throw new AppError("invalid_request", { detail: "The arguments are too large." });
    // Between a caller's look at the cache and this, the job it would have joined may have ended.
    const stored = cache === undefined ? null : await ToolResults.findFresh(ctx, cache, Date.now());
    if (stored !== null) return { kind: "cached" as const, value: stored };
    return await ToolJobs.enqueue(ctx, { ...job, toolName }, functions);
  },
});

/** The state of a job with its result, or null where it is gone. */
export const get = internalQuery({
  args: { jobId: v.id("toolJobs") },
  returns: v.union(
    v.null(),
    v.object({
      _id: v.id("toolJobs"),
      status: v.string(),
      attempts: v.number(),
      maxAttempts: v.number(),
      resultJson: v.union(v.string(), v.null()),
      lastError: v.union(v.string(), v.null()),
      deadLetterReason: v.union(v.string(), v.null()),
      deadLetterAt: v.union(v.number(), v.null()),
      availableAt: v.number(),
      updatedAt: v.number(),
      createdAt: v.number(),
      completedAt: v.union(v.number(), v.null()),
    }),
  ),
  handler: async (ctx, { jobId }) => {
    const job = await ctx.db.get("toolJobs", jobId);
    if (job === null) return null;
    const done = job.status === "completed" ? await ToolJobs.loadPayload(ctx, jobId) : null;
    return {
      _id: job._id,
      status: job.status,
      attempts: job.attempts,
      maxAttempts: job.maxAttempts,
      resultJson: done?.resultJson ?? null,
      lastError: job.lastErrorCode ?? null,
      deadLetterReason: job.deadLetterReason ?? null,
      deadLetterAt: job.deadLetterAt ?? null,
      availableAt: job.availableAt,
      updatedAt: job.updatedAt,
      createdAt: job.createdAt,
      completedAt: job.completedAt ?? null,
    };
  },
});

/** Takes the oldest waiting job of a tool, or null where none waits or no slot is free. */
export const claimNext = internalMutation({
  args: { toolName: v.string() },
  returns: v.union(claim, v.null()),
  handler: async (ctx, args) => {
    const toolName = ToolJobs.toolOf(args.toolName);
    return toolName === null ? null : await ToolJobs.claimNext(ctx, toolName, functions);
  },
});

const cacheEntry = v.object({
  namespace: v.string(),
  key: v.string(),
  ttlMs: v.number(),
  value: v.string(),
});

/** Ends a job well and caches its result in the same transaction. Refused for a stale worker. */
export const complete = internalMutation({
  args: {
    jobId: v.id("toolJobs"),
    fence: v.number(),
    resultJson: v.string(),
    cache: v.optional(cacheEntry),
  },
  returns: v.object({ ok: v.boolean() }),
  handler: async (ctx, { cache, ...held }) => {
    const ok = await ToolJobs.complete(ctx, held, functions);
    if (ok && cache !== undefined) await ToolResults.store(ctx, cache, Date.now());
    return { ok };
  },
});

/**
 * Ends an attempt badly: the next is scheduled in the same transaction, or the job is buried. With
 * `cache`, a burial is remembered there for a short time, so that nobody asks again at once.
 */
export const fail = internalMutation({
  args: {
    jobId: v.id("toolJobs"),
    fence: v.number(),
    errorCode: v.string(),
    retryable: v.boolean(),
    cache: v.optional(cacheKey),
  },
  returns: v.object({
    ok: v.boolean(),
    status: v.union(
      v.literal("requeued"),
      v.literal("dead_letter"),
      v.literal("missing"),
      v.literal("not_running"),
    ),
    retryDelayMs: v.number(),
  }),
  handler: async (ctx, { cache, ...held }) => {
    const failed = await ToolJobs.fail(ctx, held, functions);
    if (cache !== undefined && failed.status === "dead_letter")
      await ToolResults.storeFailure(ctx, { ...cache, code: held.errorCode }, Date.now());
    return { ok: failed.status === "requeued" || failed.status === "dead_letter", ...failed };
  },
});

/** Starts a worker for a job whose retry time has come. */
export const dispatch = internalMutation({
  args: { jobId: v.id("toolJobs") },
  returns: v.null(),
  handler: async (ctx, { jobId }) => {
    await ToolJobs.dispatch(ctx, jobId, functions);
    return null;
  },
});

/** Takes a job back from a worker that went silent. */
export const expireLease = internalMutation({
  args: { jobId: v.id("toolJobs"), fence: v.number() },
  returns: v.null(),
  handler: async (ctx, held) => {
    await ToolJobs.expireLease(ctx, held, functions);
    return null;
  },
});

/** Deletes jobs whose retention is over, in bounded batches, until none is left. */
export const cleanupExpired = internalMutation({
  args: {},
  returns: v.object({ deleted: v.number() }),
  handler: async (ctx) => {
    const { deleted, hasMore } = await ToolJobs.deleteExpired(ctx, functions);
    if (hasMore) await ctx.scheduler.runAfter(0, internal.toolJobs.cleanupExpired, {});
    return { deleted };
  },
});
