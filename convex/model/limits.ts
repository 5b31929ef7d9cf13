import type { RateLimitInfo } from "../../src/errors/appError";
import {
  type Arrival,
  decide,
  type LimitPolicy,
  type LimitVerdict,
  shardPolicy,
  shardsFor,
} from "../../src/core/limiter";
import type { Id } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";

export interface LimitRequest extends LimitPolicy {
  /** Policy name shown to callers and in events, such as `chat_stream`. */
  readonly name: string;
  /** What is limited: `user:<id>`, `global`, … Bounded by the caller. */
  readonly key: string;
  /** How many requests this one counts for. Default 1. */
  readonly weight?: number;
  /** True for a key that many callers share: it is spread over documents by its rate and burst. */
  readonly shared?: boolean;
}

interface Stored {
  readonly id: Id<"limits"> | null;
  readonly k: string;
}

export type LimitDecision =
  | {
      readonly ok: true;
      readonly info: RateLimitInfo;
      readonly stored: Stored;
      readonly arrivalMs: number;
    }
  | { readonly ok: false; readonly info: RateLimitInfo; readonly retryAfterMs: number };

/** Shards looked at before a shared key is refused: all of them, save for the largest limits. */
const SHARD_TRIES = 8;

/**
 * Decides without taking, so that guards checked together are taken together. Reads one document
 * per shard looked at; a refusal depends on them and writes nothing, save for a state left behind
 * by a clock that stepped back or by a longer window.
 */
export async function check(
  ctx: MutationCtx,
  request: LimitRequest,
  nowMs: number,
): Promise<LimitDecision> {
  const shards = request.shared === true ? shardsFor(request) : 1;
  let refused: Extract<LimitDecision, { ok: false }> | null = null;
  for (const shard of shardsToTry(shards)) {
    const policy = shards === 1 ? request : shardPolicy(request, shard, shards);
    const k = shards === 1 ? keyOf(request) : `${keyOf(request)}#${shard}`;
    const row = await load(ctx, k);
    const verdict = decide(row?.t ?? null, nowMs, policy, request.weight);
    const info = describe(request, verdict, shards);
    if (verdict.ok)
      return { ok: true, info, stored: { id: row?._id ?? null, k }, arrivalMs: verdict.arrivalMs };
    if (verdict.mendedMs !== null && row !== null)
      await ctx.db.patch("limits", row._id, { t: verdict.mendedMs });
    if (refused === null || verdict.retryAfterMs < refused.retryAfterMs)
      refused = { ok: false, info, retryAfterMs: verdict.retryAfterMs };
  }
  if (refused === null) throw new Error("a limit has at least one shard");
  return refused;
}

/** Takes what `check` granted. Call in the same transaction, after every other guard agreed. */
export async function take(ctx: MutationCtx, decision: LimitDecision): Promise<void> {
  if (!decision.ok) throw new Error("only a granted limit can be taken");
  const { id, k } = decision.stored;
  if (id === null) await ctx.db.insert("limits", { k, t: decision.arrivalMs });
  else await ctx.db.replace("limits", id, { k, t: decision.arrivalMs });
}

/** Forgets a key, so that its next request finds the whole burst. */
export async function reset(ctx: MutationCtx, request: LimitRequest): Promise<void> {
  const shards = request.shared === true ? shardsFor(request) : 1;
  for (let shard = 0; shard < shards; shard++) {
    const row = await load(ctx, shards === 1 ? keyOf(request) : `${keyOf(request)}#${shard}`);
    if (row !== null) await ctx.db.delete("limits", row._id);
  }
}

const keyOf = ({ name, key }: LimitRequest): string => `${name}:${key}`;

async function load(
  ctx: MutationCtx,
  k: string,
): Promise<{ _id: Id<"limits">; t: Arrival } | null> {
  return await ctx.db
    .query("limits")
    .withIndex("by_key", (q) => q.eq("k", k))
    .unique();
}

/** A few distinct shards from a random start: neighbours, so that no list is shuffled. */
function shardsToTry(shards: number): number[] {
  const first = Math.floor(Math.random() * shards);
  const step = shards > SHARD_TRIES ? Math.floor(shards / SHARD_TRIES) : 1;
  return Array.from(
    { length: Math.min(shards, SHARD_TRIES) },
    (_, i) => (first + i * step) % shards,
  );
}

function describe(request: LimitRequest, verdict: LimitVerdict, shards: number): RateLimitInfo {
  return {
    name: request.name,
    limit: request.max,
    windowMs: request.windowMs,
    // One shard knows its own part only; the estimate assumes the others are alike.
    remaining: Math.min(request.max, verdict.remaining * shards),
    resetMs: verdict.resetMs,
  };
}
