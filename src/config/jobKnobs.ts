import { DAY, MINUTE, SECOND } from "../core/time";
import { choice, int, type IntKnob, type KnobGroup } from "./rows";

const JOBS = { group: "Tool jobs" } as const satisfies { group: KnobGroup };

const runMax = (value: number, what: string): IntKnob =>
  int(JOBS, {
    unit: "jobs",
    default: value,
    range: [1, 100],
    meaning: `${what} that run at once.`,
  });
const queueMax = (value: number, what: string): IntKnob =>
  int(JOBS, {
    unit: "jobs",
    default: value,
    range: [1, 10_000],
    meaning: `${what} that may wait; more are refused as \`queue_saturated\`.`,
  });
const weight = (value: number, what: string): IntKnob =>
  int(JOBS, {
    default: value,
    range: [1, 100],
    meaning: `Weight of ${what} jobs when a free worker chooses between classes.`,
  });

/** The tool job queue: its workers, its caps, its retries. */
export const JOB_KNOBS = {
  TOOL_JOB_MAX_PER_RUN: int(JOBS, {
    unit: "jobs",
    default: 3,
    range: [1, 20],
    meaning: "Jobs that one worker is handed at once.",
  }),
  TOOL_JOB_LEASE_MS: int(JOBS, {
    unit: "ms",
    default: 45 * SECOND,
    range: [5 * SECOND, 10 * MINUTE],
    meaning: "How long a claim on a job lasts without a heartbeat.",
  }),
  TOOL_JOB_WAIT_MS: int(JOBS, {
    unit: "ms",
    default: 8 * SECOND,
    range: [SECOND, MINUTE],
    meaning: "How long a chat turn waits for a queued tool before it goes on without.",
  }),
  TOOL_JOB_POLL_MS: int(JOBS, {
    unit: "ms",
    default: 250,
    range: [50, 5 * SECOND],
    meaning: "First wait of a caller whose job was queued; later waits grow.",
  }),
  TOOL_JOB_MAX_ATTEMPTS: int(JOBS, {
    default: 2,
    range: [1, 10],
    meaning: "Attempts before a job is dead-lettered.",
  }),
  TOOL_JOB_RETRY_BASE_MS: int(JOBS, {
    unit: "ms",
    default: SECOND,
    range: [100, MINUTE],
    meaning: "Delay ceiling of the first retry; it doubles up to a minute, fully jittered.",
  }),
  TOOL_JOB_TTL_MS: int(JOBS, {
    unit: "ms",
    default: DAY,
    range: [5 * MINUTE, 30 * DAY],
    meaning: "How long a finished job is kept.",
  }),
  TOOL_JOB_DLQ_TTL_MS: int(JOBS, {
    unit: "ms",
    default: 7 * DAY,
    range: [MINUTE, 90 * DAY],
    meaning: "How long a dead letter is kept.",
  }),
  TOOL_JOB_CLAIM_SCAN: int(JOBS, {
    unit: "rows",
    default: 200,
    range: [10, 2_000],
    meaning: "How many waiting heads a claim may look at.",
  }),
  TOOL_JOB_RUNMAX_WEB: runMax(2, "Web searches"),
  TOOL_JOB_RUNMAX_PROD: runMax(2, "Product searches"),
  TOOL_JOB_RUNMAX_GLOB: runMax(1, "Global searches"),
  TOOL_JOB_QMAX_WEB: queueMax(80, "Web searches"),
  TOOL_JOB_QMAX_PROD: queueMax(80, "Product searches"),
  TOOL_JOB_QMAX_GLOB: queueMax(40, "Global searches"),
  TOOL_JOB_RUNMAX_QOS_REALTIME: weight(2, "realtime"),
  TOOL_JOB_RUNMAX_QOS_INTERACTIVE: weight(2, "interactive"),
  TOOL_JOB_RUNMAX_QOS_BATCH: weight(1, "batch"),
};

/** When somebody is told about the queue. */
export const QUEUE_ALERT_KNOBS = {
  TOOL_QUEUE_ALERTS_ENABLED: choice(JOBS, {
    default: "true",
    options: ["true", "false"],
    meaning: "Whether the health of the tool job queue is looked after at all.",
  }),
  TOOL_QUEUE_ALERT_WINDOW_MIN: int(JOBS, {
    unit: "minutes",
    default: 5,
    range: [1, 1_440],
    meaning: "Minutes that an alert of the queue is about.",
  }),
  TOOL_QUEUE_ALERT_COOLDOWN_MS: int(JOBS, {
    unit: "ms",
    default: 15 * MINUTE,
    range: [SECOND, DAY],
    meaning: "Shortest time between two alerts about the same trouble of the queue.",
  }),
  TOOL_QUEUE_ALERT_MAX_QUEUED: int(JOBS, {
    unit: "jobs",
    default: 200,
    range: [1, 1_000_000],
    meaning: "Jobs that may wait, all tools together, before somebody is told.",
  }),
  TOOL_QUEUE_ALERT_MAX_DLQ: int(JOBS, {
    unit: "jobs",
    default: 20,
    range: [1, 1_000_000],
    meaning: "Dead letters there may be before somebody is told.",
  }),
  TOOL_QUEUE_ALERT_MAX_QUEUED_AGE_MS: int(JOBS, {
    unit: "ms",
    default: MINUTE,
    range: [SECOND, DAY],
    meaning: "How long a job may wait before somebody is told.",
  }),
  TOOL_QUEUE_ALERT_MAX_RUNNING_AGE_MS: int(JOBS, {
    unit: "ms",
    default: 5 * MINUTE,
    range: [SECOND, DAY],
    meaning: "How long a job may run before somebody is told.",
  }),
};
