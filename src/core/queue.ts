/**
 * What the job queue decides: where a job stands, who is next, how many may wait, and what becomes
 * of an attempt. Reading and writing the rows is the model's.
 */

/** Parts of a tool's line. Who joins one does not get in the way of who joins another. */
export const STRIPES = 16;

/** Classes as they are stored and drawn, from the most favoured to the least. */
export const QOS_CODES = ["r", "i", "b"] as const;
export type QosCode = (typeof QOS_CODES)[number];
export type PerQos = Readonly<Record<QosCode, number>>;

/** Where jobs stand that are not in line, as stored. */
export const PLACE = {
  running: "r",
  /** Chosen to run next in one slot of a large pool. */
  next: "n",
  /** Failed, and tried again when its time has come. */
  backingOff: "b",
  completed: "c",
  /** Ended without a result, and of no use any more. */
  failed: "f",
  cancelled: "x",
  deadLetter: "d",
  /** A dead letter that goes back into the queue at a time somebody chose. */
  deferred: "e",
} as const;

export type Status = "queued" | "running" | "completed" | "failed" | "cancelled" | "dead_letter";

const STATUS_OF_PLACE: Readonly<Record<string, Status>> = {
  [PLACE.running]: "running",
  [PLACE.next]: "queued",
  [PLACE.backingOff]: "queued",
  [PLACE.completed]: "completed",
  [PLACE.failed]: "failed",
  [PLACE.cancelled]: "cancelled",
  [PLACE.deadLetter]: "dead_letter",
  [PLACE.deferred]: "dead_letter",
};

export const statusOf = (place: string): Status => STATUS_OF_PLACE[place] ?? "queued";

/** A place in line. */
export interface Standing {
  readonly tool: string;
  readonly qos: QosCode;
  readonly stripe: number;
}

/** A place in line as stored: those of one tool lie together, and in them each class and stripe. */
export const placeInLine = ({ qos, stripe, tool }: Standing): string =>
  `${tool}:${qos}:${stripe.toString(STRIPES)}`;

/** Bounds of all places in the line of a tool: from, inclusive, and to, exclusive. */
export const lineOf = (tool: string): { readonly from: string; readonly to: string } => ({
  from: `${tool}:`,
  // The character after the colon.
  to: `${tool};`,
});

/** Bounds of the places of one class in a tool's line: from, inclusive, and to, exclusive. */
export const classOf = ({
  qos,
  tool,
}: Pick<Standing, "tool" | "qos">): { readonly from: string; readonly to: string } => ({
  from: `${tool}:${qos}:`,
  to: `${tool}:${qos};`,
});

/** The place in line that a stored place is, or null for one that is not in line. */
export function standingOf(place: string): Standing | null {
  const [tool, code, stripe] = place.split(":");
  const qos = QOS_CODES.find((known) => known === code);
  if (tool === undefined || qos === undefined || stripe === undefined) return null;
  return { tool, qos, stripe: Number.parseInt(stripe, STRIPES) };
}

/** Pools from this size on choose for each busy slot who runs there next. */
const NEXT_POOL_MIN = 32;

export interface WaitingRoom {
  /** Whether a job may be the next of one slot. */
  readonly nexts: boolean;
  /** Jobs that may stand in line. */
  readonly inLine: number;
}

/** How the room for a tool's waiting jobs is divided; in all it holds `queueMax` at most. */
export function waitingRoom({
  size,
  queueMax,
}: {
  /** Slots of the pool. */
  readonly size: number;
  readonly queueMax: number;
}): WaitingRoom {
  // A room too small for one job per slot would have none left for a line.
  const nexts = size >= NEXT_POOL_MIN && queueMax >= 2 * size;
  return { nexts, inLine: nexts ? queueMax - size : queueMax };
}

/** Jobs that one stripe may hold: all stripes together hold exactly `inLine`. */
export function stripeMax(stripe: number, inLine: number): number {
  return Math.floor(inLine / STRIPES) + (stripe < inLine % STRIPES ? 1 : 0);
}

/** A stripe at random among those that can hold any job at all. */
export const anyStripe = (inLine: number, random: () => number): number =>
  Math.floor(random() * Math.max(1, Math.min(STRIPES, inLine)));

/**
 * Draws the class that is served now among those that wait, each as likely as its weight. Whatever
 * the others do, a class of weight w is drawn in at least w of the sum of all weights of the draws
 * it takes part in: none starves. Null where none waits.
 */
export function drawClass(waiting: PerQos, weights: PerQos, random: () => number): QosCode | null {
  const there = QOS_CODES.filter((qos) => waiting[qos] > 0);
  let point = random() * there.reduce((sum, qos) => sum + weights[qos], 0);
  for (const qos of there) {
    point -= weights[qos];
    if (point < 0) return qos;
  }
  return there.at(-1) ?? null;
}

/** How an attempt ended that brought no result. */
export type Ending = "failed" | "failed_for_good" | "lease_expired" | "unknown_tool";

export type BurialReason =
  "attempts_exhausted" | "not_retryable" | "lease_expired" | "unknown_tool";

export type Verdict =
  | { readonly kind: "retry"; readonly delayMs: number }
  | { readonly kind: "bury"; readonly reason: BurialReason }
  | { readonly kind: "cancel" }
  | { readonly kind: "miss_deadline" };

/** What becomes of a job whose attempt brought no result. */
export function afterAttempt(attempt: {
  readonly ending: Ending;
  /** Which attempt it was; the first is 1. */
  readonly attempt: number;
  readonly attemptsMax: number;
  readonly cancelled: boolean;
  /** The delay drawn for another attempt. */
  readonly delayMs: number;
  readonly nowMs: number;
  readonly deadlineAtMs: number | null;
}): Verdict {
  const { delayMs, ending, nowMs } = attempt;
  if (attempt.cancelled) return { kind: "cancel" };
  if (ending === "unknown_tool") return { kind: "bury", reason: "unknown_tool" };
  if (ending === "failed_for_good") return { kind: "bury", reason: "not_retryable" };
  if (attempt.attempt >= attempt.attemptsMax)
    return {
      kind: "bury",
      reason: ending === "lease_expired" ? "lease_expired" : "attempts_exhausted",
    };
  if (isPast(attempt.deadlineAtMs, nowMs + delayMs)) return { kind: "miss_deadline" };
  return { kind: "retry", delayMs };
}

/** Whether a job may not start any more. Null is no deadline. */
export const isPast = (deadlineAtMs: number | null, nowMs: number): boolean =>
  deadlineAtMs !== null && deadlineAtMs <= nowMs;

/** Attempts a job may have, as asked for and as configured. What is no number is one. */
export function attemptsMaxOf(asked: number | null, configured: number, ceiling: number): number {
  if (asked === null) return configured;
  return Math.min(Math.max(configured, ceiling), Math.max(1, Math.floor(asked) || 1));
}

/** What a look at the queue found. Ages in milliseconds; null where there is no such job. */
export interface QueueState {
  readonly queued: number;
  readonly deadLetters: number;
  readonly oldestQueuedAgeMs: number | null;
  readonly oldestRunningAgeMs: number | null;
}

export const FINDING_KINDS = [
  "queued_depth",
  "oldest_queued_age",
  "oldest_running_age",
  "dead_letter_depth",
] as const;
export type FindingKind = (typeof FINDING_KINDS)[number];

export interface Finding {
  readonly kind: FindingKind;
  readonly observed: number;
  readonly threshold: number;
}

/** What of a queue's state is above what an operator allows. */
export function queueFindings(
  state: QueueState,
  allowed: Readonly<Record<FindingKind, number>>,
): Finding[] {
  const observed = {
    queued_depth: state.queued,
    oldest_queued_age: state.oldestQueuedAgeMs ?? 0,
    oldest_running_age: state.oldestRunningAgeMs ?? 0,
    dead_letter_depth: state.deadLetters,
  } satisfies Record<FindingKind, number>;
  return FINDING_KINDS.filter((kind) => observed[kind] > allowed[kind]).map((kind) => ({
    kind,
    observed: observed[kind],
    threshold: allowed[kind],
  }));
}
