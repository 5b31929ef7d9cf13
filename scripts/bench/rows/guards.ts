import { type Counted, together } from "../bound";
import { Backend, ContentionError } from "../engine/backend";
import { costOf } from "../engine/cost";
import type { Usage } from "../engine/billing";
import { atMost, mean, type Bench, type Figure, type Row } from "../figures";
import { arrive, COUNTED, simulated } from "../loads";
import { conflictLines } from "../contention";
import { ADMIT, allowing, guardVariables, protectedCall, refusing } from "../ours/guards";

const SLOTS = 100;
const CALLS = 200;
const PER_SECOND = 200;
const TRANSACTION_MS = 15;
const FOR_MS = 10_000;

/** Bytes of the tables whose names begin so. */
function bytesOf(usage: Usage, prefix: string): number {
  let bytes = 0;
  for (const [table, { bytesRead, bytesWritten }] of usage.tables) {
    if (table.startsWith(prefix)) bytes += bytesRead + bytesWritten;
  }
  return bytes;
}

function writesOf(usage: Usage, prefix: string): number {
  let writes = 0;
  for (const [table, { documentsWritten }] of usage.tables) {
    if (table.startsWith(prefix)) writes += documentsWritten;
  }
  return writes;
}

async function protectedCalls(bench: Bench): Promise<readonly Figure[]> {
  const variables = guardVariables(SLOTS);
  const backend = new Backend(bench.ours, { ...COUNTED, variables });
  let from = 0;
  await backend.within(async () => {
    const call = { holdMs: 0, limit: { name: "tb", key: "u1" } };
    // Long enough that every slot has its document.
    for (let i = 0; i < SLOTS * 10; i++) await protectedCall(backend, call);
    from = backend.calls.length;
    for (let i = 0; i < CALLS; i++) await protectedCall(backend, call);
  });
  const { calls, usage } = costOf(backend.calls.slice(from));
  for (const [table, of] of usage.tables) {
    bench.note(
      `T9 ${table}: ${of.documentsRead / CALLS} read, ${of.documentsWritten / CALLS} written, ${of.bytesRead / CALLS} + ${of.bytesWritten / CALLS} bytes`,
    );
  }
  const metricBytes = bytesOf(usage, "/metric");
  // Tables by their names: a name that is none would cost nothing.
  const breakers = ["circuitBreakers", "breakerProbes"].map((name) =>
    backend.app.tables.named(name),
  );
  return [
    atMost("T9.calls", "protected call (limit, breaker, bulkhead): calls", {
      ours: calls / CALLS,
      limit: 2,
    }),
    atMost("T9.bytes", "protected call: bytes without metrics", {
      ours: (usage.bytes - metricBytes) / CALLS,
      limit: 1_800,
    }),
    atMost("T9.withMetrics", "protected call: bytes with metrics", {
      ours: usage.bytes / CALLS,
      limit: 3_600,
    }),
    atMost("T9.breakerWrites", "protected call: breaker writes when healthy", {
      ours: breakers.reduce((sum, { name }) => sum + writesOf(usage, `/${name}`), 0) / CALLS,
      limit: 0,
    }),
  ];
}

interface Crowd {
  readonly holdMs: number;
  /** Calls that hold a slot from before the first arrival to after the last. */
  readonly heldThroughout: number;
}

interface Pressure {
  /** Calls that were not admitted and not refused either. */
  readonly lost: number;
  readonly calls: number;
  /** Admissions that the platform gave up, those asked for again among them. */
  readonly givenUp: Counted;
  /** Calls in flight beyond the pool's size, at worst. */
  readonly beyond: number;
  readonly refusedPct: number;
  readonly busyPct: number;
}

async function underPressure(
  bench: Bench,
  seed: number,
  { heldThroughout, holdMs }: Crowd,
): Promise<Pressure> {
  const backend = simulated(bench.ours, seed, guardVariables(SLOTS));
  let [inFlight, most, refused, lost, calls, heldMs] = [0, 0, 0, 0, 0, 0];
  // The pool fills up first, and empties at the end.
  const startMs = backend.clock.nowMs + 2 * TRANSACTION_MS * heldThroughout;
  const fromMs = startMs + 2 * holdMs;
  const toMs = startMs + FOR_MS;
  let sinceMs = fromMs;
  const step = (by: number): void => {
    const nowMs = Math.min(toMs, Math.max(fromMs, backend.clock.nowMs));
    heldMs += inFlight * (nowMs - sinceMs);
    sinceMs = nowMs;
    inFlight += by;
    most = Math.max(most, inFlight);
  };
  const watch = {
    admitted: () => {
      step(1);
    },
    settled: () => {
      step(-1);
    },
  };
  await backend.within(async () => {
    for (let held = 0; held < heldThroughout; held++) {
      void protectedCall(backend, { holdMs: 2 * FOR_MS }, watch);
      await backend.clock.sleep(2 * TRANSACTION_MS);
    }
    backend.stats.clear();
    calls = await arrive(backend, { perSecond: PER_SECOND, forMs: FOR_MS }, async () => {
      try {
        const admitted = await protectedCall(backend, { holdMs }, watch);
        if (!admitted) refused += 1;
      } catch (error) {
        if (!(error instanceof ContentionError)) throw error;
        lost += 1;
      }
    });
  });
  const { operations, terminal } = backend.statsOf(ADMIT);
  if (seed === bench.seeds[0]) for (const line of conflictLines(backend)) bench.note(line);
  return {
    lost,
    calls,
    givenUp: { events: terminal, trials: operations },
    beyond: Math.max(0, most - SLOTS),
    refusedPct: (100 * refused) / calls,
    busyPct: (100 * heldMs) / (SLOTS * (toMs - fromMs)),
  };
}

async function pressure(
  bench: Bench,
  id: string,
  what: string,
  crowd: Crowd,
): Promise<readonly Figure[]> {
  const runs: Pressure[] = [];
  for (const seed of bench.seeds) runs.push(await underPressure(bench, seed, crowd));
  const [refusedPct, busyPct] = [
    mean(runs.map((run) => run.refusedPct)),
    mean(runs.map((run) => run.busyPct)),
  ];
  const lost = together(runs.map(({ calls, lost }) => ({ events: lost, trials: calls })));
  const givenUp = together(runs.map((run) => run.givenUp));
  bench.note(`${id} refused ${refusedPct.toFixed(1)} %, busy ${busyPct.toFixed(1)} %`);
  return [
    atMost(`${id}.failed`, `admissions failed terminally ${what}, %`, {
      ours: mean(runs.map((run) => (100 * run.lost) / run.calls)),
      limit: 0,
      counted: [
        { what: "calls neither admitted nor refused", ...lost },
        { what: "admissions given up by the platform, to be asked for again", ...givenUp },
      ],
    }),
    atMost(`${id}.open`, `calls let through beyond the pool's size ${what}`, {
      ours: Math.max(...runs.map((run) => run.beyond)),
      limit: 0,
    }),
    // A guard that refused everybody would fail nobody.
    ...(crowd === BUSY
      ? [atMost(`${id}.idle`, `slots idle ${what}, %`, { ours: 100 - busyPct, limit: 2 })]
      : []),
  ];
}

const LIMITER = "rateLimit:checkAndIncrement";
const SHARDS = 64;

/** Bytes and writes of one call of a limiter, once its key is known. */
async function limiterCost(
  backend: Backend,
  path: string,
  args: Record<string, string | number | boolean>,
): Promise<Usage> {
  await backend.within(async () => {
    await backend.mutation(path, args);
    await backend.mutation(path, args);
  });
  const call = backend.calls.at(-1);
  if (call === undefined) throw new Error("The limiter was called.");
  return call.usage;
}

async function limiterCosts(bench: Bench): Promise<readonly Figure[]> {
  const key = "tb:u1";
  const ours = (args: ReturnType<typeof allowing>) =>
    limiterCost(new Backend(bench.ours, COUNTED), LIMITER, args);
  const theirs = (name: string) =>
    limiterCost(new Backend(bench.peers, COUNTED), "limiter:limit", { name, key: "u1" });
  const [allow, deny] = [await ours(allowing(key)), await ours(refusing(key))];
  const [theirAllow, theirDeny] = [await theirs("tb"), await theirs("tbDeny")];
  return [
    atMost("T11.allow", "limiter allows: bytes", {
      ours: allow.bytes,
      peer: theirAllow.bytes,
      limit: 380,
    }),
    atMost("T11.deny", "limiter refuses: bytes", {
      ours: deny.bytes,
      peer: theirDeny.bytes,
      limit: 135,
    }),
    atMost("T11.denyWrites", "limiter refuses: documents written", {
      ours: deny.documentsWritten,
      peer: theirDeny.documentsWritten,
      limit: 0,
    }),
  ];
}

/** Calls that make every shard of a key, so that none is made under load. */
const WARM_UP_CALLS = 600;

/** Share of attempts that conflicted on one key, and operations that were given up, in percent. */
async function hotKey(
  backend: Backend,
  path: string,
  args: Record<string, string | number | boolean>,
  perSecond: number,
): Promise<{
  readonly conflictPct: number;
  readonly terminalPct: number;
  readonly counted: Counted;
}> {
  await backend.within(async () => {
    for (let i = 0; i < WARM_UP_CALLS; i++) await backend.mutation(path, args);
    backend.stats.clear();
    await arrive(backend, { perSecond, forMs: FOR_MS }, async () => {
      await backend.mutation(path, args).catch(ignoreContention);
    });
  });
  const { attempts, conflicts, operations, terminal } = backend.statsOf(path);
  return {
    conflictPct: (100 * conflicts) / attempts,
    terminalPct: (100 * terminal) / operations,
    counted: { events: terminal, trials: operations },
  };
}

function ignoreContention(error: unknown): void {
  if (!(error instanceof ContentionError)) throw error;
}

async function hotLimit(bench: Bench, perSecond: number, limit: number): Promise<Figure[]> {
  const ours = [];
  const theirs = [];
  for (const seed of bench.seeds) {
    const shared = { ...allowing("tb:hot"), shared: true };
    const [our, their] = [simulated(bench.ours, seed), simulated(bench.peers, seed)];
    ours.push(await hotKey(our, LIMITER, shared, perSecond));
    const peer = { name: "tb64", key: "hot" };
    theirs.push(await hotKey(their, "limiter:limit", peer, perSecond));
    const shards = [
      our.app.tables.named("limits"),
      their.app.find("rateLimiter").tables.named("rateLimits"),
    ];
    for (const { documents, name } of shards)
      if (documents.size !== SHARDS) throw new Error(`${name} has ${documents.size} shards.`);
  }
  const id = `T12.conflicts@${perSecond}`;
  return [
    atMost(id, `one hot limit, 64 shards, ${perSecond}/s: conflicting attempts, %`, {
      ours: mean(ours.map(({ conflictPct }) => conflictPct)),
      peer: mean(theirs.map(({ conflictPct }) => conflictPct)),
      limit,
    }),
    atMost(`T12.terminal@${perSecond}`, `one hot limit, ${perSecond}/s: given up, %`, {
      ours: mean(ours.map(({ terminalPct }) => terminalPct)),
      peer: mean(theirs.map(({ terminalPct }) => terminalPct)),
      limit: 0,
      counted: [
        {
          what: "checks given up by the platform",
          ...together(ours.map(({ counted }) => counted)),
        },
      ],
    }),
  ];
}

const CLAIM = "idempotency:claimKey";

async function duplicates(bench: Bench): Promise<readonly Figure[]> {
  const args = { scope: "webhook", key: "message-1" };
  const counted = new Backend(bench.ours, COUNTED);
  const usage = await limiterCost(counted, CLAIM, args);
  const conflicts: number[] = [];
  for (const seed of bench.seeds) {
    conflicts.push((await hotKey(simulated(bench.ours, seed), CLAIM, args, 100)).conflictPct);
  }
  return [
    atMost("T13.reads", "duplicate idempotency key: documents read", {
      ours: usage.documentsRead,
      limit: 1,
    }),
    atMost("T13.writes", "duplicate idempotency key: documents written", {
      ours: usage.documentsWritten,
      limit: 0,
    }),
    atMost("T13.conflicts", "duplicate idempotency key at 100/s: conflicting attempts, %", {
      ours: mean(conflicts),
      limit: 0,
    }),
  ];
}

/** Held so long that 60 of 100 slots are busy on average. */
const USUAL: Crowd = { holdMs: 300, heldThroughout: 0 };
/** The same calls on the few slots that longer ones leave: together they keep 98 % busy. */
const BUSY: Crowd = { holdMs: 300, heldThroughout: 80 };
/** Held so long that a fifth more is asked for than there is, and many slots change hands. */
const CROWDED: Crowd = { holdMs: 590, heldThroughout: 0 };
/** Everybody wants the last few slots, and nearly everybody is refused. */
const FULL: Crowd = { holdMs: 300, heldThroughout: 97 };

/** In parts of their own: these take the longest. */
const pressureRow = (row: string, id: string, what: string, crowd: Crowd): Row => ({
  id,
  rows: [row],
  measure: (bench) => pressure(bench, id, `at 200/s, 100 slots${what}`, crowd),
});

export const guards: readonly Row[] = [
  pressureRow("T10b", "T10b", ", 98 % busy", BUSY),
  pressureRow("T10b", "T10b.crowded", ", a fifth too few", CROWDED),
  pressureRow("T10b", "T10b.full", ", 97 held throughout", FULL),
  pressureRow("T10", "T10", "", USUAL),
  { id: "T9", measure: protectedCalls },
  { id: "T11", measure: limiterCosts },
  {
    id: "T12",
    measure: async (bench) => [
      ...(await hotLimit(bench, 100, 3.8)),
      ...(await hotLimit(bench, 200, 7)),
    ],
  },
  { id: "T13", measure: duplicates },
];
