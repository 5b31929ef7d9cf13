/** What must be true of the rows of the job queue after every commit, and when all is over. */
import { expect } from "vitest";
import type { Backend } from "../../../scripts/bench/engine/backend";
import { PLACE, QOS_CODES, type QosCode, standingOf } from "../../../src/core/queue";

interface JobRow {
  readonly _id: string;
  readonly p: string;
  readonly t: string;
  readonly f: number;
  readonly b?: number;
  readonly m?: number;
  readonly l?: string;
  readonly g?: number;
  readonly x?: string;
  readonly v?: boolean;
}

interface SlotRow {
  readonly _id: string;
  readonly p: string;
  readonly i: number;
  readonly e: number;
  readonly f: number;
  readonly n?: string;
}

interface StripeRow extends Readonly<Record<QosCode, number>> {
  readonly t: string;
  readonly z: number;
}

interface ScheduledRow {
  readonly _id: string;
  readonly name: string;
  readonly args: readonly { readonly toolName?: string }[];
  readonly state: { readonly kind: string };
}

interface Queue {
  readonly nowMs: number;
  readonly jobs: readonly JobRow[];
  readonly slots: readonly SlotRow[];
  readonly stripes: readonly StripeRow[];
  readonly payloads: readonly { readonly jobId: string }[];
  /** Scheduled functions that will run, or are running. */
  readonly due: readonly ScheduledRow[];
}

/** What is committed now. */
export function queueOf(backend: Backend): Queue {
  // Documents are JSON here; what a row looks like is the schema's.
  const rows = <Row>(table: string): Row[] => backend.documents(table) as unknown as Row[];
  const scheduled = [...backend.app.tables.scheduledFunctions.documents.values()].map(
    ({ value }) => value as unknown as ScheduledRow,
  );
  return {
    nowMs: backend.clock.nowMs,
    jobs: rows<JobRow>("toolJobs"),
    slots: rows<SlotRow>("slots").filter(({ p }) => p.startsWith("tool:")),
    stripes: rows<StripeRow>("toolJobStripes"),
    payloads: rows<{ readonly jobId: string }>("toolJobPayloads"),
    due: scheduled.filter(({ state }) => ["pending", "inProgress"].includes(state.kind)),
  };
}

export const deadLettersOf = ({ jobs }: Queue): string[] =>
  jobs.filter(({ p }) => p === PLACE.deadLetter || p === PLACE.deferred).map(({ _id }) => _id);

/** The last claim of a job. */
export const fenceOf = ({ jobs }: Queue, jobId: string): number | undefined =>
  jobs.find(({ _id }) => _id === jobId)?.f;

/** Jobs whose slot was given away before they were taken back. */
export const overtakenIn = ({ jobs, slots }: Queue): number => {
  const fences = new Map(slots.map(({ _id, f }) => [_id, f]));
  return jobs.filter(({ g, l = "", p }) => p === PLACE.running && fences.get(l) !== g).length;
};

/** Holds after every commit. `sizes` is how many of a tool may run, or might when they started. */
export function checkAlways(queue: Queue, sizes: ReadonlyMap<string, number>): void {
  const { jobs, slots, stripes } = queue;
  expect(new Set(slots.map(({ i, p }) => `${p}:${i}`)).size).toBe(slots.length);
  expect(countsOf(stripes)).toEqual(lineOf(jobs));
  for (const [tool, size] of sizes) expect(holdersOf(queue, tool)).toBeLessThanOrEqual(size);
  const slotOf = new Map(slots.map((slot) => [slot._id, slot]));
  const nexts = jobs.filter(({ p }) => p === PLACE.next);
  for (const { _id, l = "" } of nexts) expect(slotOf.get(l)?.n).toBe(_id);
  expect(slots.filter(({ n }) => n !== undefined)).toHaveLength(nexts.length);
  for (const { b = 0, f, m = 2 } of jobs) expect(f - b).toBeLessThanOrEqual(m);
  checkSomebodyComes(queue);
}

/** Running jobs that still have their slot. */
function holdersOf({ jobs, nowMs, slots }: Queue, tool: string): number {
  const busy = new Map(slots.filter(({ e }) => e > nowMs).map(({ _id, f }) => [_id, f]));
  return jobs.filter(
    ({ g, l = "", p, t }) => t === tool && p === PLACE.running && busy.get(l) === g,
  ).length;
}

const countsOf = (stripes: readonly StripeRow[]): Record<string, number> =>
  Object.fromEntries(
    stripes.flatMap((row) =>
      QOS_CODES.filter((qos) => row[qos] !== 0).map((qos) => [
        `${row.t} ${qos} ${row.z}`,
        row[qos],
      ]),
    ),
  );

function lineOf(jobs: readonly JobRow[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { p } of jobs) {
    const at = standingOf(p);
    if (at === null) continue;
    const place = `${at.tool} ${at.qos} ${at.stripe}`;
    counts[place] = (counts[place] ?? 0) + 1;
  }
  return counts;
}

const SCHEDULED: readonly string[] = [PLACE.running, PLACE.backingOff, PLACE.deferred];

/** Whatever is not over has somebody who comes for it, without any other call. */
function checkSomebodyComes({ due, jobs }: Queue): void {
  const scheduled = new Set(due.map(({ _id }) => _id));
  const running = new Set(jobs.filter(({ p }) => p === PLACE.running).map(({ t }) => t));
  const served = new Set(
    due.filter(({ name }) => name === "toolJobs:serveLine").map(({ args }) => args[0]?.toolName),
  );
  for (const { p, t, x = "" } of jobs) {
    if (SCHEDULED.includes(p)) expect([p, scheduled.has(x)]).toEqual([p, true]);
    if (p === PLACE.next || standingOf(p) !== null)
      expect([p, running.has(t) || served.has(t)]).toEqual([p, true]);
  }
}

const OVER = {
  completed: PLACE.completed,
  failed: PLACE.failed,
  cancelled: PLACE.cancelled,
  deadLetter: PLACE.deadLetter,
} as const;

/** Nobody came any more: every job is over, once, counted where it is, and nothing else is left. */
export function checkEnd(
  { due, jobs, nowMs, payloads, slots, stripes }: Queue,
  seen: {
    /** Jobs that were accepted. */
    readonly accepted: number;
    /** Completions that were told to be kept, by job. */
    readonly completions: ReadonlyMap<string, number>;
    readonly tools: readonly string[];
    /** What `getQueueStats` says. */
    readonly stats: unknown;
  },
): void {
  const over: readonly string[] = Object.values(OVER);
  expect(jobs.filter(({ p }) => !over.includes(p))).toEqual([]);
  expect(jobs).toHaveLength(seen.accepted);
  expect(slots.filter(({ e, n }) => e > nowMs || n !== undefined)).toEqual([]);
  expect([stripes, due]).toEqual([[], []]);
  expect(payloads.map(({ jobId }) => jobId).sort()).toEqual(
    jobs
      .filter(({ v }) => v === true)
      .map(({ _id }) => _id)
      .sort(),
  );
  for (const { _id, p } of jobs)
    expect([p, seen.completions.get(_id) ?? 0]).toEqual([p, p === PLACE.completed ? 1 : 0]);
  for (const tool of seen.tools) {
    const at = (place: string) => jobs.filter(({ p, t }) => p === place && t === tool).length;
    const counts = Object.entries(OVER).map(([status, place]) => [status, at(place)] as const);
    expect(seen.stats).toMatchObject({
      byTool: { [tool]: { queued: 0, running: 0, ...Object.fromEntries(counts) } },
    });
  }
}
