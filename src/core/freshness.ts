/**
 * Freshness policy of a cache entry, free of I/O. An entry goes one way: fresh, then stale (served
 * while one caller asks again), then kept for errors alone, then gone. Beside its answer it may
 * remember that asking failed a moment ago, so that a crowd does not ask again at once.
 */

/** What is known of one piece of work. */
export type CacheState =
  /** An answer, and the failure of a later attempt to renew it, if one is remembered. */
  | {
      readonly kind: "answer";
      /** Fresh before this moment, in epoch milliseconds. */
      readonly freshUntilMs: number;
      readonly failedUntilMs: number | null;
    }
  /** Never had, and asking failed. */
  | { readonly kind: "failure"; readonly failedUntilMs: number };

/** How long what is no longer fresh is still good for something, in milliseconds after freshness. */
export interface StaleWindows {
  /** Served at once, while it is renewed. */
  readonly revalidateMs: number;
  /** Served, marked as degraded, when it cannot be renewed. */
  readonly onErrorMs: number;
}

export type Freshness =
  | { readonly kind: "fresh" }
  /** Serve it at once; ask again in the background, not before `askFromMs` where that is given. */
  | { readonly kind: "stale"; readonly askFromMs: number | null }
  /** Ask, and serve this where asking fails; before `askFromMs`, serve without asking. */
  | { readonly kind: "error_only"; readonly askFromMs: number | null }
  /** Nothing to serve, and no use in asking before `askFromMs`. */
  | { readonly kind: "negative"; readonly askFromMs: number }
  | { readonly kind: "gone" };

/** What an entry is good for at `nowMs`. */
export function freshnessAt(state: CacheState, windows: StaleWindows, nowMs: number): Freshness {
  const { failedUntilMs } = state;
  const askFromMs = failedUntilMs !== null && nowMs < failedUntilMs ? failedUntilMs : null;
  if (state.kind === "answer") {
    const staleForMs = nowMs - state.freshUntilMs;
    // A failure never hides an answer: at most it delays the attempt to renew one that is old.
    if (staleForMs < 0) return { kind: "fresh" };
    if (staleForMs < windows.revalidateMs) return { kind: "stale", askFromMs };
    if (staleForMs < windows.onErrorMs) return { kind: "error_only", askFromMs };
  }
  return askFromMs === null ? { kind: "gone" } : { kind: "negative", askFromMs };
}

/** When an answer is of no more use, in epoch milliseconds: it may be deleted. */
export function goneAtMs(freshUntilMs: number, windows: StaleWindows): number {
  return freshUntilMs + Math.max(0, windows.revalidateMs, windows.onErrorMs);
}
