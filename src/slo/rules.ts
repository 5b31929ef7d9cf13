/** Each rule looks at one part of a reading and names the problems in it. */
import { MINUTE, SECOND } from "../core/time";
import type { PlaybookId } from "./playbooks";
import type {
  BreakerReading,
  QueueReading,
  Severity,
  VerdictInput,
  VerdictLimits,
} from "./reading";

export interface Problem {
  readonly id: string;
  readonly severity: Severity;
  readonly section: string;
  readonly detail: string;
  readonly playbook: PlaybookId;
  /** What a person does about it first. */
  readonly what: string;
  /** Shows more of it; never changes anything. */
  readonly command: string;
}

type Rule = (input: VerdictInput, limits: VerdictLimits) => readonly Problem[];

const run = (name: string, args?: Readonly<Record<string, string | number>>): string =>
  `npx convex run ${name}${args === undefined ? "" : ` '${JSON.stringify(args)}'`}`;

const SNAPSHOT = run("ops:getReliabilitySnapshot");

const percent = (share: number): string => `${Number((share * 100).toPrecision(3))} %`;

function duration(ms: number): string {
  if (ms < 2 * SECOND) return `${Math.round(ms)} ms`;
  return ms < 2 * MINUTE ? `${Math.round(ms / SECOND)} s` : `${Math.round(ms / MINUTE)} min`;
}

const configuration: Rule = ({ config }) =>
  config.map(({ name, problem, used, security }) => ({
    id: `config:${name}`,
    severity: security ? "critical" : "degraded",
    section: "configWarnings",
    detail: `${name} ${problem}; in use: ${used}.`,
    playbook: "configuration",
    what: `Correct ${name}, then look at the snapshot again.`,
    command: SNAPSHOT,
  }));

type Impaired = Exclude<BreakerReading["state"], "closed">;

const CIRCUITS: Readonly<
  Record<Impaired, { readonly words: string; readonly what: (provider: string) => string }>
> = {
  open: {
    words: "its circuit is open and every call is refused",
    what: (provider) => `See why ${provider} fails (status, quota, keys); the circuit stays.`,
  },
  half_open: {
    words: "its circuit is half open and lets only probes through",
    what: (provider) => `Wait for the probes of ${provider}: success closes its circuit.`,
  },
  forced_open: {
    words: "an operator holds its circuit open",
    what: (provider) => `Find out who holds ${provider} open, and end it when the reason is gone.`,
  },
  metrics_only: {
    words: "its circuit only counts and protects nothing",
    what: (provider) => `Give ${provider} its circuit back: failing calls are not stopped now.`,
  },
};

const circuits: Rule = ({ breakers }) =>
  breakers.flatMap(({ provider, state, essentialTo }): Problem[] => {
    if (state === "closed") return [];
    const isLast = essentialTo !== null && nobodyServes(breakers, essentialTo);
    return [
      {
        id: `circuit_${state}:${provider}`,
        severity: isLast ? "critical" : "degraded",
        section: "circuitBreakers",
        detail: `${provider}: ${CIRCUITS[state].words}.${isLast ? ` No provider of ${essentialTo} is left.` : ""}`,
        playbook: "circuit",
        what: CIRCUITS[state].what(provider),
        command: run("circuitBreaker:listStatuses"),
      },
    ];
  });

/** A provider on probes serves a handful of calls, which is nobody for everybody else. */
const nobodyServes = (breakers: readonly BreakerReading[], service: string): boolean =>
  breakers
    .filter(({ essentialTo }) => essentialTo === service)
    .every(({ state }) => state !== "closed" && state !== "metrics_only");

const bulkheads: Rule = ({ bulkheads: pools }) =>
  pools.flatMap(({ pool, inFlight, limit, refused, refusedMax }) => {
    const isFull = inFlight >= limit;
    if (!isFull && refused <= refusedMax) return [];
    return [
      {
        id: `bulkhead_saturated:${pool}`,
        severity: "degraded",
        section: "bulkheads",
        detail: isFull
          ? `${pool}: ${inFlight} of ${limit} slots are taken, so further calls are refused.`
          : `${pool}: ${refused} calls were refused because all ${limit} slots were taken.`,
        playbook: "bulkhead",
        what: `See whether ${pool} stays full, and why its calls take so long.`,
        command: run("bulkhead:listInFlightByProvider", { provider: pool }),
      },
    ];
  });

const queues: Rule = ({ queues: all }, limits) =>
  all.flatMap((queue) => {
    const { tool, queued, queuedMax, oldestQueuedAgeMs, oldestRunningAgeMs } = queue;
    const problem = (id: string, severity: Severity, detail: string): Problem => ({
      id: `${id}:${tool}`,
      severity,
      section: "toolJobs",
      detail: `${tool}: ${detail}`,
      playbook: "queue",
      what: `See what ${tool} waits for: workers that are busy, or a provider that fails.`,
      command: run("toolJobs:getQueueStats"),
    });
    const problems: Problem[] = [];
    if (queued > 0 && queued >= queuedMax * limits.queueUtilizationMax)
      problems.push(
        problem("queue_full", "degraded", `${queued} jobs wait where ${queuedMax} may.`),
      );
    if (isStalled(queue, limits))
      problems.push(
        problem(
          "queue_stalled",
          "critical",
          `the oldest job waits ${duration(oldestQueuedAgeMs ?? 0)} and nothing runs.`,
        ),
      );
    else if ((oldestQueuedAgeMs ?? 0) > limits.queuedAgeMsMax)
      problems.push(
        problem(
          "queue_slow",
          "degraded",
          `the oldest job waits ${duration(oldestQueuedAgeMs ?? 0)}, more than ${duration(limits.queuedAgeMsMax)}.`,
        ),
      );
    if ((oldestRunningAgeMs ?? 0) > limits.runningAgeMsMax)
      problems.push(
        problem(
          "job_hangs",
          "degraded",
          `a job has run for ${duration(oldestRunningAgeMs ?? 0)}, more than ${duration(limits.runningAgeMsMax)}.`,
        ),
      );
    return problems;
  });

const isStalled = (
  { queued, running, oldestQueuedAgeMs }: QueueReading,
  { queuedAgeMsMax }: VerdictLimits,
): boolean => queued > 0 && running === 0 && (oldestQueuedAgeMs ?? 0) > queuedAgeMsMax;

const deadLetters: Rule = ({ deadLetters: count }, { deadLettersMax }) =>
  count <= deadLettersMax
    ? []
    : [
        {
          id: "dead_letters:tool_jobs",
          severity: "degraded",
          section: "toolJobs",
          detail: `${count} tool jobs were given up on, more than ${deadLettersMax}.`,
          playbook: "queue",
          what: "Read why the jobs failed; requeue them when the reason is gone.",
          command: run("toolJobs:listDeadLetters"),
        },
      ];

const webhooks: Rule = ({ webhooks: inbox }, { queuedAgeMsMax }) => {
  const problem = (id: string, detail: string): Problem => ({
    id,
    severity: "degraded",
    section: "webhookInbox",
    detail,
    playbook: "webhooks",
    what: "Read why the events failed; they are kept, so requeue them when the reason is gone.",
    command: run("integrations/inbox:listDeadLetters"),
  });
  const { queued, deadLetters: buried, oldestQueuedAgeMs } = inbox;
  return [
    // A provider was told that these are safe with us, so one is too many.
    ...(buried > 0
      ? [
          problem(
            "dead_letters:webhooks",
            `${buried} accepted webhook event${buried === 1 ? " was" : "s were"} given up on.`,
          ),
        ]
      : []),
    ...(queued > 0 && (oldestQueuedAgeMs ?? 0) > queuedAgeMsMax
      ? [
          problem(
            "webhooks_late",
            `${queued} webhook events wait, the oldest for ${duration(oldestQueuedAgeMs ?? 0)}.`,
          ),
        ]
      : []),
  ];
};

const limiters: Rule = ({ limiters: all }) =>
  all.flatMap(({ bucket, blocked, blockedMax, contended, contendedMax }) => {
    const problem = (id: string, detail: string, what: string): Problem => ({
      id: `${id}:${bucket}`,
      severity: "degraded",
      section: "rateLimitPressure",
      detail: `${bucket}: ${detail}`,
      playbook: "limits",
      what,
      command: run("rateLimit:getEventSummary", { minutes: 15 }),
    });
    return [
      ...(blocked > blockedMax
        ? [
            problem(
              "rate_limited",
              `${blocked} requests were refused where ${blockedMax} are usual.`,
              `See who is refused at ${bucket}: abuse, or more users than it was set for.`,
            ),
          ]
        : []),
      ...(contended > contendedMax
        ? [
            problem(
              "limiter_contended",
              `${contended} requests were refused because they could not be counted.`,
              `See how many requests reach ${bucket} at once: its limit has too few shards.`,
            ),
          ]
        : []),
    ];
  });

const alerts: Rule = ({ alerts: outbox }, { alertAgeMsMax }) => {
  const { waiting, undelivered, notConfigured, oldestWaitingAgeMs } = outbox;
  const isLate = waiting > 0 && (oldestWaitingAgeMs ?? 0) > alertAgeMsMax;
  const problem = (id: string, severity: Severity, detail: string): Problem => ({
    id,
    severity,
    section: "alerts",
    detail,
    playbook: "alerts",
    what: "Check SENTRY_DSN and the tracker; until then nobody is told of anything else.",
    command: run("alerts:listRecent"),
  });
  const late = isLate
    ? [`${waiting} wait, the oldest for ${duration(oldestWaitingAgeMs ?? 0)}`]
    : [];
  const lost = undelivered > 0 ? [`${undelivered} were given up on`] : [];
  const why = [...lost, ...late].join("; ");
  return [
    ...(why === ""
      ? []
      : [problem("alerts_undelivered", "degraded", `Alerts do not reach anybody: ${why}.`)]),
    // A deployment may do without a tracker, and then looks at what it was not told itself.
    ...(notConfigured > 0
      ? [
          problem(
            "alerts_not_configured",
            "note",
            `${notConfigured} alerts had nobody to be told to: SENTRY_DSN is not set.`,
          ),
        ]
      : []),
  ];
};

const orphans: Rule = ({ orphanStreams: count }) =>
  count === 0
    ? []
    : [
        {
          id: "orphan_streams",
          severity: "degraded",
          section: "chatStreams",
          detail: `${count} stream${count === 1 ? " has" : "s have"} no living worker and still wait${count === 1 ? "s" : ""} for an end.`,
          playbook: "streams",
          what: "See whether the scheduler runs: it ends such streams within a minute.",
          command: SNAPSHOT,
        },
      ];

const degradedServes: Rule = ({ served: all }, { degradedShareMax, servedMin }) =>
  all
    .filter(({ served, degraded }) => served >= servedMin && degraded > served * degradedShareMax)
    .map(({ key, served, degraded }) => ({
      id: `degraded_serve:${key}`,
      severity: "degraded",
      section: "degradedServe",
      detail: `${key}: ${percent(degraded / served)} of ${served} answers were stale or partial, more than ${percent(degradedShareMax)}.`,
      playbook: "cache",
      what: `See why ${key} cannot answer afresh; stale answers end with the outage.`,
      command: run("toolCache:listNamespaceStats"),
    }));

const objectives: Rule = ({ sloBreaches }, { criticalBurnRate }) =>
  sloBreaches.map(({ key, name, promise, actual, limit, burnRate }) => {
    const isTime = promise === "latency";
    const show = isTime ? duration : percent;
    const burns = promise === "availability";
    return {
      id: `slo_${promise}:${key}`,
      severity: burns && burnRate >= criticalBurnRate ? "critical" : "degraded",
      section: "slo",
      detail: `${name}: ${SLO_WORDS[promise]} ${show(actual)}, at most ${show(limit)} is promised${burns ? ` (budget burns at ${Number(burnRate.toPrecision(3))}x)` : ""}.`,
      playbook: "objective",
      what: `See which answers of ${name} miss the objective, and since when.`,
      command: SNAPSHOT,
    };
  });

const SLO_WORDS = {
  availability: "failed requests are",
  latency: "the 95th percentile is",
  degraded: "stale or partial answers are",
} as const;

const shortened: Rule = ({ truncated }) =>
  truncated.map((section) => ({
    id: `truncated:${section}`,
    severity: "note",
    section,
    detail: `${section} was cut short: its figures are at least what they say.`,
    playbook: "truncated",
    what: `Ask for fewer minutes to see all of ${section}.`,
    command: run("ops:getReliabilitySnapshot", { minutes: 1 }),
  }));

/** The most urgent first: what is refused or lost, then what is late, then what is seen of it. */
export const RULES: readonly Rule[] = [
  configuration,
  circuits,
  queues,
  bulkheads,
  webhooks,
  deadLetters,
  orphans,
  alerts,
  objectives,
  degradedServes,
  limiters,
  shortened,
];
