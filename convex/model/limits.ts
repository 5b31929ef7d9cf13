import {
  type Arrival,
  decide,
  decideSpread,
  type Demand,
  isDecidable,
  type LimitPolicy,
  type LimitVerdict,
  shardPolicy,
  shardsFor,
} from "../../src/core/limiter";
import { beginningOf } from "../../src/core/wellFormed";
import { AppError, type RateLimitInfo } from "../../src/errors/appError";
import { internal } from "../_generated/api";
import type { Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";

export interface LimitRequest extends LimitPolicy {
  /** Policy name shown to callers and in events, such as `chat_stream`. */
  readonly name: string;
  /** What is limited: `user:<id>`, `global`, … Bounded by the caller. */
  readonly key: string;
  /** How many requests this one counts for. Default 1. */
  readonly weight?: number;
  /** How long the caller would wait for its turn, in milliseconds. Default 0. */
  readonly reserveMs?: number;
  /** True for a key that many callers share: it is spread over documents by its rate and burst. */
  readonly shared?: boolean;
}

/** A state to store when every other guard agrees as well. */
interface Write {
  readonly id: Id<"limits"> | null;
  readonly k: string;
  readonly arrivalMs: number;
}

/** How a decision was come by: on all of the state there is, on the shards looked at, or on none. */
export type LimitSource = "exact" | "sharded" | "degraded";

export type LimitDecision =
  | {
      readonly ok: true;
      readonly info: RateLimitInfo;
      readonly source: LimitSource;
      readonly writes: readonly Write[];
      /** How long to wait before going ahead; 0 unless a turn was reserved. */
      readonly waitMs: number;
    }
  | {
      readonly ok: false;
      readonly info: RateLimitInfo;
      readonly source: LimitSource;
      readonly retryAfterMs: number;
    };

/** Shards compared before one is asked: two are enough to keep all of them level. */
const SHARD_CHOICES = 2;
/** Shards compared once more before a shared key is refused. */
const SHARD_CHOICES_BEFORE_REFUSAL = 8;

/**
 * Decides without taking, so that guards checked together are taken together. Depends on one
 * document: which shard of a shared key has the most left is looked up without depending on it. A
 * refusal writes nothing, save for a state left behind by a clock that stepped back or by a longer
 * window. What weighs more than one shard's part depends on all of them. A limit named in `leaveOut`
 * is not looked at and lets through: see `leftOut`. Throws `invalid_request` for numbers that are no
 * limit, or a weight that could never pass.
 */
export async function check(
  ctx: MutationCtx,
  request: LimitRequest,
  nowMs: number,
  leaveOut: readonly string[] = [],
): Promise<LimitDecision> {
  const shards = shardsOf(request);
  const { weight = 1 } = request;
  if (shards > 1 && weight > request.max) throw noLimit();
  if (leaveOut.includes(request.name)) return leftOut(request);
  if (shards === 1) return await ask(ctx, request, keyOf(request), nowMs);
  if (weight > shardPolicy(request, shards - 1, shards).max)
    return await askAll(ctx, request, shards, nowMs);
  const first = await askShard(ctx, { request, shards, choices: SHARD_CHOICES }, nowMs);
  if (first.ok) return first;
  const choices = SHARD_CHOICES_BEFORE_REFUSAL;
  const second = await askShard(ctx, { request, shards, choices }, nowMs);
  return second.ok || second.retryAfterMs < first.retryAfterMs ? second : first;
}

/** Documents that a request's key is spread over. Throws `invalid_request` for what is no limit. */
function shardsOf(request: LimitRequest): number {
  if (!isDecidable(request, request)) throw noLimit();
  return request.shared === true ? shardsFor(request) : 1;
}

const noLimit = (): AppError =>
  new AppError("invalid_request", {
    detail: "max, windowMs and weight are whole numbers from 1, and no weight is above max.",
  });

/**
 * The decision of a limit that cannot be had and is declared to let through. Nothing is read, so that
 * nothing can be lost; as nothing is known of what is left, callers are told the least.
 */
function leftOut({ max, name, windowMs }: LimitRequest): LimitDecision {
  const info = { name, limit: max, windowMs, remaining: 0, resetMs: windowMs };
  return { ok: true, info, source: "degraded", writes: [], waitMs: 0 };
}

/** Takes what `check` granted. Call in the same transaction, after every other guard agreed. */
export async function take(ctx: MutationCtx, decision: LimitDecision): Promise<void> {
  if (!decision.ok) throw new Error("only a granted limit can be taken");
  for (const { arrivalMs, id, k } of decision.writes)
    if (id === null) await ctx.db.insert("limits", { k, t: arrivalMs });
    else await ctx.db.replace("limits", id, { k, t: arrivalMs });
  if (decision.source === "degraded") await countLeftOut(ctx, decision.info.name);
}

/** Longest name that an event is counted under. */
const BUCKET_CHARS_MAX = 64;

/**
 * Counts a request that went ahead without a limit, once it is certain that it does, and apart from
 * this transaction: counting must not lose it again.
 */
export async function countLeftOut(ctx: MutationCtx, name: string): Promise<void> {
  const bucket = beginningOf(name, BUCKET_CHARS_MAX);
  await ctx.scheduler.runAfter(0, internal.rateLimit.recordEvent, { bucket, outcome: "degraded" });
}

/** Forgets a key, so that its next request finds the whole burst. Throws as `check` does. */
export async function reset(ctx: MutationCtx, request: LimitRequest): Promise<void> {
  const shards = shardsOf(request);
  for (let shard = 0; shard < shards; shard++) {
    const row = await load(ctx, shards === 1 ? keyOf(request) : shardKey(keyOf(request), shard));
    if (row !== null) await ctx.db.delete("limits", row._id);
  }
}

/** Which of some shards has the most left. Meant to be run on a stale snapshot. */
export async function emptiest(
  ctx: QueryCtx,
  { key, shards }: { readonly key: string; readonly shards: readonly number[] },
): Promise<number> {
  let best = { shard: shards[0] ?? 0, arrivalMs: Infinity };
  for (const shard of shards) {
    const arrivalMs = (await load(ctx, shardKey(key, shard)))?.t ?? 0;
    if (arrivalMs < best.arrivalMs) best = { shard, arrivalMs };
    if (arrivalMs === 0) break;
  }
  return best.shard;
}

interface Sharded {
  readonly request: LimitRequest;
  readonly shards: number;
  readonly choices: number;
}

/** Asks the emptiest of a few random shards. */
async function askShard(
  ctx: MutationCtx,
  { choices, request, shards }: Sharded,
  nowMs: number,
): Promise<LimitDecision> {
  const key = keyOf(request);
  const shard = await ctx.runQuery(
    internal.rateLimit.pickShard,
    { key, shards: someOf(shards, choices) },
    { useStaleSnapshot: true },
  );
  const part = { ...request, ...shardPolicy(request, shard, shards) };
  const decision = await ask(ctx, part, shardKey(key, shard), nowMs);
  const { info } = decision;
  return {
    ...decision,
    source: "sharded",
    info: {
      ...info,
      limit: request.max,
      // One shard knows its own part only; the estimate assumes the others are alike.
      remaining: Math.min(request.max, info.remaining * shards),
    },
  };
}

/** Asks all shards together: for what is too heavy for one. */
async function askAll(
  ctx: MutationCtx,
  request: LimitRequest,
  shards: number,
  nowMs: number,
): Promise<LimitDecision> {
  const keys = Array.from({ length: shards }, (_, shard) => shardKey(keyOf(request), shard));
  const rows: Awaited<ReturnType<typeof load>>[] = [];
  for (const k of keys) rows.push(await load(ctx, k));
  const arrivals = rows.map((row) => row?.t ?? null);
  const verdict = decideSpread(arrivals, nowMs, request, demandOf(request));
  const info = describe(request, verdict);
  const source = "exact" as const;
  if (!verdict.ok) return { ok: false, info, source, retryAfterMs: verdict.retryAfterMs };
  const writes = keys.flatMap((k, shard) => {
    const arrivalMs = verdict.arrivals.get(shard);
    return arrivalMs === undefined ? [] : [{ id: rows[shard]?._id ?? null, k, arrivalMs }];
  });
  return { ok: true, info, source, writes, waitMs: verdict.waitMs };
}

async function ask(
  ctx: MutationCtx,
  request: LimitRequest,
  k: string,
  nowMs: number,
): Promise<LimitDecision> {
  const row = await load(ctx, k);
  const verdict = decide(row?.t ?? null, nowMs, request, demandOf(request));
  const info = describe(request, verdict);
  const source = "exact" as const;
  if (verdict.ok) {
    const { arrivalMs, waitMs } = verdict;
    return { ok: true, info, source, writes: [{ id: row?._id ?? null, k, arrivalMs }], waitMs };
  }
  if (verdict.mendedMs !== null && row !== null)
    await ctx.db.patch("limits", row._id, { t: verdict.mendedMs });
  return { ok: false, info, source, retryAfterMs: verdict.retryAfterMs };
}

const demandOf = ({ reserveMs, weight }: LimitRequest): Demand => ({
  ...(weight === undefined ? {} : { weight }),
  ...(reserveMs === undefined ? {} : { reserveMs }),
});

const keyOf = ({ name, key }: LimitRequest): string => `${name}:${key}`;
const shardKey = (key: string, shard: number): string => `${key}#${shard}`;

async function load(ctx: QueryCtx, k: string): Promise<{ _id: Id<"limits">; t: Arrival } | null> {
  return await ctx.db
    .query("limits")
    .withIndex("by_key", (q) => q.eq("k", k))
    .unique();
}

/** A few distinct shards from a random start, as far apart as they can be. */
function someOf(shards: number, choices: number): number[] {
  const count = Math.min(shards, choices);
  const first = Math.floor(Math.random() * shards);
  const room = Math.floor(shards / count);
  return Array.from(
    { length: count },
    (_, i) => (first + i * room + (i === 0 ? 0 : Math.floor(Math.random() * room))) % shards,
  );
}

function describe(
  request: LimitRequest,
  verdict: Pick<LimitVerdict, "remaining" | "resetMs">,
): RateLimitInfo {
  const { max: limit, name, windowMs } = request;
  return { name, limit, windowMs, remaining: verdict.remaining, resetMs: verdict.resetMs };
}
