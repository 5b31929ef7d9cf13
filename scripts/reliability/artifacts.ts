/** What the scripts write, as contracts: published beside them, and checked whenever one is read. */
import * as z from "zod";

const Verdict = z.enum(["PASS", "FAIL", "INCONCLUSIVE"]);

/** What every artifact begins with. */
const HEAD = {
  startedAt: z.iso.datetime(),
  finishedAt: z.iso.datetime(),
  baseUrl: z.string().nullable().describe("Null where no target was found."),
  environment: z
    .enum(["embedded", "local", "remote"])
    .nullable()
    .describe("`embedded`: a host that was started for the run alone."),
  deployment: z
    .strictObject({
      name: z.string().nullable().describe("As the deployment calls itself."),
      version: z.string().nullable().describe("As its health says."),
    })
    .describe("Null where it could not be asked."),
  commit: z
    .string()
    .nullable()
    .describe("Of the code that ran the script; `+` where it was changed."),
  policyHash: z
    .string()
    .nullable()
    .describe("SHA-256 of the thresholds that were used; null where none decided."),
  verdict: Verdict,
  passed: z.boolean().describe("Whether the verdict is PASS."),
  reasons: z.array(z.string()).describe("Why, in plain words."),
};

export const SnapshotReport = z.strictObject({
  kind: z.literal("snapshot"),
  ...HEAD,
  snapshotVerdict: z.enum(["ok", "degraded", "critical"]).nullable(),
  strict: z.boolean().describe("Whether degraded was to fail."),
  nextAction: z
    .object({
      what: z.string(),
      command: z.string().nullable(),
      playbook: z.string().nullable(),
    })
    .nullable(),
  snapshot: z
    .record(z.string(), z.unknown())
    .nullable()
    .describe("As the deployment gave it; null where it could not be had."),
});

const Probe = z.strictObject({
  name: z.string().describe("Stable, such as `chat_post_identity_missing`."),
  title: z.string().describe("What was sent, in words."),
  route: z.string().nullable().describe("Id in the route table; null for what is nobody's path."),
  guard: z.string().describe("What was to answer."),
  pass: z.boolean(),
  skipped: z.string().nullable().describe("Why it was not sent; null where it was."),
  latencyMs: z.number().nullable(),
  status: z.int().nullable().describe("Null where no answer came."),
  expected: z.string(),
  actual: z.string(),
  details: z.array(z.string()).describe("Each thing that was not as promised."),
});

const Check = z.strictObject({
  name: z.string(),
  pass: z.boolean(),
  expected: z.string(),
  actual: z.string(),
});

export const ProbeReport = z.strictObject({
  kind: z.literal("synthetic-probes"),
  ...HEAD,
  probeOrigin: z.string().nullable(),
  syntheticRun: z.string().describe("Value of `x-synthetic-run` on each request."),
  counts: z.strictObject({ passed: z.int(), failed: z.int(), skipped: z.int() }),
  latency: z.strictObject({ p50Ms: z.number(), p95Ms: z.number(), maxMs: z.number() }).nullable(),
  probes: z.array(Probe),
  checks: z.array(Check),
});

export type ReportVerdict = z.output<typeof Verdict>;
export type SnapshotReport = z.output<typeof SnapshotReport>;
export type ProbeReport = z.output<typeof ProbeReport>;
export type ProbeResult = z.output<typeof Probe>;
export type CheckResult = z.output<typeof Check>;

/** JSON Schemas by file. */
export const ARTIFACT_SCHEMAS = {
  "scripts/reliability/schemas/snapshot.schema.json": () =>
    schemaOf("Report of reliability:snapshot", SnapshotReport),
  "scripts/reliability/schemas/synthetic-probes.schema.json": () =>
    schemaOf("Report of reliability:probe", ProbeReport),
} as const;

const schemaOf = (title: string, contract: z.ZodType): string =>
  JSON.stringify({ title, ...z.toJSONSchema(contract) }, null, 2);
