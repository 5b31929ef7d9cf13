/**
 * The caller's side of the job queue: has a job made or joins one, runs it or waits for it, and
 * says what became of it. Where jobs are kept and how they are run is the ports' business.
 */
import { SECOND } from "../core/time";
import { growingGapsMs } from "../core/waits";
import type { Io } from "../providers/io";
import type { ToolResult } from "./result";

/** A result as it travels between a job's worker and those who wait for it. */
export type JobResult = Pick<ToolResult, "kind" | "value">;

/** Why there is no result, and when to try again. */
export interface Backpressure {
  readonly reason: "queue_saturated" | "queue_timeout" | "dead_letter";
  readonly retryAfterMs: number;
}

export type JobOutcome =
  | { readonly kind: "completed"; readonly result: JobResult }
  /** Tried and given up, or lost. */
  | { readonly kind: "failed"; readonly backpressure: Backpressure }
  /** Not done in time; it may still be. */
  | { readonly kind: "timeout"; readonly backpressure: Backpressure }
  /** Refused: too much waits already. */
  | { readonly kind: "backpressure"; readonly backpressure: Backpressure }
  /** The caller no longer wants it. */
  | { readonly kind: "aborted" };

/** What the queue makes of a request for work. */
export type Enqueued<JobId, Claim> =
  | { readonly kind: "cached"; readonly value: string }
  /** The same work failed a moment ago. */
  | { readonly kind: "negative"; readonly retryAfterMs: number }
  | { readonly kind: "run"; readonly claim: Claim }
  | { readonly kind: "waiting"; readonly jobId: JobId; readonly joined: boolean }
  | { readonly kind: "saturated"; readonly retryAfterMs: number };

/** What became of one attempt that this caller ran. */
export type Attempt =
  | { readonly kind: "done"; readonly result: JobResult }
  /** Failed; the job will be tried again by itself. */
  | { readonly kind: "requeued" }
  | { readonly kind: "failed" };

/** A job as a waiting caller reads it. */
export interface JobState {
  readonly status: string;
  readonly resultJson: string | null;
  /** Of its last attempt; null where none failed. */
  readonly lastError: string | null;
}

export interface JobPorts<JobId, Claim extends { readonly jobId: JobId }> extends Pick<
  Io,
  "now" | "sleep"
> {
  readonly enqueue: () => Promise<Enqueued<JobId, Claim>>;
  /** Must go on to its report when the caller stops listening. */
  readonly run: (claim: Claim) => Promise<Attempt>;
  readonly read: (jobId: JobId) => Promise<JobState | null>;
  readonly signal: AbortSignal;
}

export interface JobWait {
  /** Before the first look at a job that others run, in milliseconds; later gaps grow. */
  readonly firstMs: number;
  /** Longest wait for jobs that others run, all together, in milliseconds. */
  readonly waitMs: number;
  /** Whether to wait for the next attempt after one failed, this caller's own or another's. */
  readonly waitForRetry: boolean;
}

/** Looks at a job that others run, at most. */
const LOOKS_MAX = 6;
/** Times that the work of a joined job which was cancelled is asked for again. */
const REJOINS_MAX = 2;
const DEAD_LETTER_RETRY_MS = 1_500;
const TIMEOUT_RETRY_MIN_MS = SECOND;

/** Has one piece of work done and waits for it within bounds. Throws what `enqueue` throws. */
export async function runJob<JobId, Claim extends { readonly jobId: JobId }>(
  ports: JobPorts<JobId, Claim>,
  wait: JobWait,
): Promise<JobOutcome> {
  const gaps = growingGapsMs({ firstMs: wait.firstMs, totalMs: wait.waitMs, looks: LOOKS_MAX });
  for (let rejoins = 0; ; rejoins++) {
    const started = await ports.enqueue();
    const outcome = await follow(started, { ports, wait, gaps });
    if (outcome.kind !== "cancelled") return outcome;
    // Who made a job may cancel it; those who joined it still want the work.
    if (!outcome.joined || rejoins >= REJOINS_MAX) return FAILED;
  }
}

interface Following<JobId, Claim extends { readonly jobId: JobId }> {
  readonly ports: JobPorts<JobId, Claim>;
  readonly wait: JobWait;
  /** Gaps left to wait; shared by all jobs followed one after the other. */
  readonly gaps: number[];
}

type Followed = JobOutcome | { readonly kind: "cancelled"; readonly joined: boolean };

async function follow<JobId, Claim extends { readonly jobId: JobId }>(
  started: Enqueued<JobId, Claim>,
  following: Following<JobId, Claim>,
): Promise<Followed> {
  const { ports, wait } = following;
  switch (started.kind) {
    case "cached":
      return { kind: "completed", result: { kind: "complete", value: started.value } };
    case "negative":
      return {
        kind: "failed",
        backpressure: { reason: "dead_letter", retryAfterMs: started.retryAfterMs },
      };
    case "saturated":
      return {
        kind: "backpressure",
        backpressure: { reason: "queue_saturated", retryAfterMs: started.retryAfterMs },
      };
    case "waiting":
      return await waitFor(started, following);
    case "run": {
      const attempt = await unlessAborted(ports.run(started.claim), ports.signal);
      if (attempt === null) return ABORTED;
      if (attempt.kind === "done") return { kind: "completed", result: attempt.result };
      if (attempt.kind === "failed" || !wait.waitForRetry) return FAILED;
      return await waitFor({ jobId: started.claim.jobId, joined: false }, following);
    }
  }
}

async function waitFor<JobId, Claim extends { readonly jobId: JobId }>(
  { jobId, joined }: { readonly jobId: JobId; readonly joined: boolean },
  { gaps, ports, wait }: Following<JobId, Claim>,
): Promise<Followed> {
  for (let gapMs = gaps.shift(); gapMs !== undefined; gapMs = gaps.shift()) {
    await ports.sleep(gapMs, ports.signal);
    if (ports.signal.aborted) return ABORTED;
    const job = await ports.read(jobId);
    const outcome = outcomeOf(job, joined);
    if (outcome !== null) return outcome;
    const isRetried = job !== null && job.lastError !== null;
    if (isRetried && !wait.waitForRetry) return FAILED;
  }
  const retryAfterMs = Math.max(wait.waitMs / 4, TIMEOUT_RETRY_MIN_MS);
  return { kind: "timeout", backpressure: { reason: "queue_timeout", retryAfterMs } };
}

/** What a look at a job says; null while it is under way. */
function outcomeOf(job: JobState | null, joined: boolean): Followed | null {
  if (job === null) return FAILED;
  switch (job.status) {
    case "queued":
    case "running":
      return null;
    case "cancelled":
      return { kind: "cancelled", joined };
    case "completed": {
      const result = resultOf(job.resultJson);
      return result === null ? FAILED : { kind: "completed", result };
    }
    default:
      return FAILED;
  }
}

/** A result as `complete` stores it. */
export const resultJson = ({ kind, value }: JobResult): string => JSON.stringify({ kind, value });

const KINDS: readonly string[] = ["complete", "partial", "empty"] satisfies JobResult["kind"][];

/** Null for what no worker of ours stored: whoever ended such a job did not know what is waited for. */
function resultOf(json: string | null): JobResult | null {
  try {
    const stored: unknown = json === null ? null : JSON.parse(json);
    return isResult(stored) ? stored : null;
  } catch {
    return null;
  }
}

function isResult(stored: unknown): stored is JobResult {
  if (typeof stored !== "object" || stored === null) return false;
  const { kind, value } = stored as Partial<Record<keyof JobResult, unknown>>;
  return typeof value === "string" && typeof kind === "string" && KINDS.includes(kind);
}

const ABORTED = { kind: "aborted" } as const;
const FAILED = {
  kind: "failed",
  backpressure: { reason: "dead_letter", retryAfterMs: DEAD_LETTER_RETRY_MS },
} as const satisfies JobOutcome;

/** The result, or null as soon as the signal says so; the work itself goes on. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T | null> {
  if (signal.aborted) return null;
  let stop = (): void => undefined;
  const aborted = new Promise<null>((resolve) => {
    stop = () => {
      resolve(null);
    };
    signal.addEventListener("abort", stop);
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
