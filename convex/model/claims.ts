import { KIB, utf8Bytes } from "../../src/core/bytes";
import {
  type ClaimState,
  type ClaimVerdict,
  decideClaim,
  type StoredClaim,
} from "../../src/core/replay";
import { DAY, MINUTE, SECOND } from "../../src/core/time";
import { AppError } from "../../src/errors/appError";
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";

export type Claim = Doc<"idempotencyKeys">;

export interface ClaimKey {
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

/** Largest reply kept with a claim. */
const REPLY_BYTES_MAX = 16 * KIB;

export interface Attempt extends ClaimKey {
  readonly fingerprint?: string;
  readonly ttlMs: number;
  /** How long the attempt is believed alive without a report, in milliseconds. */
  readonly leaseMs: number;
}

const KEY_CHARS_MAX = 512;
const TTL_MIN_MS = MINUTE;
const TTL_MAX_MS = 30 * DAY;
const LEASE_MIN_MS = SECOND;
const LEASE_MAX_MS = DAY;

/** Throws `invalid_request` for what is no key. */
export function requireKey({ key, scope }: ClaimKey): void {
  if (scope === "" || key === "" || scope.length > KEY_CHARS_MAX || key.length > KEY_CHARS_MAX)
    throw new AppError("invalid_request", { detail: "Scope and key have 1 to 512 characters." });
}

/**
 * An attempt as it may be stored: its life is a minute to 30 days, its lease a second to a day; what
 * is no number is the least of them. Throws `invalid_request` for what is no key.
 */
export function bounded(attempt: Attempt): Attempt {
  requireKey(attempt);
  return {
    ...attempt,
    ttlMs: clamp(attempt.ttlMs, TTL_MIN_MS, TTL_MAX_MS),
    leaseMs: clamp(attempt.leaseMs, LEASE_MIN_MS, LEASE_MAX_MS),
  };
}

const clamp = (value: number, min: number, max: number): number =>
  Math.min(max, Math.max(min, Math.floor(value) || min));

export interface Begun {
  readonly verdict: ClaimVerdict;
  readonly row: Claim | null;
  /** The claim's row, whoever made it. */
  readonly keyId: Claim["_id"];
  /** When the key was first seen, in epoch milliseconds. */
  readonly firstSeenAtMs: number;
}

/** What `begin` would answer now, without claiming anything. */
export async function peek(
  ctx: QueryCtx,
  claim: ClaimKey & { readonly fingerprint?: string },
  nowMs: number,
): Promise<ClaimVerdict> {
  const row = await load(ctx, claim);
  const { fingerprint = null } = claim;
  return decideClaim(row === null ? null : storedOf(row), { fingerprint, nowMs });
}

/**
 * Begins work on a key whose effect comes in a later transaction. Only a granted claim writes; a
 * duplicate never extends the life of the first.
 */
export async function begin(ctx: MutationCtx, attempt: Attempt, nowMs: number): Promise<Begun> {
  const { fingerprint = null, key, leaseMs, scope, ttlMs } = attempt;
  const row = await load(ctx, attempt);
  const verdict = decideClaim(row === null ? null : storedOf(row), { fingerprint, nowMs });
  if (row !== null && verdict.kind !== "claimed")
    return { verdict, row, keyId: row._id, firstSeenAtMs: row.firstSeenAt };
  if (verdict.kind !== "claimed") throw new Error("what is not there is free to be claimed");
  // A takeover is of the same request: its life began when it was first seen.
  const alive = row !== null && row.expiresAt > nowMs;
  const fields = {
    scope,
    key,
    firstSeenAt: alive ? row.firstSeenAt : nowMs,
    expiresAt: alive ? row.expiresAt : nowMs + ttlMs,
    state: { kind: "in_progress" as const, leaseExpiresAt: nowMs + leaseMs },
    fence: verdict.fence,
    ...(fingerprint === null ? {} : { fingerprint }),
  };
  const keyId = row?._id ?? (await ctx.db.insert("idempotencyKeys", fields));
  if (row !== null) await ctx.db.replace("idempotencyKeys", row._id, fields);
  return { verdict, row, keyId, firstSeenAtMs: fields.firstSeenAt };
}

/**
 * Reports what became of an attempt. False for one whose lease another took over. Throws
 * `invalid_request` for a reply that is too large to be kept whole.
 */
export async function report(
  ctx: MutationCtx,
  claim: ClaimKey & { readonly fence: number },
  outcome: { readonly kind: "completed"; readonly reply?: string } | { readonly kind: "failed" },
): Promise<boolean> {
  const row = await load(ctx, claim);
  if (row?.state?.kind !== "in_progress" || row.fence !== claim.fence) return false;
  if (outcome.kind === "completed" && utf8Bytes(outcome.reply ?? "") > REPLY_BYTES_MAX)
    throw new AppError("invalid_request", { detail: "The reply is too large to be kept." });
  await ctx.db.patch("idempotencyKeys", row._id, { state: outcome });
  return true;
}

function storedOf(row: Claim): StoredClaim {
  return {
    state: stateOf(row),
    fingerprint: row.fingerprint ?? null,
    expiresAtMs: row.expiresAt,
    fence: row.fence ?? 1,
  };
}

/** What became of a claim. */
export function stateOf({ state }: Claim): ClaimState {
  if (state === undefined) return { kind: "completed", reply: null };
  switch (state.kind) {
    case "in_progress":
      return { kind: "in_progress", leaseExpiresAtMs: state.leaseExpiresAt };
    case "completed":
      return { kind: "completed", reply: state.reply ?? null };
    case "failed":
      return state;
  }
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
