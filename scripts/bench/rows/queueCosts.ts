import { Backend, type Call } from "../engine/backend";
import { costOf, type Cost } from "../engine/cost";
import { atMost, type Bench, type Figure, type Row } from "../figures";
import { COUNTED } from "../loads";
import { OurQueue, queueVariables } from "../ours/queue";
import { watch } from "../peers/jobs";

const SLOTS = 100;

interface IsolatedJob {
  readonly cost: Cost;
  /** Calls that began after the job was reported done. */
  readonly callsAfter: number;
}

/** One job alone on an idle system whose slots have all been used before, until nothing more happens. */
async function ourJob(bench: Bench, seed: number, fails: boolean): Promise<IsolatedJob> {
  const variables = queueVariables(SLOTS);
  const backend = new Backend(bench.ours, { ...COUNTED, seed, variables });
  const queue = new OurQueue(backend, { workMs: 0, ...(fails ? { failsOnce: [1] } : {}) });
  let from = 0;
  await backend.within(async () => {
    await queue.enqueueMany(1_000_000, 2 * SLOTS);
    await backend.clock.idle();
    from = backend.calls.length;
    await queue.enqueue(1);
    await backend.clock.idle();
  });
  if (queue.lost !== 0) throw new Error("The job was not done.");
  return isolatedJob(backend.calls.slice(from), "toolJobs:complete");
}

/** Which of the slots is free next to the random point decides what a job reads: the dearest counts. */
async function ourDearestJob(bench: Bench, fails: boolean): Promise<IsolatedJob> {
  const jobs: IsolatedJob[] = [];
  for (const seed of bench.seeds) jobs.push(await ourJob(bench, seed, fails));
  const dearer = (a: IsolatedJob, b: IsolatedJob) =>
    b.cost.calls > a.cost.calls || b.cost.usage.bytes > a.cost.usage.bytes ? b : a;
  return jobs.reduce(dearer);
}

function isolatedJob(calls: readonly Call[], completion: string): IsolatedJob {
  const done = calls.findLastIndex(({ label }) => label === completion);
  if (done < 0) throw new Error(`Nothing called ${completion}.`);
  return { cost: costOf(calls), callsAfter: calls.length - done - 1 };
}

async function poolJob(bench: Bench, fails: boolean): Promise<IsolatedJob> {
  const backend = new Backend(bench.peers, COUNTED);
  const job = { maxParallelism: SLOTS, retry: fails };
  watch.workMs = 0;
  watch.failsOnce = new Set(fails ? [1] : []);
  let from = 0;
  await backend.within(async () => {
    await backend.mutation("jobs:enqueue", { ...job, from: 0, to: 1 });
    await backend.clock.idle();
    from = backend.calls.length;
    await backend.mutation("jobs:enqueue", { ...job, from: 1, to: 2 });
    await backend.clock.idle();
  });
  return isolatedJob(backend.calls.slice(from), "workpool/complete:complete");
}

const isolated = (bench: Bench) =>
  bench.once("an isolated job", async () => {
    const [ours, peer] = [await ourDearestJob(bench, false), await poolJob(bench, false)];
    for (const [table, usage] of ours.cost.usage.tables) {
      bench.note(
        `T2 ${table}: ${usage.documentsRead} read, ${usage.documentsWritten} written, ${usage.bytesRead} + ${usage.bytesWritten} bytes`,
      );
    }
    bench.note(`T1 ${[...ours.cost.byFunction].map(([name, n]) => `${name} ${n}`).join(", ")}`);
    return { ours, peer };
  });

export const queueCosts: readonly Row[] = [
  {
    id: "T1",
    measure: async (bench): Promise<readonly Figure[]> => {
      const { ours, peer } = await isolated(bench);
      return [
        atMost("T1.calls", "isolated job, enqueue to idle again: calls", {
          ours: ours.cost.calls,
          peer: peer.cost.calls,
          limit: 3,
        }),
        atMost("T1.after", "isolated job: calls after it is done", {
          ours: ours.callsAfter,
          peer: peer.callsAfter,
          limit: 0,
        }),
      ];
    },
  },
  {
    id: "T2",
    measure: async (bench) => {
      const { ours, peer } = await isolated(bench);
      const [our, their] = [ours.cost.usage, peer.cost.usage];
      return [
        atMost("T2.read", "isolated job: documents read", {
          ours: our.documentsRead,
          peer: their.documentsRead,
          limit: 8,
        }),
        atMost("T2.written", "isolated job: documents written", {
          ours: our.documentsWritten,
          peer: their.documentsWritten,
          limit: 5,
        }),
        atMost("T2.bytes", "isolated job: bytes of database bandwidth", {
          ours: our.bytes,
          peer: their.bytes,
          limit: 2_600,
        }),
      ];
    },
  },
  {
    id: "T6",
    measure: async (bench) => {
      const [ours, peer] = [await ourDearestJob(bench, true), await poolJob(bench, true)];
      bench.note(`T6 ${[...ours.cost.byFunction].map(([name, n]) => `${name} ${n}`).join(", ")}`);
      return [
        atMost("T6.calls", "isolated job with one retry: calls", {
          ours: ours.cost.calls,
          peer: peer.cost.calls,
          limit: 6,
        }),
      ];
    },
  },
];
