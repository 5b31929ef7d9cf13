import type { Doc } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";

export type Claim = Doc<"idempotencyKeys">;

interface ClaimKey {
  readonly scope: string;
  readonly key: string;
}

export interface NewClaim extends ClaimKey {
  /** How long a duplicate is recognised, in milliseconds. A duplicate never extends it. */
  readonly ttlMs: number;
  /** Hash of the request: the same key with another one is a conflict. */
  readonly fingerprint?: string;
  /** Where the effect is found again, such as a stream id. At most 256 characters. */
  readonly reference?: string;
}

/** The live claim on a key, or null. An expired one is absent, whether or not it was cleaned up. */
export async function find(
  ctx: QueryCtx,
  { scope, key }: ClaimKey,
  nowMs: number,
): Promise<Claim | null> {
  const row = await load(ctx, { scope, key });
  return row === null || row.expiresAt <= nowMs ? null : row;
}

/** Claims a key that `find` found free, in the transaction that has the effect. */
export async function put(ctx: MutationCtx, claim: NewClaim, nowMs: number): Promise<void> {
  const { ttlMs, ...named } = claim;
  const fields = { ...named, firstSeenAt: nowMs, expiresAt: nowMs + ttlMs };
  const expired = await load(ctx, claim);
  if (expired === null) await ctx.db.insert("idempotencyKeys", fields);
  else await ctx.db.replace("idempotencyKeys", expired._id, fields);
}

/**
 * Gives a key back, so that the same request may be tried again. Only the claim that led to
 * `reference`: once expired, the key may have been claimed by another request.
 */
export async function release(
  ctx: MutationCtx,
  claim: ClaimKey & { readonly reference: string },
): Promise<void> {
  const row = await load(ctx, claim);
  if (row?.reference === claim.reference) await ctx.db.delete("idempotencyKeys", row._id);
}

async function load(ctx: QueryCtx, { scope, key }: ClaimKey): Promise<Claim | null> {
  return await ctx.db
    .query("idempotencyKeys")
    .withIndex("by_scope_key", (q) => q.eq("scope", scope).eq("key", key))
    .unique();
}
