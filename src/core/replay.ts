/**
 * Replay protection: whether a request was seen before, and for how long that must be remembered.
 * Expiry is judged here, at read: how late a cleanup comes never shows.
 */
export type ClaimState =
  /** Somebody works on it. Another may take over once the lease has run out. */
  | { readonly kind: "in_progress"; readonly leaseExpiresAtMs: number }
  /** Its effect has happened; `reply` is what was answered, where it was kept. */
  | { readonly kind: "completed"; readonly reply: string | null }
  /** It had no effect, and may be tried again. */
  | { readonly kind: "failed" };

export interface StoredClaim {
  readonly state: ClaimState;
  readonly fingerprint: string | null;
  readonly expiresAtMs: number;
  /**
   * Grows with each attempt: the report of an earlier one is refused. Begins at the time of the
   * first, so that it does not begin anew where the row was deleted meanwhile.
   */
  readonly fence: number;
}

export type ClaimVerdict =
  | { readonly kind: "claimed"; readonly fence: number }
  | { readonly kind: "in_progress"; readonly retryAfterMs: number }
  | { readonly kind: "completed"; readonly reply: string | null }
  /** The same key with another request. */
  | { readonly kind: "conflict" };

/** Decides on a request with a key that may have been used before. Only `claimed` writes. */
export function decideClaim(
  stored: StoredClaim | null,
  { fingerprint, nowMs }: { readonly fingerprint: string | null; readonly nowMs: number },
): ClaimVerdict {
  if (stored === null) return { kind: "claimed", fence: nowMs };
  const next: ClaimVerdict = { kind: "claimed", fence: Math.max(stored.fence + 1, nowMs) };
  if (stored.expiresAtMs <= nowMs) return next;
  if (stored.fingerprint !== null && fingerprint !== null && stored.fingerprint !== fingerprint)
    return { kind: "conflict" };
  const { state } = stored;
  switch (state.kind) {
    case "failed":
      return next;
    case "completed":
      return { kind: "completed", reply: state.reply };
    case "in_progress": {
      const retryAfterMs = state.leaseExpiresAtMs - nowMs;
      return retryAfterMs <= 0 ? next : { kind: "in_progress", retryAfterMs };
    }
  }
}

interface Skew {
  /** How far a timestamp may lie from our clock, either way, in milliseconds. */
  readonly skewMs: number;
  /** What our own clocks may differ by among themselves, in milliseconds. */
  readonly marginMs: number;
}

/** Whether a signed timestamp is near enough to now to be accepted. */
export const isTimely = (timestampMs: number, nowMs: number, { skewMs }: Skew): boolean =>
  Math.abs(nowMs - timestampMs) <= skewMs;

/**
 * Until when a nonce must be remembered, in epoch milliseconds: as long as any of our clocks would
 * still accept its timestamp, which for one from the future is longer than from now on.
 */
export const rememberUntilMs = (
  timestampMs: number,
  nowMs: number,
  { skewMs, marginMs }: Skew,
): number => Math.max(nowMs, timestampMs) + skewMs + marginMs + 1;
