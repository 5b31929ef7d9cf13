/**
 * What is promised, and how what was measured is judged by it. The numbers are
 * `scripts/reliability/slo-baseline.json`, for scripts and the deployment alike: whoever changes a
 * promise changes it there, and the deployment has it with its next deploy.
 */
import file from "../../scripts/reliability/slo-baseline.json";
import { DAY } from "../core/time";

/** A promise that is kept by live traffic: of an endpoint or of a provider. */
export interface LivePromise {
  /** Share of requests that must not fail, above 0 and below 1; the rest is the error budget. */
  readonly minAvailability: number;
  /** 95th percentile of the whole answer, its body included, in milliseconds. */
  readonly maxP95Ms: number;
  /** Share of answers that may be stale or partial, 0 to 1. */
  readonly maxDegradedRate: number;
}

/** Rates are shares of all requests, 0 to 1. */
interface EndpointPromise extends LivePromise {
  /** Id of its route, which is what its metrics are kept under. */
  readonly route: string;
  /** Until the first event with text, in milliseconds; only where the answer is a stream. */
  readonly maxP95FirstTokenMs?: number;
  readonly maxFiveXxRate: number;
  /** Requests that got no answer at all. */
  readonly maxNetworkErrorRate: number;
  /** Answers whose status is not in `allowedStatuses`. */
  readonly maxUnknownStatusRate: number;
  /** What must succeed of a load that is entitled to; without it refusing everything would pass. */
  readonly minTwoXxRate?: number;
  readonly allowedStatuses: readonly number[];
}

/** Limits at which a person is told, by kind of endpoint. */
interface AlertLevel {
  readonly p95LatencyMs: number;
  readonly fiveXxRate: number;
}

export interface SloBaseline {
  /** Where editors find the schema. */
  readonly $schema?: string;
  readonly version: 1;
  /** Days over which an error budget is given and spent. */
  readonly windowDays: number;
  /** Fewer events than this decide nothing. */
  readonly minEvents: number;
  readonly endpoints: Readonly<Record<string, EndpointPromise>>;
  readonly providers: Readonly<Record<string, LivePromise>>;
  readonly alerting: Readonly<
    Record<string, { readonly warning: AlertLevel; readonly critical: AlertLevel }>
  >;
}

/** The baseline in force. The file says `version` as any number; a test holds it to its schema. */
export const BASELINE: SloBaseline = { ...file, version: 1 };

/** One promise with the key of the metrics that tell whether it is kept. */
export interface Objective extends LivePromise {
  /** `route:<id>` or `provider:<id>`. */
  readonly key: string;
  /** Path of the endpoint or id of the provider. */
  readonly name: string;
}

/** Everything that live traffic is judged by. */
export function objectivesOf({ endpoints, providers }: SloBaseline): readonly Objective[] {
  return [
    ...Object.entries(endpoints).map(([name, promise]) => ({
      ...live(promise),
      key: `route:${promise.route}`,
      name,
    })),
    ...Object.entries(providers).map(([name, promise]) => ({
      ...live(promise),
      key: `provider:${name}`,
      name,
    })),
  ];
}

const live = ({ minAvailability, maxP95Ms, maxDegradedRate }: LivePromise): LivePromise => ({
  minAvailability,
  maxP95Ms,
  maxDegradedRate,
});

/** What was counted of one key over a window. */
export interface Measured {
  readonly windowMs: number;
  readonly total: number;
  /** Of `total`: what counts against availability. */
  readonly failed: number;
  /** Of `total`: answered, but stale or in part. */
  readonly degraded: number;
  /** Null where nothing was timed. */
  readonly p95Ms: number | null;
}

/** A promise that was not kept. */
export interface SloBreach {
  readonly key: string;
  readonly name: string;
  readonly promise: "availability" | "latency" | "degraded";
  readonly actual: number;
  readonly limit: number;
  /** How fast the error budget goes: 1 spends it exactly over the whole period. */
  readonly burnRate: number;
}

export interface SloResult {
  readonly key: string;
  readonly name: string;
  /** `insufficient`: too few events to say either. */
  readonly state: "met" | "breached" | "insufficient";
  readonly total: number;
  readonly errorRatio: number;
  readonly burnRate: number;
  /** Share of the whole period's budget that the window spent, at even traffic. */
  readonly budgetSpent: number;
  readonly degradedRatio: number;
  readonly p95Ms: number | null;
  readonly breaches: readonly SloBreach[];
}

/** Share of events that failed; nothing counted is nothing failed. */
const errorRatio = ({ total, failed }: Pick<Measured, "total" | "failed">): number =>
  total === 0 ? 0 : failed / total;

/** Error ratio over error budget: at 1 the budget lasts exactly its period, at 2 half of it. */
export const burnRate = (ratio: number, { minAvailability }: LivePromise): number =>
  ratio / (1 - minAvailability);

/**
 * What is left of a budget after its whole period was counted: 1 untouched, 0 gone, below 0
 * overspent.
 */
export const budgetLeft = (
  counted: Pick<Measured, "total" | "failed">,
  promise: LivePromise,
): number => 1 - burnRate(errorRatio(counted), promise);

/** Judges one objective by what was measured. */
export function judge(
  objective: Objective,
  measured: Measured,
  { minEvents, windowDays }: Pick<SloBaseline, "minEvents" | "windowDays"> = BASELINE,
): SloResult {
  const { key, name } = objective;
  const { total, p95Ms, windowMs } = measured;
  const ratio = errorRatio(measured);
  const burn = burnRate(ratio, objective);
  const degradedRatio = total === 0 ? 0 : measured.degraded / total;
  const enough = total >= minEvents;
  const breach = (promise: SloBreach["promise"], actual: number, limit: number): SloBreach[] =>
    actual > limit ? [{ key, name, promise, actual, limit, burnRate: burn }] : [];
  const breaches = enough
    ? [
        // Compared as a burn rate: 1 - 0.95 is a little more than 0.05 in floating point.
        ...(burn > 1 + Number.EPSILON * 16
          ? breach("availability", ratio, 1 - objective.minAvailability)
          : []),
        ...breach("latency", p95Ms ?? 0, objective.maxP95Ms),
        ...breach("degraded", degradedRatio, objective.maxDegradedRate),
      ]
    : [];
  return {
    key,
    name,
    state: !enough ? "insufficient" : breaches.length > 0 ? "breached" : "met",
    total,
    errorRatio: ratio,
    burnRate: burn,
    budgetSpent: (burn * windowMs) / (windowDays * DAY),
    degradedRatio,
    p95Ms,
    breaches,
  };
}
