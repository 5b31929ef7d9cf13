import type { Env } from "../../config/env";
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
import { isCacheable, type ToolDeps, type ToolResult } from "../../tools/result";
import { isToolId, type QueuedToolId, type ToolId, toolRow } from "../../tools/table";
import type { CacheKey, Claim, Ctx, ToolFunctions } from "./functions";
import { holdLease } from "./leaseKeeper";
import { gateOf, tokenStoreOf } from "./outbound";
import type { ToolBounds } from "./toolTurn";

/** Where claimed jobs are run: in the turn that wants the result, or in a worker of its own. */
export interface Worker {
  readonly ctx: Ctx;
  readonly env: Env;
  readonly functions: ToolFunctions;
  /** Until when the result is of use, in epoch milliseconds. */
  readonly deadlineAtMs?: number;
  /** Whether to be handed the next job of the slot, in place of another worker. */
  readonly wantsNext?: boolean;
}

/** Whether a tool's work goes through the cache and the queue. */
export const isQueuedToolId = (tool: ToolId): tool is QueuedToolId => toolRow(tool).queue !== null;

/**
 * Runs a claimed job and reports it, result and cache entry in one transaction. A job may have been
 * joined by callers that this one does not know of, so it is run to its end even when the caller who
 * made it leaves: they get its result, and so does the cache. It is let go when it was cancelled or
 * taken over. What the next job of its slot is, is told to a worker that asked.
 */
export async function runClaim(
  claim: Claim,
  worker: Worker,
): Promise<Attempt & { readonly next: Claim | null }> {
  const { ctx, env, functions } = worker;
  const { fence, jobId, toolName } = claim;
  const work = workOf(claim);
  const cache = work === null ? null : await cachePlace(env, work.tool, work.args);
  const held = { jobId, fence };
  const asking = worker.wantsNext === true ? { wantsNext: true } : {};
  const ran = work === null ? UNKNOWN : await run(work, claim, worker);
  if (!ran.ok) {
    const { code } = ran;
    const failure = {
      ...held,
      errorCode: code,
      retryable: work !== null && ERRORS[code].retryable,
      ...(cache !== null && isProvidersFault(code) ? { cache: cache.at } : {}),
    };
    const failed = await report(
      () => ctx.runMutation(functions.fail, { ...failure, ...asking }),
      () => ctx.scheduler.runAfter(0, functions.fail, failure),
    );
    log.event("tool_attempt_failed", { tool: toolName, code, status: failed?.status ?? "later" });
    return {
      kind: failed === null || GOES_ON.includes(failed.status) ? "requeued" : "failed",
      next: failed?.next ?? null,
    };
  }
  const { result } = ran;
  const done = {
    ...held,
    resultJson: resultJson(result),
    ...(cache !== null && isCacheable(result)
      ? { cache: { ...cache.at, ttlMs: cache.policy.ttlMs, value: result.value } }
      : {}),
  };
  const completed = await report(
    () => ctx.runMutation(functions.complete, { ...done, ...asking }),
    () => ctx.scheduler.runAfter(0, functions.complete, done),
  );
  return { kind: "done", result, next: completed?.next ?? null };
}

/** Statuses of a job that has another attempt, by itself or by whoever took it over. */
const GOES_ON: readonly string[] = ["requeued", "not_running"];

interface Work {
  readonly tool: QueuedToolId;
  readonly args: ToolArgs[QueuedToolId];
}

/** What a claim asks for; null where no tool of ours does it any more, since it was queued. */
function workOf({ argsJson, toolName }: Claim): Work | null {
  if (!isToolId(toolName) || !isQueuedToolId(toolName)) return null;
  try {
    const parsed = parseToolArgs<QueuedToolId>(toolName, JSON.parse(argsJson) as unknown);
    return parsed.ok ? { tool: toolName, args: parsed.args } : null;
  } catch {
    return null;
  }
}

type Ran =
  | { readonly ok: true; readonly result: ToolResult }
  | { readonly ok: false; readonly code: ErrorCode };

const UNKNOWN: Ran = { ok: false, code: "internal_error" };

/** Does the work while the lease on it is kept. */
async function run({ args, tool }: Work, claim: Claim, worker: Worker): Promise<Ran> {
  const { ctx, functions } = worker;
  const { fence, jobId } = claim;
  const lease = holdLease(
    claim.leaseExpiresAt,
    () => ctx.runMutation(functions.heartbeat, { jobId, fence }),
    platformIo,
  );
  try {
    const deadlineAtMs = Math.min(claim.deadlineAt ?? Infinity, worker.deadlineAtMs ?? Infinity);
    const deps = depsOf(worker, { deadlineAtMs, signal: lease.lost });
    return { ok: true, result: await runTool(tool, args, deps) };
  } catch (error) {
    return { ok: false, code: errorData(error).code };
  } finally {
    lease.release();
  }
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

/** What tools need of where they run; the signal lets go of what they ask providers. */
export function depsOf(
  { ctx, env, functions }: Worker,
  { deadlineAtMs, signal }: ToolBounds,
): ToolDeps {
  return {
    gate: gateOf(ctx, functions),
    tokens: tokenStoreOf(ctx, functions),
    io: { ...platformIo, env, signal },
    deadlineAtMs,
  };
}

/** Our own faults pass at once; what a provider refused or failed at would only be met again. */
const isProvidersFault = (code: ErrorCode): boolean => code.startsWith("upstream_");
