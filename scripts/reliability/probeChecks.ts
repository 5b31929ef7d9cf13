import type { SloBaseline } from "../../src/slo/objectives";
import type { CheckResult } from "./artifacts";
import type { Probed } from "./probeRun";

const DAY_MS = 86_400_000;
/** A certificate that ends sooner is one that nobody renews. */
const CERTIFICATE_DAYS_MIN = 14;
/** Signatures and tokens are refused for being minutes off; the Date header tells seconds. */
const CLOCK_SKEW_MS_MAX = 5_000;

/** What all answers together tell: time, certificate, latency by endpoint. */
export function checksOf(
  probed: readonly Probed[],
  baseline: SloBaseline,
  nowMs: number,
): readonly CheckResult[] {
  return [...certificate(probed, nowMs), ...clock(probed), ...latencies(probed, baseline)];
}

function certificate(probed: readonly Probed[], nowMs: number): readonly CheckResult[] {
  const ends = probed.flatMap(({ answer }) => answer?.certificateEndsAt ?? []).map(Date.parse);
  const [first] = ends.filter(Number.isFinite).sort((a, b) => a - b);
  if (first === undefined) return [];
  const days = Math.floor((first - nowMs) / DAY_MS);
  return [
    {
      name: "certificate_expiry",
      pass: days >= CERTIFICATE_DAYS_MIN,
      expected: `at least ${CERTIFICATE_DAYS_MIN} days`,
      actual: `${days} days, until ${new Date(first).toISOString()}`,
    },
  ];
}

/** The nearest of all answers: one that was slow to come tells the time of its start. */
function clock(probed: readonly Probed[]): readonly CheckResult[] {
  const skews = probed.flatMap(({ answer, answeredAtMs }) => {
    const dated = Date.parse(answer?.headers["date"] ?? "");
    return answeredAtMs === null || Number.isNaN(dated) ? [] : [dated - answeredAtMs];
  });
  const [nearest] = skews.sort((a, b) => Math.abs(a) - Math.abs(b));
  if (nearest === undefined) return [];
  return [
    {
      name: "clock_skew",
      pass: Math.abs(nearest) <= CLOCK_SKEW_MS_MAX,
      expected: `at most ${CLOCK_SKEW_MS_MAX / 1_000} s`,
      actual: `${(Math.round(nearest / 100) / 10 + 0).toFixed(1)} s`,
    },
  ];
}

function latencies(probed: readonly Probed[], { endpoints }: SloBaseline): readonly CheckResult[] {
  return Object.entries(endpoints).flatMap(([path, { maxP95Ms }]) => {
    const times = probed.flatMap((one) =>
      one.path === path && one.answer !== null ? [one.answer.latencyMs] : [],
    );
    if (times.length === 0) return [];
    const p95Ms = percentile(times, 0.95);
    return [
      {
        name: `latency_p95 ${path}`,
        pass: p95Ms <= maxP95Ms,
        expected: `at most ${maxP95Ms} ms`,
        actual: `${p95Ms} ms over ${times.length} probes`,
      },
    ];
  });
}

/** Nearest rank; the list must not be empty. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? 0;
}
