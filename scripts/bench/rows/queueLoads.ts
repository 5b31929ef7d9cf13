import { conflictLines } from "../contention";
import { Backend, ContentionError } from "../engine/backend";
import { costOf } from "../engine/cost";
import { atMost, mean, percentile, type Bench, type Figure, type Row } from "../figures";
import { arrive, COUNTED, nameOf, simulated, type Load } from "../loads";
import { OurQueue, queueVariables } from "../ours/queue";
import { watch } from "../peers/jobs";

const SLOTS = 100;
const WORK_MS = 200;
const FOR_MS = 10_000;

interface Run {
  readonly startP50: number;
  readonly startP99: number;
  readonly doneP99: number;
  readonly attempts: number;
  readonly terminal: number;
  readonly enqueues: number;
  readonly lost: number;
  readonly runningMax: number;
}

interface Options {
  readonly load: Load;
  readonly slots: number;
  /** How many may wait; those refused come again until they are accepted. */
  readonly waiting?: number;
}

const ENQUEUE = "toolJobs:enqueue";
const COME_AGAIN_MS = 1_000;

async function ourRun(bench: Bench, seed: number, options: Options): Promise<Run> {
  const { load, slots, waiting } = options;
  const backend = simulated(bench.ours, seed, queueVariables(slots, waiting));
  const queue = new OurQueue(backend, { workMs: WORK_MS });
  await backend.within(async () => {
    await arrive(backend, load, async (i) => {
      for (;;) {
        try {
          if ((await queue.enqueue(i)) === "accepted") return;
        } catch (error) {
          if (!(error instanceof ContentionError)) throw error;
        }
        await backend.clock.sleep(COME_AGAIN_MS * backend.random());
      }
    });
    await backend.clock.idle();
  });
  if (seed === bench.seeds[0]) {
    bench.note(`queue, ${slots} slots, ${nameOf(load)}:`);
    for (const line of conflictLines(backend)) bench.note(line);
  }
  const { attempts, operations, terminal } = backend.statsOf(ENQUEUE);
  const [start, done] = [queue.startLatenciesMs(), queue.doneLatenciesMs()];
  return {
    startP50: percentile(start, 0.5),
    startP99: percentile(start, 0.99),
    doneP99: percentile(done, 0.99),
    attempts: attempts / operations,
    terminal,
    enqueues: operations,
    lost: queue.lost,
    runningMax: queue.times.runningMax,
  };
}

async function poolRun(bench: Bench, seed: number, { load, slots }: Options): Promise<Run> {
  const backend = simulated(bench.peers, seed);
  const enqueued = new Map<number, number>();
  const done = new Map<number, number>();
  watch.workMs = WORK_MS;
  watch.startedAtMs = new Map();
  watch.doneAtMs = done;
  await backend.within(async () => {
    await arrive(backend, load, async (i) => {
      const job = { from: i, to: i + 1, maxParallelism: slots, retry: false };
      try {
        await backend.mutation("jobs:enqueue", job);
        enqueued.set(i, backend.clock.nowMs);
      } catch (error) {
        if (!(error instanceof ContentionError)) throw error;
      }
    });
    await backend.clock.idle();
  });
  const since = (ends: ReadonlyMap<number, number>) =>
    [...enqueued].flatMap(([i, atMs]) => {
      const endMs = ends.get(i);
      return endMs === undefined ? [] : [endMs - atMs];
    });
  const { attempts, operations, terminal } = backend.statsOf("jobs:enqueue");
  const start = since(watch.startedAtMs);
  return {
    startP50: percentile(start, 0.5),
    startP99: percentile(start, 0.99),
    doneP99: percentile(since(done), 0.99),
    attempts: attempts / operations,
    terminal,
    enqueues: operations,
    lost: enqueued.size - done.size,
    runningMax: slots,
  };
}

interface Under {
  readonly ours: readonly Run[];
  readonly peer: readonly Run[];
}

/** Ours and the pool's under one load, with every seed. */
async function under(bench: Bench, options: Options): Promise<Under> {
  const ours: Run[] = [];
  const peer: Run[] = [];
  for (const seed of bench.seeds) {
    ours.push(await ourRun(bench, seed, options));
    peer.push(await poolRun(bench, seed, options));
  }
  return { ours, peer };
}

const of = (all: readonly Run[], figure: keyof Run): number => mean(all.map((run) => run[figure]));

const both = ({ ours, peer }: Under, figure: keyof Run) => ({
  ours: of(ours, figure),
  peer: of(peer, figure),
});

const total = (all: readonly Run[], figure: keyof Run): number =>
  all.reduce((sum, run) => sum + run[figure], 0);

/** No accepted job may be lost, and none may run beyond the pool's size, under any load. */
function kept(
  options: Options,
  id: string,
  { ours, peer }: { ours: readonly Run[]; peer?: readonly Run[] },
): Figure[] {
  const at = `${nameOf(options.load)}, ${options.slots} slots`;
  const beyond = Math.max(...ours.map(({ runningMax }) => runningMax - options.slots));
  return [
    atMost(`T7.lost@${id}`, `lost or stranded jobs, ${at}`, {
      ours: total(ours, "lost"),
      peer: peer === undefined ? null : total(peer, "lost"),
      limit: 0,
    }),
    atMost(`T7.beyond@${id}`, `jobs running beyond the pool's size, ${at}`, {
      ours: Math.max(0, beyond),
      limit: 0,
    }),
  ];
}

function startLatency(at: string, id: string, runs: Under): Figure[] {
  return [
    atMost(`T5.p50@${id}`, `start latency at ${at}, P50, ms`, {
      ...both(runs, "startP50"),
      limit: 15,
    }),
    atMost(`T5.p99@${id}`, `start latency at ${at}, P99, ms`, {
      ...both(runs, "startP99"),
      limit: 40,
    }),
  ];
}

function enqueueing(at: string, id: string, runs: Under, limit: number): Figure[] {
  return [
    atMost(`T8.attempts@${id}`, `enqueue attempts, ${at}, ${SLOTS} slots`, {
      ...both(runs, "attempts"),
      limit,
    }),
    atMost(`T8.terminal@${id}`, `enqueues given up, ${at}`, {
      ours: total(runs.ours, "terminal"),
      peer: total(runs.peer, "terminal"),
      limit: 0,
      counted: [
        {
          what: "enqueues given up by the platform",
          events: total(runs.ours, "terminal"),
          trials: total(runs.ours, "enqueues"),
        },
      ],
    }),
  ];
}

/** Arrivals at a rate into a pool with room for them. */
const steady = (perSecond: number, limit: number): Row => {
  const id = String(perSecond);
  const options = { load: { perSecond, forMs: FOR_MS }, slots: SLOTS };
  return {
    id: `queue at ${perSecond}/s`,
    rows: ["T5", "T7", "T8"],
    measure: async (bench) => {
      const runs = await under(bench, options);
      const at = nameOf(options.load);
      return [
        ...startLatency(at, id, runs),
        ...kept(options, id, runs),
        ...enqueueing(at, id, runs, limit),
      ];
    },
  };
};

const burst: Row = {
  id: "queue, burst of 50",
  rows: ["T7", "T8"],
  measure: async (bench) => {
    const options = { load: { burst: 50 }, slots: SLOTS };
    const runs = await under(bench, options);
    return [
      ...kept(options, "burst", runs),
      ...enqueueing(nameOf(options.load), "burst", runs, 1.4),
    ];
  },
};

const twice: Row = {
  id: "queue, burst of 200",
  rows: ["T7", "T18"],
  measure: async (bench) => {
    const options = { load: { burst: 2 * SLOTS }, slots: SLOTS };
    const runs = await under(bench, options);
    return [
      ...kept(options, "twice", runs),
      atMost("T18.doneP99", "burst of twice the capacity, 200 ms jobs: done P99, ms (a target)", {
        ...both(runs, "doneP99"),
        limit: 488,
      }),
    ];
  },
};

/** More than the pool can do, without and with refusals. The pool of the peer never refuses. */
const saturated = (id: string, waiting: number): Row => ({
  id: `queue, saturated, ${waiting} may wait`,
  rows: ["T7"],
  measure: async (bench) => {
    const options = { load: { perSecond: 60, forMs: FOR_MS / 2 }, slots: 10, waiting };
    const ours: Run[] = [];
    for (const seed of bench.seeds) ours.push(await ourRun(bench, seed, options));
    return kept(options, id, { ours });
  },
});

const BATCH_SHARE_MIN = 0.9;
const DEPTHS = [100, 1_000, 10_000];

/** Calls and bytes per job of many jobs enqueued in one mutation and drained. */
async function ourBatch(
  bench: Bench,
  jobs: number,
  slots: number,
): Promise<{ readonly calls: number; readonly bytes: number }> {
  const backend = new Backend(bench.ours, { ...COUNTED, variables: queueVariables(slots) });
  const queue = new OurQueue(backend, { workMs: WORK_MS });
  let [from, accepted] = [0, 0];
  await backend.within(async () => {
    // Every slot has its document before.
    await queue.enqueueMany(1_000_000, 2 * slots);
    await backend.clock.idle();
    from = backend.calls.length;
    accepted = await queue.enqueueMany(0, jobs);
    await backend.clock.idle();
  });
  // The room for waiting jobs is the sum of its stripes': close to the brim one may be full.
  if (accepted < BATCH_SHARE_MIN * jobs) throw new Error(`Only ${accepted} of ${jobs} accepted.`);
  if (queue.lost !== 0) throw new Error(`${queue.lost} of ${jobs} jobs were lost.`);
  const { byFunction, calls, usage } = costOf(backend.calls.slice(from));
  bench.note(`T3 ${jobs} jobs, ${slots} slots: ${[...byFunction].map(String).join(" ")}`);
  for (const [table, { bytesRead, bytesWritten, documentsRead, documentsWritten }] of usage.tables)
    bench.note(
      `  ${table} per job: ${(documentsRead / accepted).toFixed(2)} read, ${(documentsWritten / accepted).toFixed(2)} written, ${(bytesRead / accepted).toFixed(0)} + ${(bytesWritten / accepted).toFixed(0)} bytes`,
    );
  return { calls: calls / accepted, bytes: usage.bytes / accepted };
}

async function poolBatch(
  bench: Bench,
  jobs: number,
  slots: number,
): Promise<{ readonly calls: number; readonly bytes: number }> {
  const backend = new Backend(bench.peers, COUNTED);
  watch.workMs = WORK_MS;
  let from = 0;
  await backend.within(async () => {
    const job = { maxParallelism: slots, retry: false };
    await backend.mutation("jobs:enqueue", { ...job, from: 1_000_000, to: 1_000_001 });
    await backend.clock.idle();
    from = backend.calls.length;
    await backend.mutation("jobs:enqueue", { ...job, from: 0, to: jobs });
    await backend.clock.idle();
  });
  const { calls, usage } = costOf(backend.calls.slice(from));
  return { calls: calls / jobs, bytes: usage.bytes / jobs };
}

async function batches(bench: Bench): Promise<Figure[]> {
  const batch = {
    ours: await ourBatch(bench, 100, SLOTS),
    peer: await poolBatch(bench, 100, SLOTS),
  };
  const backlog = {
    ours: await ourBatch(bench, 1_000, SLOTS),
    peer: await poolBatch(bench, 1_000, SLOTS),
  };
  const figures: Figure[] = [];
  for (const [id, what, { ours, peer }] of [
    ["batch", "batch of 100", batch],
    ["backlog", "backlog of 1,000", backlog],
  ] as const) {
    figures.push(
      atMost(`T3.calls@${id}`, `${what}: calls per job`, {
        ours: ours.calls,
        peer: peer.calls,
        limit: 1.1,
      }),
      atMost(`T3.bytes@${id}`, `${what}: bytes per job`, {
        ours: ours.bytes,
        peer: peer.bytes,
        limit: 3_200,
      }),
    );
  }
  const atDepth: number[] = [];
  for (const depth of DEPTHS) atDepth.push((await ourBatch(bench, depth, 10)).bytes);
  const dearest = Math.max(...atDepth);
  figures.push(
    atMost("T3.bytes@depth", "bytes per job at the dearest depth from 100 to 10,000, 10 slots", {
      ours: dearest,
      limit: 3_200,
    }),
    atMost("T3.flat", "bytes per job at depths of 100, 1,000 and 10,000, 10 slots: % apart", {
      ours: 100 * (dearest / Math.min(...atDepth) - 1),
      limit: 10,
    }),
  );
  return figures;
}

/** Scheduler hops before the first line of a job's work, on an idle system. */
async function hops(bench: Bench): Promise<Figure[]> {
  const hopsOf = async (enqueue: (queue: OurQueue) => Promise<unknown>): Promise<number> => {
    const backend = new Backend(bench.ours, { ...COUNTED, variables: queueVariables(SLOTS) });
    const queue = new OurQueue(backend, { workMs: 0 });
    await backend.within(async () => {
      await enqueue(queue);
      await backend.clock.idle();
    });
    if (queue.times.doneMs.size !== 1) throw new Error("The job was not done.");
    return Math.max(...backend.calls.filter(({ kind }) => kind === "action").map((c) => c.hops), 0);
  };
  const pool = new Backend(bench.peers, COUNTED);
  watch.workMs = 0;
  await pool.within(async () => {
    const job = { maxParallelism: SLOTS, retry: false, from: 0, to: 1 };
    await pool.mutation("jobs:enqueue", job);
    await pool.clock.idle();
  });
  const peer = pool.calls.find(({ label }) => label === "jobs:job")?.hops ?? null;
  return [
    atMost("T4.queued", "scheduler hops to start with free capacity, queued", {
      ours: await hopsOf((queue) => queue.enqueue(0)),
      peer,
      limit: 1,
    }),
    atMost("T4.callerRuns", "scheduler hops to start with free capacity, run by the caller", {
      ours: await hopsOf((queue) => queue.enqueueAndRun(0)),
      limit: 0,
    }),
  ];
}

export const queueLoads: readonly Row[] = [
  { id: "T3", measure: batches },
  { id: "T4", measure: hops },
  steady(10, 1.02),
  steady(100, 1.06),
  burst,
  twice,
  saturated("queued", 10_000),
  saturated("refused", 40),
];
