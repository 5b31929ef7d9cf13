/** Weakest first: a message's status is the strongest that was ever reported for it. */
export const STATUS_LADDER = ["sent", "failed", "delivered", "read", "played"] as const;
export type MessageStatus = (typeof STATUS_LADDER)[number];

export interface StatusEvent {
  readonly status: MessageStatus;
  /** When WhatsApp saw it, in epoch milliseconds. */
  readonly atMs: number;
  /** Meta's error code where it gave one. Only a failure has one. */
  readonly errorCode: number | null;
}

/** What is known of a message's way to its reader. Absent fields were never reported. */
export interface StatusState {
  readonly status: MessageStatus | null;
  /** Earliest report of each status, in epoch milliseconds. */
  readonly firstAtMs: Readonly<Partial<Record<MessageStatus, number>>>;
  /** The earliest failure. It stays when another device delivers after all. */
  readonly failure: { readonly atMs: number; readonly errorCode: number | null } | null;
}

export const NO_STATUS: StatusState = { status: null, firstAtMs: {}, failure: null };

/**
 * Joins one event. Every part is a maximum or a minimum, so events may come in any order and any
 * number of times and the state is the same: WhatsApp promises neither order nor single delivery.
 */
export function joinStatus(state: StatusState, event: StatusEvent): StatusState {
  const known = state.firstAtMs[event.status];
  const firstAtMs = {
    ...state.firstAtMs,
    [event.status]: known === undefined ? event.atMs : Math.min(known, event.atMs),
  };
  return {
    status: stronger(state.status, event.status),
    firstAtMs,
    failure: event.status === "failed" ? earlier(state.failure, event) : state.failure,
  };
}

function stronger(known: MessageStatus | null, reported: MessageStatus): MessageStatus {
  if (known === null) return reported;
  return STATUS_LADDER.indexOf(reported) > STATUS_LADDER.indexOf(known) ? reported : known;
}

type Failure = NonNullable<StatusState["failure"]>;

function earlier(known: Failure | null, { atMs, errorCode }: StatusEvent): Failure {
  const reported = { atMs, errorCode };
  if (known === null || atMs < known.atMs) return reported;
  // Two failures of one instant: any fixed choice makes the result independent of their order.
  return atMs === known.atMs && rank(errorCode) > rank(known.errorCode) ? reported : known;
}

/** A failure that names its cause is preferred to one that does not. */
const rank = (errorCode: number | null): number => errorCode ?? Number.NEGATIVE_INFINITY;
