/** What one top-level mutation came to, over all its operations. */
export interface OperationStats {
  readonly label: string;
  operations: number;
  attempts: number;
  conflicts: number;
  /** Given up by the platform after its retries. */
  terminal: number;
  /** From the call to the commit, retries included. */
  readonly latenciesMs: number[];
  /** Which index ranges conflicted, and how often. */
  readonly hot: Map<string, number>;
}

export const newStats = (label: string): OperationStats => ({
  label,
  operations: 0,
  attempts: 0,
  conflicts: 0,
  terminal: 0,
  latenciesMs: [],
  hot: new Map(),
});
