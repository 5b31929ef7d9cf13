import { Backend, type Call } from "../engine/backend";
import { costOf } from "../engine/cost";
import type { Bench } from "../figures";
import { COUNTED } from "../loads";
import { beBusy } from "../ours/activity";
import { allowing, guardVariables, protectedCall, refusing } from "../ours/guards";
import { OurQueue, queueVariables } from "../ours/queue";
import { TOOL_VARIABLES, upstreamOf } from "../ours/tool";
import { watch } from "../peers/jobs";

/** What one operation costs, with everything it sets off. */
export interface OperationLine {
  readonly side: "ours" | "peer";
  readonly what: string;
  readonly calls: number;
  readonly documentsRead: number;
  readonly documentsWritten: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
}

interface Operation {
  readonly side: "ours" | "peer";
  readonly what: string;
  /** By how many the cost is divided. */
  readonly per?: number;
  readonly variables?: Readonly<Record<string, string>>;
  /** Brings the system to where it usually is. */
  readonly before?: (backend: Backend) => Promise<unknown>;
  readonly work: (backend: Backend) => Promise<unknown>;
  /** Calls that are the caller's own, and no cost of the operation. */
  readonly except?: (call: Call) => boolean;
}

const SLOTS = 100;
const BATCH = 100;
const LIMIT = "limiter:limit";
const OUR_LIMIT = "rateLimit:checkAndIncrement";
const CLAIM = "idempotency:claimKey";
const SHARDS_WARM = 600;
const ROUNDS = 20;

async function times(n: number, work: () => Promise<unknown>): Promise<void> {
  for (let i = 0; i < n; i++) await work();
}

const limit = (what: string, name: string, before: number): Operation => {
  const call = (backend: Backend) => backend.mutation(LIMIT, { name, key: "u1" });
  return {
    side: "peer",
    what,
    before: (backend) => times(before, () => call(backend)),
    work: call,
  };
};

const ourLimit = (what: string, args: ReturnType<typeof allowing>, before: number): Operation => {
  const call = (backend: Backend) => backend.mutation(OUR_LIMIT, args);
  return {
    side: "ours",
    what,
    before: (backend) => times(before, () => call(backend)),
    work: call,
  };
};

function poolJobs(what: string, jobs: number, fails = false): Operation {
  const enqueue = (backend: Backend, from: number, to: number) =>
    backend.mutation("jobs:enqueue", { from, to, maxParallelism: SLOTS, retry: fails });
  return {
    side: "peer",
    what,
    per: jobs,
    before: (backend) => enqueue(backend, 1_000_000, 1_000_001),
    work: (backend) => {
      watch.workMs = 0;
      watch.failsOnce = new Set(fails ? [0] : []);
      return enqueue(backend, 0, jobs);
    },
  };
}

function ourJobs(
  what: string,
  run: (queue: OurQueue) => Promise<unknown>,
  options: { readonly jobs?: number; readonly fails?: boolean } = {},
): Operation {
  const { fails = false, jobs = 1 } = options;
  const queues = new WeakMap<Backend, OurQueue>();
  return {
    side: "ours",
    what,
    per: jobs,
    variables: queueVariables(SLOTS),
    before: async (backend) => {
      const queue = new OurQueue(backend, { workMs: 0, ...(fails ? { failsOnce: [0] } : {}) });
      queues.set(backend, queue);
      // Every slot has its document before.
      await queue.enqueueMany(1_000_000, 2 * SLOTS);
      await backend.clock.idle();
    },
    work: async (backend) => {
      const queue = queues.get(backend);
      if (queue !== undefined) await run(queue);
    },
  };
}

const callTool = (backend: Backend) => backend.action("bench:callTool", { query: "espresso" });
const fetchCached = (backend: Backend) => backend.action("cache:fetchCached", { key: "espresso" });
const isAction = ({ kind }: Call): boolean => kind === "action";

const OPERATIONS: readonly Operation[] = [
  {
    side: "peer",
    what: "bare read and patch",
    before: (backend) => backend.mutation("bare:seed", { key: "a" }),
    work: (backend) => backend.mutation("bare:readPatch", { key: "a" }),
  },
  limit("rate-limiter, allow", "tb", 1),
  limit("rate-limiter, refuse", "tbDeny", 1),
  limit("rate-limiter, allow, 64 shards", "tb64", SHARDS_WARM),
  limit("rate-limiter, allow, asynchronous, isolated until idle", "tbAsync", 1),
  ourLimit("limiter, allow", allowing("tb:u1"), 1),
  ourLimit("limiter, refuse", refusing("tb:u1"), 1),
  ourLimit("limiter, allow, 64 shards", { ...allowing("tb:u1"), ...{ shared: true } }, SHARDS_WARM),
  {
    side: "ours",
    what: "protected call: limit, breaker, bulkhead, settlement with metrics",
    variables: guardVariables(SLOTS),
    before: (backend) => times(10 * SLOTS, () => protectedCall(backend, { holdMs: 0 })),
    work: (backend) => protectedCall(backend, { holdMs: 0, limit: { name: "tb", key: "u1" } }),
  },
  {
    side: "ours",
    what: "idempotency key, first",
    work: (backend) => backend.mutation(CLAIM, { scope: "webhook", key: "message-1" }),
  },
  {
    side: "ours",
    what: "idempotency key, duplicate",
    before: (backend) => backend.mutation(CLAIM, { scope: "webhook", key: "message-1" }),
    work: (backend) => backend.mutation(CLAIM, { scope: "webhook", key: "message-1" }),
  },
  poolJobs("workpool, isolated job until idle", 1),
  poolJobs("workpool, isolated job with one retry until idle", 1, true),
  poolJobs("workpool, batch of 100, per job", BATCH),
  ourJobs("queue, isolated job until idle", (queue) => queue.enqueue(0)),
  ourJobs("queue, isolated job run by its caller", (queue) => queue.enqueueAndRun(0)),
  ourJobs("queue, isolated job with one retry until idle", (queue) => queue.enqueue(0), {
    fails: true,
  }),
  ourJobs("queue, batch of 100, per job", (queue) => queue.enqueueMany(0, BATCH), { jobs: BATCH }),
  {
    side: "peer",
    what: "action-cache, hit (without the caller)",
    before: fetchCached,
    work: fetchCached,
    except: isAction,
  },
  {
    side: "peer",
    what: "action-cache, miss (without caller and producer)",
    work: fetchCached,
    except: isAction,
  },
  {
    side: "ours",
    what: "tool cache, hit (without the caller)",
    variables: TOOL_VARIABLES,
    before: (backend) => {
      upstreamOf(backend);
      return callTool(backend);
    },
    work: callTool,
    except: isAction,
  },
  {
    side: "ours",
    what: "tool cache, miss: job, protected upstream call and stored answer (without the caller)",
    variables: TOOL_VARIABLES,
    before: (backend) => {
      upstreamOf(backend);
      return backend.action("bench:callTool", { query: "another" });
    },
    work: callTool,
    except: isAction,
  },
  {
    side: "ours",
    what: "operator's snapshot, after a little of everything",
    variables: queueVariables(SLOTS),
    before: (backend) => beBusy(backend, ROUNDS),
    work: (backend) => backend.query("ops:getReliabilitySnapshot", {}),
  },
];

export async function countOperations(bench: Bench): Promise<OperationLine[]> {
  const lines: OperationLine[] = [];
  for (const operation of OPERATIONS) lines.push(await count(bench, operation));
  return lines;
}

async function count(bench: Bench, operation: Operation): Promise<OperationLine> {
  const { before, except = () => false, per = 1, side, variables = {}, what, work } = operation;
  const app = side === "ours" ? bench.ours : bench.peers;
  const backend = new Backend(app, { ...COUNTED, variables });
  let from = 0;
  await backend.within(async () => {
    await before?.(backend);
    await backend.clock.idle();
    from = backend.calls.length;
    await work(backend);
    await backend.clock.idle();
  });
  const { calls, usage } = costOf(backend.calls.slice(from).filter((call) => !except(call)));
  return {
    side,
    what,
    calls: calls / per,
    documentsRead: usage.documentsRead / per,
    documentsWritten: usage.documentsWritten / per,
    bytesRead: usage.bytesRead / per,
    bytesWritten: usage.bytesWritten / per,
  };
}
