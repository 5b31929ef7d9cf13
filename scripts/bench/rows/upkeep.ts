import { readKnob } from "../../../src/config/read";
import { env } from "../../../src/config/env";
import { DAY, HOUR, MINUTE } from "../../../src/core/time";
import { Backend } from "../engine/backend";
import { cronsOf } from "../engine/crons";
import { atMost, type Bench, type Figure, type Row } from "../figures";
import { COUNTED, simulated } from "../loads";
import {
  beBusy,
  endTrouble,
  fillCache,
  GROWING_TABLES,
  haveTrouble,
  MINUTE_TABLES,
} from "../ours/activity";
import { OurQueue, queueVariables } from "../ours/queue";

const SNAPSHOT = "ops:getReliabilitySnapshot";
const SLOTS = 10;
const BASE_ENTRIES = 50;
const STEP_MS = MINUTE;

interface Snapshot {
  readonly documents: number;
  readonly bytes: number;
}

/** The snapshot at its widest, with so many rows of everything that grows. */
async function snapshotAt(
  bench: Bench,
  { entries, jobs }: { readonly jobs: number; readonly entries: number },
): Promise<Snapshot> {
  const backend = new Backend(bench.ours, { ...COUNTED, variables: queueVariables(SLOTS) });
  await backend.within(async () => {
    await haveTrouble(backend, SLOTS);
    await fillCache(backend, BASE_ENTRIES);
    const times = (table: string, rows: number) =>
      Math.ceil(rows / backend.documents(table).length) - 1;
    const others = GROWING_TABLES.filter((name) => name !== "toolResultCache");
    backend.multiply(others, times("toolJobs", jobs), STEP_MS);
    backend.multiply(["toolResultCache"], times("toolResultCache", entries), STEP_MS);
    // As if nothing had folded them for an hour.
    backend.multiply(MINUTE_TABLES, HOUR / STEP_MS, STEP_MS);
    await backend.query(SNAPSHOT, {});
    await backend.query(SNAPSHOT, { minutes: 1_440, limit: 200 });
  });
  const [usual, widest] = backend.calls.slice(-2).map(({ usage }) => usage);
  if (usual === undefined || widest === undefined) throw new Error("two were read");
  const [rows, cached] = ["toolJobs", "toolResultCache"].map((t) => backend.documents(t).length);
  bench.note(
    `T15 ${rows} jobs, ${cached} entries: ${usual.documentsRead} documents and ${usual.bytes} bytes, at its widest ${widest.documentsRead} and ${widest.bytes}`,
  );
  for (const [table, of] of widest.tables)
    bench.note(`  ${table}: ${of.documentsRead} read, ${of.bytesRead} bytes`);
  return { documents: widest.documentsRead, bytes: widest.bytes };
}

async function snapshots(bench: Bench): Promise<readonly Figure[]> {
  const small = await snapshotAt(bench, { jobs: 10_000, entries: 500 });
  const large = await snapshotAt(bench, { jobs: 100_000, entries: 5_000 });
  return [
    atMost("T15.documents", "snapshot with 100,000 jobs and 5,000 large cache entries: documents", {
      ours: large.documents,
      limit: 500,
    }),
    atMost("T15.bytes", "snapshot with 100,000 jobs and 5,000 large cache entries: bytes", {
      ours: large.bytes,
      limit: 256_000,
    }),
    atMost("T15.constant", "snapshot: documents more than with a tenth of the rows", {
      ours: Math.max(0, large.documents - small.documents),
      limit: 0,
    }),
  ];
}

/** Longer than anything is kept. */
const LONG_MS = 100 * DAY;
const COPIES = 40;
const TABLES = [...GROWING_TABLES, ...MINUTE_TABLES];
const MEBIBYTE = 1_024 * 1_024;

async function retention(bench: Bench): Promise<readonly Figure[]> {
  const backend = new Backend(bench.ours, { ...COUNTED, variables: queueVariables(SLOTS) });
  let from = 0;
  await backend.within(async () => {
    await haveTrouble(backend, SLOTS);
    await endTrouble(backend);
    await fillCache(backend, BASE_ENTRIES);
    backend.multiply(TABLES, COPIES - 1, STEP_MS);
    await backend.clock.sleep(LONG_MS);
    from = backend.calls.length;
    // What was not over is ended by the first run, alerts about it by the next, and deleted by a later.
    for (let run = 0; run < 3; run++) {
      for (const [, { args, fn }] of cronsOf(backend.app)) await backend.runCron(fn, args);
      await backend.clock.sleep(LONG_MS);
    }
  });
  let [rows, bytes] = [0, 0];
  for (const { label, outcome, usage } of backend.calls.slice(from)) {
    if (outcome === "failed") bench.note(`T16 ${label} failed`);
    rows = Math.max(rows, usage.documentsWritten);
    bytes = Math.max(bytes, usage.bytesRead);
  }
  const left = [...TABLES, "rollups"].map((name) => ({
    name,
    rows: backend.app.tables.find(name)?.documents.size ?? 0,
  }));
  for (const { name, rows: some } of left) if (some > 0) bench.note(`T16 ${some} left in ${name}`);
  return [
    atMost("T16.rows", "retention: documents deleted or changed per transaction", {
      ours: rows,
      limit: 500,
    }),
    atMost("T16.bytes", "retention: MiB read per transaction", {
      ours: bytes / MEBIBYTE,
      limit: 4,
    }),
    atMost("T16.left", "retention: rows long expired that the crons leave", {
      ours: left.reduce((sum, { rows: some }) => sum + some, 0),
      limit: 0,
    }),
  ];
}

/** How long after its lease ended the job of a worker that died runs again. */
async function crashes(bench: Bench): Promise<readonly Figure[]> {
  const leaseMs = readKnob(env, "TOOL_JOB_LEASE_MS");
  let worstMs = 0;
  for (const seed of bench.seeds) {
    const backend = simulated(bench.ours, seed, queueVariables(10));
    const queue = new OurQueue(backend, { workMs: 100, crashesOnce: [0] });
    await backend.within(async () => {
      await queue.enqueue(0);
      await backend.clock.idle();
    });
    const [first = 0, again = Infinity] = queue.times.attemptsMs;
    worstMs = Math.max(worstMs, again - first - leaseMs);
  }
  return [
    atMost("T17.afterLease", "a crashed worker's job runs again: seconds after its lease ended", {
      ours: worstMs / 1_000,
      limit: 15,
    }),
  ];
}

async function idleness(bench: Bench): Promise<readonly Figure[]> {
  const backend = simulated(bench.ours, bench.seeds[0] ?? 1, queueVariables(10));
  let from = 0;
  await backend.within(async () => {
    await beBusy(backend, 20);
    await backend.clock.sleep(MINUTE);
    from = backend.calls.length;
    await backend.runCrons(10 * MINUTE);
  });
  const calls = backend.calls.slice(from).filter(({ kind }) => kind === "mutation");
  bench.note(`T19 ${calls.length} mutations of crons and others in 10 minutes`);
  return [
    atMost("T19.mutations", "an idle deployment: mutations besides crons in 10 minutes", {
      // What a cron goes on with by itself is none of its own.
      ours: calls.filter(({ hops, isCron }) => !isCron || hops > 0).length,
      limit: 0,
    }),
  ];
}

export const upkeep: readonly Row[] = [
  { id: "T15", measure: snapshots },
  { id: "T16", measure: retention },
  { id: "T17", measure: crashes },
  { id: "T19", measure: idleness },
];
