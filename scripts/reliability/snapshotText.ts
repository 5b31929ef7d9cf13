import { list, number, record, text } from "../../src/sim/json";
import type { SnapshotReport } from "./artifacts";

type Section = Readonly<Record<string, unknown>>;

/** The snapshot as a person reads it: what is wrong, what to do, and the figures behind it. */
export function snapshotLines(report: SnapshotReport, dataDir: string | null): readonly string[] {
  const { baseUrl, environment, deployment, snapshot, reasons, verdict } = report;
  const version = deployment.version === null ? "" : `, version ${deployment.version}`;
  const where = `${baseUrl ?? "no target"}${environment === null ? "" : ` (${environment}${version})`}`;
  if (snapshot === null)
    return [`Reliability snapshot of ${where}`, "", `  ${verdict}`, ...bullets(reasons)];
  const minutes = number(snapshot["windowMinutes"]);
  return [
    `Reliability snapshot of ${where}, last ${minutes ?? "?"} minutes`,
    "",
    `  ${(report.snapshotVerdict ?? "no verdict").toUpperCase()}${reasons.length === 0 ? "  nothing is wrong" : ""}`,
    ...bullets(reasons),
    ...nextLines(report, dataDir),
    ...(environment === "embedded" ? ["", ...NOBODYS] : []),
    "",
    ...figures(snapshot).map(([name, figure]) => `  ${name.padEnd(12)}${figure}`),
    "",
  ];
}

/** Else an operator who forgot to name a deployment would take its verdict for theirs. */
const NOBODYS = [
  "  This host was started for the look alone, and knows of no traffic. Name a deployment with",
  "  --base-url or CONVEX_SELF_HOSTED_URL, or run npm start.",
];

const bullets = (sentences: readonly string[]): readonly string[] =>
  sentences.map((sentence) => `  - ${sentence}`);

function nextLines(
  { nextAction, environment }: SnapshotReport,
  dataDir: string | null,
): readonly string[] {
  const command = nextAction?.command ?? null;
  if (nextAction === null || command === null) return [];
  const { what, playbook } = nextAction;
  const where = dataDir === null ? "" : ` --data-dir ${dataDir}`;
  // A host on this machine is reached without an address and a key.
  const shown =
    environment === "local"
      ? `${command.replace("npx convex run", "npm run -s host -- run")}${where}`
      : command;
  const more = playbook === null ? [] : [`        ${playbook}`];
  return ["", `  Next: ${what}`, `        ${shown}`, ...more];
}

function figures(snapshot: Section): readonly (readonly [string, string])[] {
  const part = (name: string): Section => record(snapshot[name]);
  const lines: readonly (readonly [string, string | null])[] = [
    ["Circuits", circuits(part("circuitBreakers"))],
    ["Bulkheads", bulkheads(part("bulkheads"), record(part("config")["bulkheads"]))],
    ["Tool jobs", toolJobs(part("toolJobs"))],
    ["Refused", refused(part("rateLimitPressure"))],
    ["Alerts", counts(part("alerts"), ["active", "waiting", "undelivered"])],
    ["Replays", replays(part("replayProtection"))],
    ["Cache", cache(part("toolCache"))],
    ["Streams", counts(part("chatStreams"), ["streaming", "orphaned"])],
    ["Webhooks", counts(part("webhookInbox"), ["queued", "deadLetter"])],
    ["Objectives", objectives(snapshot["slo"])],
    ["Settings", settings(list(snapshot["configWarnings"]))],
    ["Cut short", list(snapshot["truncated"]).map(text).join(", ") || null],
  ];
  return lines.flatMap(([name, figure]) => (figure === null ? [] : [[name, figure] as const]));
}

function circuits(section: Section): string {
  const recent = list(section["recent"]).map(record);
  const not = recent.filter(({ state }) => state !== "closed");
  if (not.length === 0) return "all closed";
  return not
    .map(({ provider, state, cooldownUntil }) => {
      const probesAt = number(cooldownUntil);
      const until = probesAt === undefined ? "" : ` (probes from ${clock(probesAt)})`;
      return `${text(provider)} ${text(state)}${until}`;
    })
    .join(", ");
}

function bulkheads(section: Section, limitsOf: Section): string {
  const pools = Object.entries(record(section["inFlightByProvider"]));
  const used = pools.filter(([, inFlight]) => inFlight !== 0);
  const shown = used.map(([pool, inFlight]) => {
    const max = number(record(limitsOf[pool])["maxConcurrent"]);
    return `${pool} ${count(inFlight)}${max === undefined ? "" : ` of ${max}`}`;
  });
  return `${count(section["activeLeaseCount"])} in flight${shown.length === 0 ? "" : `: ${shown.join(", ")}`}`;
}

function toolJobs(section: Section): string {
  const byStatus = record(section["byStatus"]);
  const waits = number(section["oldestQueuedAgeMs"]);
  const age = waits === undefined || waits === 0 ? "" : `, the oldest waits ${duration(waits)}`;
  return `${counts(byStatus, ["queued", "running", "completed", "failed", "deadLetter"]) ?? "none"}${age}`;
}

function refused(section: Section): string {
  const shown = Object.entries(record(section["byBucketOutcome"]))
    .filter(([key]) => !key.endsWith(":allowed"))
    .map(([key, value]) => `${key.replace(":", " ")} ${count(value)}`);
  return shown.length === 0 ? "nothing" : shown.join(", ");
}

function replays(section: Section): string {
  const hits = number(section["duplicateHitsInWindow"]);
  return `${count(section["keysInWindow"])} keys${hits === undefined ? "" : `, ${hits} duplicates`}`;
}

function cache(section: Section): string {
  const spaces = Object.entries(record(section["byNamespace"])).map(([name, value]) => {
    const entries = number(value) ?? number(record(value)["entries"]);
    return `${name}${entries === undefined ? "" : ` ${entries}`}`;
  });
  return `${count(section["sampledActiveEntries"])} entries${spaces.length === 0 ? "" : ` (${spaces.join(", ")})`}`;
}

/** As a list or by name, for the summary only the ones that miss and how many were judged. */
function objectives(value: unknown): string | null {
  const all = (Array.isArray(value) ? list(value) : Object.values(record(value))).map(record);
  const results = all.filter(({ state }) => typeof state === "string");
  if (results.length === 0) return null;
  const of = (wanted: string) => results.filter(({ state }) => state === wanted);
  const missed = of("breached").map((result) => text(result["name"]) || text(result["key"]));
  const few = of("insufficient").length;
  const shown = missed.length === 0 ? "" : ` (${missed.join(", ")})`;
  return `${of("met").length} kept, ${missed.length} missed${shown}, ${few} with too little traffic`;
}

function settings(warnings: readonly unknown[]): string {
  const names = warnings.map((warning) => text(record(warning)["name"]) || text(warning));
  return names.length === 0 ? "all in use as set" : names.join(", ");
}

/** `queued 3, dead letter 1`; null where none of the names is there. */
function counts(section: Section, names: readonly string[]): string | null {
  const found = names.filter((name) => typeof section[name] === "number");
  const words = (name: string) => name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
  return found.map((name) => `${words(name)} ${count(section[name])}`).join(", ") || null;
}

const count = (value: unknown): number => number(value) ?? 0;

/** Time of day in UTC. */
const clock = (ms: number): string => `${new Date(ms).toISOString().slice(11, 19)} UTC`;

const duration = (ms: number): string =>
  ms < 120_000 ? `${Math.round(ms / 1_000)} s` : `${Math.round(ms / 60_000)} min`;
