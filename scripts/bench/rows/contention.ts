import { ContentionError, type Backend } from "../engine/backend";
import { mean, percentile, type Bench } from "../figures";
import { arrive, simulated } from "../loads";
import { allowing, guardVariables, protectedCall } from "../ours/guards";
import { OurQueue, queueVariables } from "../ours/queue";
import { TOOL_VARIABLES, upstreamOf } from "../ours/tool";
import { watch } from "../peers/jobs";

export const RATES = [10, 50, 100, 200] as const;
const FOR_MS = 10_000;
const SLOTS = 100;
const WORK_MS = 200;
const HOLD_MS = 300;
/** The table is for orientation: no bar hangs on it. */
export const TABLE_SEEDS = 3;
/** Calls before the clock starts, so that every shard has its document. */
const WARM_UP_CALLS = 300;

/** How one function fared at one rate, as means over the seeds. */
export interface Fared {
  readonly attempts: number;
  readonly terminalPct: number;
  readonly p50: number;
  readonly p99: number;
}

/** One line of the table: a function under each rate; null where it was not called. */
export interface ContentionLine {
  readonly side: "ours" | "peer";
  readonly what: string;
  readonly fared: readonly (Fared | null)[];
}

export interface Scenario {
  readonly id: string;
  readonly side: "ours" | "peer";
  /** The functions to tell of, and what they do here. */
  readonly functions: Readonly<Record<string, string>>;
  readonly variables?: Readonly<Record<string, string>>;
  readonly warmUp?: (backend: Backend) => Promise<unknown>;
  readonly start: (backend: Backend) => (i: number) => Promise<unknown>;
}

/** The same mutation with the same arguments again and again. */
function repeated(
  side: Scenario["side"],
  path: string,
  what: string,
  args: Record<string, string | number | boolean>,
): Scenario {
  return {
    id: `${path} ${JSON.stringify(args)}`,
    side,
    functions: { [path]: what },
    warmUp: async (backend) => {
      if (path === "bare:readPatch") await backend.mutation("bare:seed", { key: "a" });
      for (let i = 0; i < WARM_UP_CALLS; i++) await backend.mutation(path, args);
    },
    start: (backend) => () => backend.mutation(path, args),
  };
}

const LIMIT = "limiter:limit";
const OUR_LIMIT = "rateLimit:checkAndIncrement";

export const SCENARIOS: readonly Scenario[] = [
  repeated("peer", "bare:readPatch", "bare read and patch, one document", { key: "a" }),
  repeated("peer", LIMIT, "rate-limiter, one key", { name: "tb", key: "hot" }),
  repeated("ours", OUR_LIMIT, "limiter, one key", allowing("hot")),
  repeated("peer", LIMIT, "rate-limiter, one key, 64 shards", { name: "tb64", key: "hot" }),
  repeated("ours", OUR_LIMIT, "limiter, one key, 64 shards", { ...allowing("hot"), shared: true }),
  repeated("peer", LIMIT, "rate-limiter, one key, asynchronous (no hard cap)", {
    name: "tbAsync",
    key: "hot",
  }),
  repeated("ours", "idempotency:claimKey", "duplicate of one idempotency key", {
    scope: "webhook",
    key: "message-1",
  }),
  {
    id: "guards",
    side: "ours",
    functions: {
      "outbound:admit": "admission to a provider, 100 slots, 300 ms calls",
      "outbound:settle": "its settlement, with metrics",
    },
    variables: guardVariables(SLOTS),
    start: (backend) => () => protectedCall(backend, { holdMs: HOLD_MS }),
  },
  {
    id: "workpool",
    side: "peer",
    functions: {
      "jobs:enqueue": "workpool, enqueue, 200 ms jobs, parallelism 100",
      "workpool/complete:complete": "workpool, complete",
    },
    start: (backend) => {
      watch.workMs = WORK_MS;
      const job = { maxParallelism: SLOTS, retry: false };
      return (i) => backend.mutation("jobs:enqueue", { ...job, from: i, to: i + 1 });
    },
  },
  {
    id: "queue",
    side: "ours",
    functions: {
      "toolJobs:enqueue": "queue, enqueue, 200 ms jobs, 100 slots",
      "toolJobs:complete": "queue, complete",
    },
    variables: queueVariables(SLOTS),
    start: (backend) => {
      const queue = new OurQueue(backend, { workMs: WORK_MS });
      return (i) => queue.enqueue(i);
    },
  },
  {
    id: "action-cache",
    side: "peer",
    functions: { "actionCache/lib:put": "action-cache, storing one key, 200 ms producer" },
    start: (backend) => () => backend.action("cache:fetchCached", { key: "espresso" }),
  },
  {
    id: "cache",
    side: "ours",
    functions: {
      "toolJobs:enqueue": "tool cache, misses of one key, 200 ms upstream",
    },
    variables: TOOL_VARIABLES,
    start: (backend) => {
      upstreamOf(backend);
      return () => backend.action("bench:callTool", { query: "espresso" });
    },
  },
];

/** Runs one scenario at every rate and with every seed. */
export async function fare(bench: Bench, scenario: Scenario): Promise<ContentionLine[]> {
  const byRate: Backend[][] = [];
  for (const perSecond of RATES) {
    const backends: Backend[] = [];
    for (const seed of bench.seeds.slice(0, TABLE_SEEDS))
      backends.push(await run(bench, scenario, perSecond, seed));
    byRate.push(backends);
  }
  return Object.entries(scenario.functions).map(([label, what]) => ({
    side: scenario.side,
    what,
    fared: byRate.map((backends) => faredIn(backends, label)),
  }));
}

async function run(
  bench: Bench,
  scenario: Scenario,
  perSecond: number,
  seed: number,
): Promise<Backend> {
  const app = scenario.side === "ours" ? bench.ours : bench.peers;
  const backend = simulated(app, seed, scenario.variables);
  await backend.within(async () => {
    await scenario.warmUp?.(backend);
    backend.stats.clear();
    const operation = scenario.start(backend);
    await arrive(backend, { perSecond, forMs: FOR_MS }, async (i) => {
      await operation(i).catch((error: unknown) => {
        // What an action makes of it carries the same words.
        if (!(error instanceof ContentionError) && !isContention(error)) throw error;
      });
    });
  });
  backend.forget();
  return backend;
}

const isContention = (error: unknown): boolean =>
  error instanceof Error && error.message.includes("changed while this mutation was being run");

function faredIn(backends: readonly Backend[], label: string): Fared | null {
  const stats = backends.flatMap((backend) => backend.stats.get(label) ?? []);
  if (stats.length === 0) return null;
  return {
    attempts: mean(stats.map(({ attempts, operations }) => attempts / operations)),
    terminalPct: mean(stats.map(({ operations, terminal }) => (100 * terminal) / operations)),
    p50: mean(stats.map(({ latenciesMs }) => percentile(latenciesMs, 0.5))),
    p99: mean(stats.map(({ latenciesMs }) => percentile(latenciesMs, 0.99))),
  };
}
