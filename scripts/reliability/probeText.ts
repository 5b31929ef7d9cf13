import type { ProbeReport } from "./artifacts";

type Probe = ProbeReport["probes"][number];

/** The report as a person reads it: what fails first, then how much was seen. */
export function probeLines(report: ProbeReport): readonly string[] {
  const { baseUrl, environment, verdict, reasons, probes, checks, counts, latency } = report;
  const where = `${baseUrl ?? "no target"}${environment === null ? "" : ` (${environment})`}`;
  const end = [`  ${verdict}`, ...reasons.map((reason) => `  - ${reason}`)];
  // Where nobody answered, a hundred probes that say so would bury the one sentence that helps.
  if (verdict === "INCONCLUSIVE" && probes.every(({ status }) => status === null))
    return [`Probes of ${where}`, "", ...end];
  const failed = probes.filter(({ pass }) => !pass);
  return [
    `Probes of ${where}`,
    "",
    ...failed.flatMap(failureLines),
    ...(failed.length === 0 ? [] : [""]),
    ...guardLines(probes),
    ...checks.map(
      ({ name, pass, expected, actual }) =>
        `  ${pass ? "ok  " : "FAIL"}  ${name.padEnd(36)} ${actual} (${expected})`,
    ),
    ...(checks.length === 0 ? [] : [""]),
    ...(latency === null
      ? []
      : [
          `  ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} not sent; ` +
            `half within ${latency.p50Ms} ms, 95 % within ${latency.p95Ms} ms, all within ${latency.maxMs} ms`,
          "",
        ]),
    ...end,
  ];
}

const failureLines = ({ title, expected, actual, details }: Probe): readonly string[] => [
  `  FAIL  ${title}`,
  `        expected ${expected}, got ${actual}`,
  ...details.map((detail) => `        - ${detail}`),
];

/** One line for each guard of each route: how many probes it answered as it must. */
function guardLines(probes: readonly Probe[]): readonly string[] {
  const groups = new Map<string, Probe[]>();
  for (const probe of probes) {
    const key = probe.route ?? "any other path";
    groups.set(key, [...(groups.get(key) ?? []), probe]);
  }
  const lines = [...groups].map(([route, all]) => {
    const passed = all.filter(({ pass, skipped }) => pass && skipped === null);
    const skipped = all.filter((one) => one.skipped !== null);
    const guards = [...new Set(passed.map(({ guard }) => guard))].filter(
      (guard) => guard !== "none",
    );
    const rest = skipped.length === 0 ? "" : `; not sent: ${skipped.length}`;
    const failed = all.length - passed.length - skipped.length;
    return `  ${failed === 0 ? "ok  " : "FAIL"}  ${route.padEnd(18)} ${String(passed.length).padStart(3)} of ${all.length}  ${guards.join(", ")}${rest}`;
  });
  return lines.length === 0 ? [] : [...lines, ""];
}
