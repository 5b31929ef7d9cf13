import { execFile } from "node:child_process";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs, type ParseArgsConfig, promisify } from "node:util";
import type { Io } from "../main";
import type { ReportVerdict } from "./artifacts";
import type { Target } from "./target";
import { UsageError } from "../usage";

/** What an artifact says besides its own findings; filled in as it becomes known. */
export interface Head {
  readonly startedAt: string;
  readonly finishedAt: string;
  readonly baseUrl: string | null;
  readonly environment: Target["environment"] | null;
  readonly deployment: { readonly name: string | null; readonly version: string | null };
  readonly commit: string | null;
  readonly policyHash: string | null;
  readonly verdict: ReportVerdict;
  readonly passed: boolean;
  readonly reasons: readonly string[];
}

export interface Judged {
  readonly verdict: ReportVerdict;
  readonly reasons: readonly string[];
}

/** A run that ends in an artifact, however it ends. */
export interface Reporting<Findings extends object> {
  /** Begins the file name. */
  readonly name: string;
  /** What the artifact holds before anything was found. */
  readonly empty: Findings;
  /** Looks, keeps what it finds, and judges it. */
  run(run: Run<Findings>): Promise<Judged>;
  /** What a person reads. */
  readonly render: (artifact: Head & Findings) => readonly string[];
  /** Where to write; null is a new file below `.output/reliability`. */
  readonly out: string | null;
  /** Prints the artifact instead of the summary. */
  readonly json: boolean;
}

export interface Run<Findings> {
  /** Aborted when the run is to end early. */
  readonly signal: AbortSignal;
  /** Replaces parts of what the artifact holds if the run ended now. */
  keep(findings: Partial<Findings>): void;
  /** Notes the target in the artifact, and returns what it says of itself. */
  about(target: Target, policyHash: string | null, withinMs?: number): Promise<Head["deployment"]>;
}

/** What flags say that also decides over the report of a run whose flags are mistaken. */
export interface ReportFlags {
  readonly out: string | null;
  readonly json: boolean;
}

/** Where the report goes and how it is shown, as far as it can be told from any command line. */
export function reportFlags(
  argv: readonly string[],
  options: NonNullable<ParseArgsConfig["options"]>,
): ReportFlags {
  const { out, json } = parseArgs({
    args: [...argv],
    options,
    strict: false,
    allowPositionals: true,
  }).values;
  return { out: typeof out === "string" && out !== "" ? out : null, json: json === true };
}

const CLOSE_MS_MAX = 5_000;
const EXIT_CODES: Readonly<Record<ReportVerdict, number>> = { PASS: 0, FAIL: 1, INCONCLUSIVE: 2 };

/** Runs, writes the artifact on every way out, prints, and gives the exit code. */
export async function reported<Findings extends object>(
  reporting: Reporting<Findings>,
  io: Io,
): Promise<number> {
  const startedAt = new Date().toISOString();
  const stop = new AbortController();
  const head = {
    startedAt,
    baseUrl: null as string | null,
    environment: null as Target["environment"] | null,
    deployment: { name: null as string | null, version: null as string | null },
    policyHash: null as string | null,
  };
  let findings = reporting.empty;
  const run: Run<Findings> = {
    signal: stop.signal,
    keep: (more) => {
      findings = { ...findings, ...more };
    },
    about: async (target, policyHash, withinMs = ASK_MS_MAX) => {
      const { siteUrl: baseUrl, environment } = target;
      Object.assign(head, { baseUrl, environment, policyHash });
      head.deployment = await identify(
        target,
        AbortSignal.any([stop.signal, AbortSignal.timeout(withinMs)]),
      );
      return head.deployment;
    },
  };
  const running = judge(() => reporting.run(run));
  const stopped = io.stopped.then(async () => {
    stop.abort(new Error("interrupted"));
    // What it had started is ended first, unless that takes too long.
    await Promise.race([running, sleep(CLOSE_MS_MAX, undefined, { ref: false })]);
    return inconclusive("It was interrupted.");
  });
  const judged = await Promise.race([running, stopped]).then(async (first) =>
    stop.signal.aborted ? await stopped : first,
  );
  const commit = await commitOf(io.projectDir);
  const artifact: Head & Findings = {
    ...findings,
    ...head,
    ...judged,
    finishedAt: new Date().toISOString(),
    commit,
    passed: judged.verdict === "PASS",
  };
  const file = fileOf(reporting, startedAt, io.projectDir);
  const unwritten = await write(file, artifact).then(
    () => null,
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  );
  print(reporting, artifact, io);
  // Last, for people and for programs; of two outputs the one that holds nothing else.
  const where = `Report: ${path.relative(io.projectDir, file)}`;
  if (unwritten !== null) {
    io.printError(`The report could not be written to ${file}: ${unwritten}`);
    // Whoever was promised a report and finds none must not take the run for a sound one.
    return EXIT_CODES.INCONCLUSIVE;
  }
  if (reporting.json) io.printError(where);
  else io.print(where);
  return EXIT_CODES[judged.verdict];
}

const inconclusive = (reason: string): Judged => ({ verdict: "INCONCLUSIVE", reasons: [reason] });

/** Whatever goes wrong with a run is no verdict on the deployment. */
async function judge(run: () => Promise<Judged>): Promise<Judged> {
  try {
    return await run();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return inconclusive(error instanceof UsageError ? message : `It could not run: ${message}`);
  }
}

function print<Findings extends object>(
  { json, render }: Reporting<Findings>,
  artifact: Head & Findings,
  io: Io,
): void {
  if (json) io.print(JSON.stringify(artifact, null, 2));
  else for (const line of render(artifact)) io.print(line);
}

function fileOf<Findings extends object>(
  { name, out }: Reporting<Findings>,
  startedAt: string,
  projectDir: string,
): string {
  const timestamp = startedAt.replaceAll(/[:.]/g, "-");
  return path.resolve(
    projectDir,
    out ?? path.join(".output", "reliability", `${name}-${timestamp}.json`),
  );
}

async function write(file: string, artifact: object): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true });
  // Whole or not at all: others read the folder while we write.
  const part = `${file}.${process.pid}.part`;
  await writeFile(part, `${JSON.stringify(artifact, null, 2)}\n`);
  await rename(part, file).catch(async (error: unknown) => {
    await rm(part, { force: true });
    throw error;
  });
}

const ASK_MS_MAX = 5_000;

/** What a deployment says of itself; a silent one is told by what the run finds. */
async function identify(
  { siteUrl, cloudUrl }: Target,
  signal: AbortSignal,
): Promise<Head["deployment"]> {
  const ask = async (url: string): Promise<string | null> => {
    try {
      const response = await fetch(url, { signal });
      return response.ok ? (await response.text()).slice(0, 1_000) : null;
    } catch {
      return null;
    }
  };
  const [name, health] = await Promise.all([
    ask(`${cloudUrl}/instance_name`),
    ask(`${siteUrl}/api/health`),
  ]);
  return { name, version: /"version":"([^"]{1,50})"/.exec(health ?? "")?.[1] ?? null };
}

/** The commit of the working tree; null outside of one. */
async function commitOf(projectDir: string): Promise<string | null> {
  const git = async (...args: string[]): Promise<string> =>
    (await promisify(execFile)("git", args, { cwd: projectDir })).stdout.trim();
  try {
    const [commit, changes] = await Promise.all([
      git("rev-parse", "HEAD"),
      git("status", "--porcelain", "--untracked-files=no"),
    ]);
    return changes === "" ? commit : `${commit}+`;
  } catch {
    return null;
  }
}
