import type { FunctionReference, GenericActionCtx, GenericDataModel } from "convex/server";
import type { GenericId } from "convex/values";
import type { ErrorCode } from "../../errors/table";
import type { Outcome } from "../../providers/outcome";
import type { CacheUse } from "../../tools/cacheUse";
import type { TurnResult } from "./turn";

/** What running a turn needs of an action's context. */
export type Ctx = Pick<
  GenericActionCtx<GenericDataModel>,
  "runQuery" | "runMutation" | "scheduler"
>;
export type StreamId = GenericId<"streamSessions">;
export type JobId = GenericId<"toolJobs">;

export type Source = "chat_http" | "chat_action";

type Mutation<Args extends Record<string, unknown>, Returns> = FunctionReference<
  "mutation",
  "internal",
  Args,
  Returns
>;

/** The functions a running turn calls. */
export interface TurnFunctions {
  readonly append: Mutation<
    { streamId: StreamId; firstFrameId: number; frames: string[] },
    { live: true; abort: boolean; nextFrameId: number } | { live: false }
  >;
  readonly switchRoute: Mutation<
    { streamId: StreamId; outcome: Outcome["kind"]; attempts?: number },
    { ok: boolean }
  >;
  readonly settle: Mutation<
    {
      streamId: StreamId;
      firstFrameId: number;
      frames: string[];
      result: Omit<TurnResult, "errorCode" | "modelId" | "cacheUse"> & {
        errorCode?: string;
        modelId?: string;
        cacheUse?: CacheUse[];
        attempts?: number;
      };
    },
    { settled: boolean }
  >;
}

export interface Claim {
  readonly jobId: JobId;
  readonly fence: number;
  readonly toolName: string;
  readonly argsJson: string;
  readonly attempts: number;
  readonly leaseExpiresAt: number;
  /** When the result is of no use any more, in epoch milliseconds. */
  readonly deadlineAt?: number;
}

/** Where a result is cached. */
// A type alias: Convex values need an index signature, which only aliases imply.
export type CacheKey = { namespace: string; key: string };

/** An entry that a completion writes to the cache. */
type CacheEntry = CacheKey & { ttlMs: number; value: string };

/** What a look into the cache finds; null is a miss. Times are epoch milliseconds. */
export type Cached =
  | {
      freshness: "fresh" | "stale" | "error_only";
      value: string;
      createdAt: number;
      /** Asking again failed: no use in it before this moment. */
      askFromMs: number | null;
    }
  | { freshness: "negative"; code: string; askFromMs: number };

/** What a call holds between admission and settlement. */
export interface CallPermit {
  provider: string;
  generation: number;
  slotId: GenericId<"slots">;
  fence: number;
  admittedAtMs: number;
  probeId?: GenericId<"breakerProbes">;
}

/** The functions behind every provider call. */
export interface OutboundFunctions {
  readonly admitCall: FunctionReference<
    "mutation",
    "internal",
    { provider: string; askedAtMs?: number },
    { ok: true; permit: CallPermit } | { ok: false; code: ErrorCode; retryAfterMs: number }
  >;
  readonly settleCall: FunctionReference<
    "mutation",
    "internal",
    { permit: CallPermit; outcome: Outcome["kind"]; attempts: number; latencyMs: number },
    { released: boolean }
  >;
  /** Counts an admission that was lost to contention: its own transaction could not. */
  readonly countLost: FunctionReference<
    "mutation",
    "internal",
    { source?: string; bucket: string; outcome: string },
    null
  >;
  readonly mayRetry: FunctionReference<
    "query",
    "internal",
    { provider: string; slotId?: GenericId<"slots">; attempts?: number },
    boolean
  >;
  readonly loadToken: FunctionReference<
    "query",
    "internal",
    { name: string },
    { token: string; expiresAtMs: number } | null
  >;
  readonly storeToken: FunctionReference<
    "mutation",
    "internal",
    { name: string; token: string; expiresAtMs: number },
    null
  >;
}

/** The functions of the cache and the job queue. */
export interface ToolFunctions extends OutboundFunctions {
  readonly lookup: FunctionReference<"query", "internal", CacheKey, Cached | null>;
  readonly enqueue: FunctionReference<
    "mutation",
    "internal",
    {
      source: Source | "operator";
      toolName: string;
      argsJson: string;
      workKey?: string;
      maxAttempts?: number;
      run?: "caller" | "worker";
      /** A result stored there since, or a failure, is given back in place of a job. */
      cache?: CacheKey;
    },
    | { kind: "cached"; value: string }
    | { kind: "negative"; retryAfterMs: number }
    | { kind: "run"; claim: Claim }
    | { kind: "waiting"; jobId: JobId; joined: boolean }
    | { kind: "saturated"; retryAfterMs: number }
  >;
  readonly getJob: FunctionReference<
    "query",
    "internal",
    { jobId: JobId },
    { status: string; resultJson: string | null; lastError: string | null } | null
  >;
  readonly heartbeat: FunctionReference<
    "mutation",
    "internal",
    { jobId: JobId; fence: number },
    { ok: boolean; cancelled: boolean; leaseExpiresAt: number }
  >;
  readonly complete: FunctionReference<
    "mutation",
    "internal",
    { jobId: JobId; fence: number; resultJson: string; cache?: CacheEntry; wantsNext?: boolean },
    { ok: boolean; next: Claim | null }
  >;
  readonly fail: FunctionReference<
    "mutation",
    "internal",
    {
      jobId: JobId;
      fence: number;
      errorCode?: string;
      retryable?: boolean;
      /** Where a burial is remembered. */
      cache?: CacheKey;
      wantsNext?: boolean;
    },
    { ok: boolean; status: string; retryDelayMs: number; next: Claim | null }
  >;
}
