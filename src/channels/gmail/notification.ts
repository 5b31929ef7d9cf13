export interface GmailNotification {
  /** Lower case: Gmail does not tell cases apart, and the claim key must not either. */
  readonly emailAddress: string;
  /** Decimal text without leading zeros. */
  readonly historyId: string;
}

/** Scope and key of a notification's claim. */
export function claimKey({ emailAddress, historyId }: GmailNotification): {
  readonly scope: string;
  readonly key: string;
} {
  return { scope: "gmail_push_history", key: `${emailAddress}:${historyId}` };
}
