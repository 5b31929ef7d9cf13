/**
 * The baseline as a file: what it must look like, and how one is read. Apart from the objectives,
 * because queries and mutations must start without zod.
 */
import * as z from "zod";
import type { SloBaseline } from "./objectives";

const rate = (meaning: string) => z.number().min(0).max(1).describe(meaning);
const milliseconds = (meaning: string) => z.number().positive().max(3_600_000).describe(meaning);
const names = z.string().min(1).max(200);

const LIVE = {
  minAvailability: z
    .number()
    .gt(0)
    .lt(1)
    .describe("Share of requests that must not fail; the rest is the error budget."),
  maxP95Ms: milliseconds("95th percentile of the whole answer."),
  maxDegradedRate: rate("Share of answers that may be stale or partial."),
};

const Endpoint = z
  .strictObject({
    route: names.describe("Id of the route in src/http/routes.ts."),
    ...LIVE,
    maxP95FirstTokenMs: milliseconds(
      "95th percentile until the first event with text.",
    ).exactOptional(),
    maxFiveXxRate: rate("Answers with a status of 500 or more."),
    maxNetworkErrorRate: rate("Requests that got no answer."),
    maxUnknownStatusRate: rate("Answers whose status is not in allowedStatuses."),
    minTwoXxRate: rate("What must succeed of a load that is entitled to.").exactOptional(),
    allowedStatuses: z.array(z.int().min(100).max(599)).min(1).max(100),
  })
  .refine(
    ({ maxFiveXxRate, minAvailability }) => maxFiveXxRate <= 1 - minAvailability + 1e-9,
    "maxFiveXxRate is more than the error budget, 1 - minAvailability",
  );

const AlertLevel = z.strictObject({
  p95LatencyMs: milliseconds("95th percentile at which a person is told."),
  fiveXxRate: rate("5xx rate at which a person is told."),
});

const Alerting = z
  .strictObject({ warning: AlertLevel, critical: AlertLevel })
  .refine(
    ({ warning, critical }) =>
      warning.p95LatencyMs <= critical.p95LatencyMs && warning.fiveXxRate <= critical.fiveXxRate,
    "warning is above critical",
  );

const SloBaselineFile = z.strictObject({
  $schema: z.string().exactOptional(),
  version: z.literal(1),
  windowDays: z.number().positive().max(365).describe("Days an error budget is given for."),
  minEvents: z.int().min(1).max(1_000_000).describe("Fewer events decide nothing."),
  endpoints: z.record(z.string().startsWith("/"), Endpoint),
  providers: z.record(names, z.strictObject(LIVE)),
  alerting: z.record(names, Alerting),
});

/** Most problems that a refusal lists. */
const ISSUES_MAX = 20;

/** A baseline, or what is wrong with the text in words for whoever edited it. */
export type ReadBaseline =
  | { readonly ok: true; readonly baseline: SloBaseline }
  | { readonly ok: false; readonly problems: readonly string[] };

/** Reads the text of a baseline file. */
export function readBaseline(text: string): ReadBaseline {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { ok: false, problems: [`It is not JSON: ${String(error)}`] };
  }
  const parsed = SloBaselineFile.safeParse(value);
  if (parsed.success) return { ok: true, baseline: parsed.data };
  const problems = parsed.error.issues
    .slice(0, ISSUES_MAX)
    .map(({ path, message }) => `${path.length === 0 ? "the file" : path.join(".")}: ${message}`);
  return { ok: false, problems };
}

/** Its JSON Schema, published beside the file for editors and other programs. */
export const sloBaselineSchema = (): string =>
  JSON.stringify({ title: "Service level objectives of Ballast", ...schemaOf() }, null, 2);

const schemaOf = (): object => z.toJSONSchema(SloBaselineFile, { io: "input" });
