import type { Env } from "../../config/env";
import { SECOND } from "../../core/time";
import { errorData } from "../../errors/appError";
import { type ErrorCode, ERRORS } from "../../errors/table";
import { log } from "../../log/log";
import { platformIo } from "../../providers/io";
import type { ToolArgs } from "../../tools/arguments";
import { parseToolArgs } from "../../tools/definitions";
import { runTool } from "../../tools/executors";
import { type Attempt, resultJson } from "../../tools/jobClient";
import { cacheKey } from "../../tools/keys";
import { type CachePolicy, cachePolicy } from "../../tools/policy";
import { isCacheable, type ToolDeps } from "../../tools/result";
import { isToolId, type QueuedToolId, type ToolId, toolRow } from "../../tools/table";
import type { CacheKey, Claim, Ctx, ToolFunctions } from "./functions";
import { gateOf, tokenStoreOf } from "./outbound";

/** Where claimed jobs are run: in the turn that wants the result, or in a worker of its own. */
export interface Worker {
  readonly ctx: Ctx;
  readonly env: Env;
  readonly functions: ToolFunctions;
  /** Until when the result is of use, in epoch milliseconds; the lease's end counts too. */
  readonly deadlineAtMs?: number;
}

/** Whether a tool's work goes through the cache and the queue. */
export const isQueuedToolId = (tool: ToolId): tool is QueuedToolId => toolRow(tool).queue !== null;

/** Time kept of a lease for reporting the result. */
const LEASE_MARGIN_MS = 2 * SECOND;

/**
 * Runs a claimed job and reports it, result and cache entry in one transaction. A job may have been
 * joined by callers that this one does not know of, so it is run to its end even when the caller who
 * made it leaves: they get its result, and so does the cache.
 */
export async function runClaim(claim: Claim, worker: Worker): Promise<Attempt> {
  const { ctx, env, functions } = worker;
  const { fence, jobId, toolName } = claim;
  if (!isToolId(toolName) || !isQueuedToolId(toolName))
    throw new Error("a job names a queued tool");
  const parsed = parseToolArgs<QueuedToolId>(toolName, JSON.parse(claim.argsJson) as unknown);
  if (!parsed.ok) throw new Error("arguments were checked before they were queued");
  const cache = await cachePlace(env, toolName, parsed.args);
  const held = { jobId, fence };
  const ran = await runTool(toolName, parsed.args, depsOf(worker, deadlineOf(claim, worker))).then(
    (result) => ({ ok: true as const, result }),
    (error: unknown) => ({ ok: false as const, code: errorData(error).code }),
  );
  if (!ran.ok) {
    const { code } = ran;
    const failure = {
      ...held,
      errorCode: code,
      retryable: ERRORS[code].retryable,
      ...(cache !== null && isProvidersFault(code) ? { cache: cache.at } : {}),
    };
    const failed = await report(
      () => ctx.runMutation(functions.fail, failure),
      () => ctx.scheduler.runAfter(0, functions.fail, failure),
    );
    log.event("tool_attempt_failed", { tool: toolName, code, status: failed?.status ?? "later" });
    // Whoever holds the job now goes on with it, if it is not dead.
    return { kind: failed?.status === "dead_letter" ? "failed" : "requeued" };
  }
  const { result } = ran;
  const done = {
    ...held,
    resultJson: resultJson(result),
    ...(cache !== null && isCacheable(result)
      ? { cache: { ...cache.at, ttlMs: cache.policy.ttlMs, value: result.value } }
      : {}),
  };
  await report(
    () => ctx.runMutation(functions.complete, done),
    () => ctx.scheduler.runAfter(0, functions.complete, done),
  );
  return { kind: "done", result };
}

/**
 * Reports the end of an attempt. What is lost to contention is left to the scheduler, which tries
 * without end; the fence keeps a report that comes too late from doing harm. Null then.
 */
async function report<Returns>(
  now: () => Promise<Returns>,
  later: () => Promise<unknown>,
): Promise<Returns | null> {
  try {
    return await now();
  } catch (error) {
    if (errorData(error).code !== "overloaded") throw error;
    await later();
    return null;
  }
}

/** Where a tool keeps the result of these arguments, and how long; null for one that keeps none. */
export async function cachePlace<Id extends QueuedToolId>(
  env: Env,
  tool: Id,
  args: ToolArgs[Id],
): Promise<{ readonly policy: CachePolicy; readonly at: CacheKey } | null> {
  const policy = cachePolicy(env, tool);
  if (policy === null) return null;
  return { policy, at: { namespace: policy.namespace, key: await cacheKey(tool, args) } };
}

/** What tools need of where they run. */
export function depsOf({ ctx, env, functions }: Worker, deadlineAtMs: number): ToolDeps {
  return {
    gate: gateOf(ctx, functions),
    tokens: tokenStoreOf(ctx, functions),
    io: { ...platformIo, env },
    deadlineAtMs,
  };
}

function deadlineOf(claim: Claim, { deadlineAtMs = Infinity }: Worker): number {
  return Math.min(claim.leaseExpiresAt - LEASE_MARGIN_MS, deadlineAtMs);
}

/** Our own faults pass at once; what a provider refused or failed at would only be met again. */
const isProvidersFault = (code: ErrorCode): boolean => code.startsWith("upstream_");
