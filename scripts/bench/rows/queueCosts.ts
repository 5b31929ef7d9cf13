import { Backend } from "../engine/backend";
import { costOf, type Cost } from "../engine/cost";
import { atMost, type Bench, type Figure, type Row } from "../figures";
import { COUNTED } from "../loads";
import { OurQueue, queueVariables } from "../ours/queue";
import { watch } from "../peers/jobs";

const SLOTS = 100;

interface IsolatedJob {
  readonly cost: Cost;
  /** Calls that began after the job was done. */
  readonly callsAfter: number;
  readonly hops: number;
}

/** One job alone on an idle system, until nothing more happens. */
async function ourJob(bench: Bench, fails: boolean): Promise<IsolatedJob> {
  const variables = queueVariables(SLOTS);
  const backend = new Backend(bench.ours, { ...COUNTED, variables });
  const queue = new OurQueue(backend, { workMs: 0, ...(fails ? { failsOnce: [1] } : {}) });
  let from = 0;
  await backend.within(async () => {
    // The first job makes the slot's document.
    await queue.enqueue(0);
    await backend.clock.idle();
    from = backend.calls.length;
    await queue.enqueue(1);
    await backend.clock.idle();
  });
  const calls = backend.calls.slice(from);
  const doneMs = queue.times.doneMs.get(1) ?? Infinity;
  return {
    cost: costOf(calls),
    callsAfter: calls.filter(({ startedMs }) => startedMs > doneMs).length,
    hops: calls.find(({ label }) => label === "toolRuns:run")?.hops ?? 0,
  };
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
  const calls = backend.calls.slice(from);
  const last = calls.map(({ label }) => label).lastIndexOf("workpool/complete:complete");
  // The loop still takes note of the completion; from there on it does nothing but look.
  const completedMs = calls[last]?.startedMs ?? Infinity;
  return {
    cost: costOf(calls),
    callsAfter: calls.filter(({ startedMs }) => startedMs > completedMs).length,
    hops: calls.find(({ label }) => label === "jobs:job")?.hops ?? 0,
  };
}

const isolated = (bench: Bench) =>
  bench.once("an isolated job", async () => {
    const [ours, peer] = [await ourJob(bench, false), await poolJob(bench, false)];
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
      const [ours, peer] = [await ourJob(bench, true), await poolJob(bench, true)];
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
