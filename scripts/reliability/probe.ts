import { parseArgs } from "node:util";
import { readKnob } from "../../src/config/read";
import type { Io, Main } from "../main";
import { ProbeReport } from "./artifacts";
import { loadBaseline } from "./baseline";
import { probeLimits, unsentLimits } from "./limitProbes";
import { checksOf, percentile } from "./probeChecks";
import { credentialsFrom } from "./probeCredentials";
import { planProbes } from "./probePlan";
import { inParallel, newSyntheticRun, probe, type Probed, type Prober } from "./probeRun";
import { probeLines } from "./probeText";
import { type Judged, reported, reportFlags, type Run } from "./report";
import { openTarget, type Target, TARGET_OPTIONS, TARGET_USAGE } from "./target";
import { mistakeIn, UsageError, wholeNumber } from "../usage";

const USAGE = [
  "Usage: npm run reliability:probe -- [flags]",
  "  --origin <origin>   whose pages may call; else RELIABILITY_PROBE_ORIGIN, or as configured here",
  "  --auth-token <jwt>  a user's access token; else RELIABILITY_AUTH_TOKEN",
  "  --gmail-token, --whatsapp-secret, --whatsapp-verify-token <secret>",
  "                      else GMAIL_PUBSUB_VERIFY_TOKEN, WHATSAPP_APP_SECRET, WHATSAPP_VERIFY_TOKEN",
  "  --slo-baseline <file>   else scripts/reliability/slo-baseline.json",
  "  --timeout-ms <n>    for each answer, 10000 by default",
  "  --json              prints the report instead of the summary",
  "  --out <file>        else .output/reliability/synthetic-probes-<time>.json",
  ...TARGET_USAGE,
  "Exit code: 0 every probe passed, 1 one did not, 2 it could not run.",
];

const OPTIONS = {
  ...TARGET_OPTIONS,
  origin: { type: "string" },
  "auth-token": { type: "string" },
  "gmail-token": { type: "string" },
  "whatsapp-secret": { type: "string" },
  "whatsapp-verify-token": { type: "string" },
  "slo-baseline": { type: "string" },
  "timeout-ms": { type: "string" },
  json: { type: "boolean", default: false },
  out: { type: "string" },
  help: { type: "boolean", short: "h", default: false },
} as const;

type Flags = ReturnType<typeof readFlags>;

const readFlags = (argv: readonly string[]) =>
  parseArgs({ args: [...argv], options: OPTIONS }).values;

/** `npm run reliability:probe`: every guard of every route refuses as its contract says. */
export const main: Main = async (argv, io) => {
  const flags = understood(argv);
  if (typeof flags !== "string" && flags.help) {
    for (const line of USAGE) io.print(line);
    return 0;
  }
  const syntheticRun = newSyntheticRun();
  return await reported(
    {
      name: "synthetic-probes",
      empty: { ...EMPTY, syntheticRun },
      ...reportFlags(argv, OPTIONS),
      render: (report) => probeLines(ProbeReport.parse(report)),
      run: async (run) => {
        if (typeof flags === "string") throw new UsageError(flags);
        return await look(flags, { run, io, syntheticRun });
      },
    },
    io,
  );
};

/** A mistake in the flags is a run that could not be, with its artifact. */
function understood(argv: readonly string[]): Flags | string {
  try {
    return readFlags(argv);
  } catch (error) {
    return mistakeIn(error, "reliability:probe");
  }
}

type Findings = Pick<
  ProbeReport,
  "kind" | "probeOrigin" | "syntheticRun" | "counts" | "latency" | "probes" | "checks"
>;

const EMPTY: Omit<Findings, "syntheticRun"> = {
  kind: "synthetic-probes",
  probeOrigin: null,
  counts: { passed: 0, failed: 0, skipped: 0 },
  latency: null,
  probes: [],
  checks: [],
};

const TIMEOUT_MS = 10_000;
const AT_ONCE = 6;
const PROBE_USER = "reliability-probe";

interface Looking {
  readonly run: Run<Findings>;
  readonly io: Io;
  readonly syntheticRun: string;
}

async function look(flags: Flags, { run, io, syntheticRun }: Looking): Promise<Judged> {
  const timeoutMs =
    wholeNumber("--timeout-ms", flags["timeout-ms"], { min: 1, max: 120_000 }) ?? TIMEOUT_MS;
  const { baseline, hash } = await loadBaseline(io.projectDir, flags["slo-baseline"]);
  const target = await openTarget(
    {
      baseUrl: flags["base-url"],
      cloudUrl: flags["cloud-url"],
      adminKey: flags["admin-key"],
      dataDir: flags["data-dir"],
    },
    io,
  );
  try {
    run.signal.throwIfAborted();
    await run.about(target, hash, timeoutMs);
    const origin = originFor(flags, target, io);
    run.keep({ probeOrigin: origin });
    const prober: Prober = {
      baseUrl: target.siteUrl,
      syntheticRun,
      timeoutMs,
      signal: run.signal,
    };
    const token = flags["auth-token"] ?? (await target.token(PROBE_USER));
    const plan = planProbes(
      credentialsFrom({ origin, token, secret: (name) => secretFor(name, flags, target) }),
    );
    // In the order of the plan, whenever each is answered, so that two reports can be compared.
    const answered: (Probed | undefined)[] = plan.map(() => undefined);
    await inParallel([...plan.entries()], AT_ONCE, async ([at, planned]) => {
      if (run.signal.aborted) return;
      answered[at] = await probe(planned, prober);
      run.keep(findingsOf(answered.flatMap((one) => one ?? [])));
    });
    const ofGuards = answered.flatMap((one) => one ?? []);
    run.signal.throwIfAborted();
    if (isSilent(ofGuards)) throw new UsageError(silence(ofGuards, target));
    const ofLimits =
      target.environment === "embedded"
        ? await probeLimits(target, prober)
        : await inParallel(unsentLimits(), 1, async (one) => await probe(one, prober));
    const probed = [...ofGuards, ...ofLimits];
    run.keep(findingsOf(probed));
    const checks = [...checksOf(probed, baseline, Date.now())];
    run.keep({ checks });
    return judge(probed, checks);
  } finally {
    await target.close();
  }
}

/** On a machine of ours the first allowed origin is known. */
function originFor(flags: Flags, target: Target, { processEnvironment }: Io): string | null {
  const named = flags.origin ?? processEnvironment["RELIABILITY_PROBE_ORIGIN"];
  if (named !== undefined && named !== "") return named;
  if (target.environment === "remote") return null;
  const allowed = target.setting("ALLOWED_ORIGINS");
  const env = allowed === null ? {} : { ALLOWED_ORIGINS: allowed };
  return readKnob(env, "ALLOWED_ORIGINS")[0] ?? null;
}

const SECRET_FLAGS: Readonly<
  Record<string, "gmail-token" | "whatsapp-secret" | "whatsapp-verify-token">
> = {
  GMAIL_PUBSUB_VERIFY_TOKEN: "gmail-token",
  WHATSAPP_APP_SECRET: "whatsapp-secret",
  WHATSAPP_VERIFY_TOKEN: "whatsapp-verify-token",
};

function secretFor(name: string, flags: Flags, target: Target): string | null {
  const flag = SECRET_FLAGS[name];
  return (flag === undefined ? undefined : flags[flag]) ?? target.setting(name);
}

const isSilent = (probed: readonly Probed[]): boolean =>
  probed.every(({ answer }) => answer === null);

function silence(probed: readonly Probed[], { siteUrl }: Target): string {
  const actual = probed.find(({ result }) => result.skipped === null)?.result.actual ?? "no answer";
  return `Nothing answers at ${siteUrl}: ${actual}.`;
}

function findingsOf(probed: readonly Probed[]): Partial<Findings> {
  const probes = probed.map(({ result }) => result);
  const times = probes.flatMap(({ latencyMs }) => latencyMs ?? []);
  return {
    probes,
    counts: {
      passed: probes.filter(({ pass, skipped }) => pass && skipped === null).length,
      failed: probes.filter(({ pass }) => !pass).length,
      skipped: probes.filter(({ skipped }) => skipped !== null).length,
    },
    latency:
      times.length === 0
        ? null
        : {
            p50Ms: percentile(times, 0.5),
            p95Ms: percentile(times, 0.95),
            maxMs: Math.max(...times),
          },
  };
}

function judge(probed: readonly Probed[], checks: Findings["checks"]): Judged {
  const failed = probed.filter(({ result }) => !result.pass).map(({ result }) => result);
  const missed = checks.filter(({ pass }) => !pass);
  const unsent = new Map<string, number>();
  for (const { result } of probed)
    if (result.skipped !== null) unsent.set(result.skipped, (unsent.get(result.skipped) ?? 0) + 1);
  return {
    verdict: failed.length + missed.length === 0 ? "PASS" : "FAIL",
    reasons: [
      ...failed.map(
        ({ title, expected, actual, details }) =>
          // Where status and code are right it is something else that is not.
          `${title}: ${expected === actual ? details.join(", ") : `expected ${expected}, got ${actual}`}`,
      ),
      ...missed.map(({ name, expected, actual }) => `${name}: ${actual}, expected ${expected}`),
      ...[...unsent].map(([why, count]) => `${count} not sent: ${why}`),
    ],
  };
}
