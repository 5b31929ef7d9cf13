import { parseArgs } from "node:util";
import * as z from "zod";
import type { Io, Main } from "../main";
import { SnapshotReport } from "./artifacts";
import { callQuery } from "./callFunction";
import { type Judged, reported, reportFlags, type Run } from "./report";
import { snapshotLines } from "./snapshotText";
import { openTarget, TARGET_OPTIONS, TARGET_USAGE } from "./target";
import { mistakeIn, UsageError, wholeNumber } from "../usage";

const USAGE = [
  "Usage: npm run reliability:snapshot -- [flags]",
  "  --minutes <n>       window of what is counted over time, 1 to 1440",
  "  --limit <n>         rows of each list, 5 to 500",
  "  --strict            degraded fails too, not only critical",
  "  --json              prints the report instead of the summary",
  "  --out <file>        else .output/reliability/snapshot-<time>.json",
  ...TARGET_USAGE,
  "Exit code: 0 nothing that fails, 1 the verdict fails, 2 it could not be had.",
];

const OPTIONS = {
  ...TARGET_OPTIONS,
  minutes: { type: "string" },
  limit: { type: "string" },
  strict: { type: "boolean", default: false },
  json: { type: "boolean", default: false },
  out: { type: "string" },
  help: { type: "boolean", short: "h", default: false },
} as const;

type Flags = ReturnType<typeof readFlags>;

const readFlags = (argv: readonly string[]) =>
  parseArgs({ args: [...argv], options: OPTIONS }).values;

/** `npm run reliability:snapshot`: the state of a deployment with its verdict. */
export const main: Main = async (argv, io) => {
  const flags = understood(argv);
  if (typeof flags !== "string" && flags.help) {
    for (const line of USAGE) io.print(line);
    return 0;
  }
  return await reported(
    {
      name: "snapshot",
      empty: EMPTY,
      ...reportFlags(argv, OPTIONS),
      render: (report) =>
        snapshotLines(
          SnapshotReport.parse(report),
          typeof flags === "string" ? null : (flags["data-dir"] ?? null),
        ),
      run: async (run) => {
        if (typeof flags === "string") throw new UsageError(flags);
        return await look(flags, run, io);
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
    return mistakeIn(error, "reliability:snapshot");
  }
}

type Findings = Pick<
  SnapshotReport,
  "kind" | "snapshotVerdict" | "strict" | "nextAction" | "snapshot"
>;

const EMPTY: Findings = {
  kind: "snapshot",
  snapshotVerdict: null,
  strict: false,
  nextAction: null,
  snapshot: null,
};

async function look(flags: Flags, run: Run<Findings>, io: Io): Promise<Judged> {
  const { strict } = flags;
  run.keep({ strict });
  const minutes = wholeNumber("--minutes", flags.minutes, { min: 1, max: 1_440 });
  const limit = wholeNumber("--limit", flags.limit, { min: 5, max: 500 });
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
    const { name, version } = await run.about(target, null);
    if (name === null && version === null)
      throw new UsageError(`Nothing answers at ${target.siteUrl} nor at ${target.cloudUrl}.`);
    const args = { ...(minutes === null ? {} : { minutes }), ...(limit === null ? {} : { limit }) };
    const call = { name: "ops:getReliabilitySnapshot", args };
    const snapshot = z
      .record(z.string(), z.unknown())
      .parse(await callQuery(target, call, run.signal));
    run.keep({ snapshot });
    return judge(snapshot, strict, run);
  } finally {
    await target.close();
  }
}

/** What the snapshot says of itself, as `src/slo/verdict.ts` makes it. */
const Verdict = z.object({
  verdict: z.enum(["ok", "degraded", "critical"]),
  reasons: z.array(z.string()),
  nextAction: z.object({
    what: z.string(),
    command: z.string().nullable(),
    playbook: z.string().nullable(),
  }),
});

function judge(
  snapshot: Readonly<Record<string, unknown>>,
  strict: boolean,
  run: Run<Findings>,
): Judged {
  const said = Verdict.safeParse(snapshot);
  if (!said.success)
    return {
      verdict: "INCONCLUSIVE",
      reasons: ["The deployment's snapshot says no verdict: it runs an older version."],
    };
  const { verdict, reasons, nextAction } = said.data;
  run.keep({ snapshotVerdict: verdict, nextAction });
  const fails = verdict === "critical" || (strict && verdict === "degraded");
  return { verdict: fails ? "FAIL" : "PASS", reasons };
}
