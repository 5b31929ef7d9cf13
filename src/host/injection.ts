/**
 * Where simulations, drills and tests reach into the host; everything is off by default. Each hook
 * is called at its point and may return a promise (a delay), an error (a failure) or nothing.
 */
export interface Injection {
  /** Milliseconds since the epoch. Default `Date.now`. */
  readonly nowMs?: () => number;
  /** Uniform in [0, 1): ids of documents, seeds of functions, jitter. Default the machine's. */
  readonly random?: () => number;
  /** Stands in for the network of actions. */
  readonly fetch?: typeof fetch;
  /** Age of snapshots, in milliseconds from any start. Default the monotonic clock. */
  readonly monotonicMs?: () => number;
  /** Waited for before each database operation, so that transactions overlap as in production. */
  readonly databaseLatency?: (op: string) => Promise<void> | undefined;
  /** Transactions that write under way at once. Default 4; more overlap more. */
  readonly writersAtOnce?: number;
  /** An error fails the commit before it is validated; it may be a `WriteConflict`. */
  readonly commitFailure?: () => Error | undefined;
  /** Called before a batch of commits is written and after it is on disk; meant to kill the process. */
  readonly crash?: (point: "beforeCommit" | "afterCommit") => void;
  /** How many published batches a stale reader lags behind its transaction. Default 0. */
  readonly staleLagBatches?: () => number;
  /** Holds the flush of a batch back: no commit of it may resolve before. */
  readonly holdFlush?: () => Promise<void> | undefined;
}
