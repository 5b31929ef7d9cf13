import { mkdir, rm } from "node:fs/promises";
import path from "node:path";
import { parseArgs } from "node:util";
import { convexTest } from "convex-test";
import { makeFunctionReference } from "convex/server";
import { startHost, type Host } from "../../src/host";
import type { Io, Main } from "../main";
import { mistakeIn, UsageError, wholeNumber } from "../usage";
import * as items from "./functions/items";
import schema from "./functions/schema";

// The bars are ratios within one run, so that a slow machine does not fail them.
const SMALL_DOCUMENTS = 1_000;
const MIDDLE_DOCUMENTS = 10_000;
const LARGE_DOCUMENTS = 1_000_000;
const MOCK_RATIO_MIN = 50;
const SIZE_RATIO_MIN = 0.7;
const START_MS_MAX = 2_000;

const USAGE = [
  "Usage: npm run bench:host -- [flags]",
  `  --documents <n>   makes the large table smaller for a quick look, ${LARGE_DOCUMENTS} by default`,
  "Exit code: 0 every bar holds, 1 one is missed, 2 the flags make no sense.",
];

const CLIENTS = 64;
// Many short windows in turn: what else the machine does then falls on both sides alike.
const WINDOW_MS = 500;
const WINDOWS = 15;
const MOCK_WINDOWS = 5;
// The first windows compile code and touch pages for the first time.
const WARM_UP_WINDOWS = 5;
const MOCK_WINDOW_MS = 1_000;
const FILL_BATCH = 4_000;

interface Bar {
  readonly name: string;
  readonly value: number;
  readonly holds: boolean;
  readonly wanted: string;
}

type Call = (name: string, key: number) => Promise<unknown>;

/**
 * `npm run bench:host`: mutations and queries per second of the embedded host against the official
 * mock, the same functions on both; 1 when a bar is missed, 2 when the flags make no sense.
 * The flags are in `USAGE`. No flag takes a seed: time is the machine's own.
 */
export const main: Main = async (argv, io) => {
  try {
    const { documents, help } = flagsIn(argv);
    if (!help) return await measure(documentsIn(documents), io);
    for (const line of USAGE) io.print(line);
    return 0;
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    io.printError(error.message);
    return 2;
  }
};

/** How many documents the large table is to have. Throws `UsageError`. */
function documentsIn(text: string | undefined): number {
  const bounds = { min: SMALL_DOCUMENTS, max: LARGE_DOCUMENTS };
  return wholeNumber("--documents", text, bounds) ?? LARGE_DOCUMENTS;
}

function flagsIn(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        documents: { type: "string" },
        help: { type: "boolean", short: "h", default: false },
      },
    }).values;
  } catch (error) {
    throw new UsageError(mistakeIn(error, "bench:host"));
  }
}

async function measure(large: number, io: Io): Promise<number> {
  const dir = path.join(io.projectDir, ".output", "tmp", `bench-host-${process.pid}`);
  const functionsDir = path.join(io.projectDir, "scripts", "bench", "functions");
  await mkdir(dir, { recursive: true });
  const hosts: Host[] = [];
  const open = async (name: string) => {
    const host = await startHost({ functionsDir, dataDir: path.join(dir, name) });
    hosts.push(host);
    return host;
  };
  try {
    const bars: Bar[] = [];
    const middle = await open("middle");
    await fill(middle, MIDDLE_DOCUMENTS);
    bars.push(
      await againstMock(middle, (line) => {
        io.print(line);
      }),
    );
    const small = await open("small");
    await fill(small, SMALL_DOCUMENTS);
    let big = await open("large");
    const filledMs = await timed(() => fill(big, large));
    io.print(`filled ${large} documents in ${(filledMs / 1_000).toFixed(1)} s`);
    await big.close();
    const startMs = await timed(async () => {
      big = await open("large");
      const answer = await big.run("items:look", { key: 1 });
      if (answer === null) throw new Error("The documents are gone after the restart.");
    });
    bars.push({
      name: `start with ${large} documents to the first answer, ms`,
      value: startMs,
      holds: startMs < START_MS_MAX,
      wanted: `< ${START_MS_MAX}`,
    });
    bars.push(
      await acrossSizes({ small, big, large }, (line) => {
        io.print(line);
      }),
    );
    for (const { name, value, wanted, holds } of bars) {
      io.print(`${holds ? "ok  " : "MISS"} ${name}: ${value.toFixed(2)} (wanted ${wanted})`);
    }
    return bars.every(({ holds }) => holds) ? 0 : 1;
  } finally {
    for (const host of hosts) await host.close();
    await rm(dir, { recursive: true, force: true });
  }
}

async function againstMock(host: Host, print: (line: string) => void): Promise<Bar> {
  const mock = convexTest(schema, {
    "./_generated/api.js": () => Promise.resolve({}),
    "./items.js": () => Promise.resolve(items),
  });
  const onMock: Call = (name, key) =>
    mock.mutation(makeFunctionReference<"mutation">(name), { key });
  await mock.mutation(makeFunctionReference<"mutation">("items:fill"), {
    from: 0,
    to: MIDDLE_DOCUMENTS,
  });
  const onHostRate = (name: string) => rate(onHost(host), name, MIDDLE_DOCUMENTS, WINDOW_MS);
  const mockRates: number[] = [];
  const hostRates: number[] = [];
  const queryRates: number[] = [];
  for (let i = -WARM_UP_WINDOWS; i < MOCK_WINDOWS; i++) {
    const hostRate = await onHostRate("items:bump");
    const queryRate = await onHostRate("items:look");
    if (i < 0) continue;
    hostRates.push(hostRate);
    queryRates.push(queryRate);
    mockRates.push(await rate(onMock, "items:bump", MIDDLE_DOCUMENTS, MOCK_WINDOW_MS));
  }
  const [hostRate, queryRate, mockRate] = [hostRates, queryRates, mockRates].map(median) as [
    number,
    number,
    number,
  ];
  print(
    `${MIDDLE_DOCUMENTS} documents: host ${hostRate.toFixed(0)} mutations/s and ${queryRate.toFixed(0)} queries/s, mock ${mockRate.toFixed(0)} mutations/s`,
  );
  const ratio = hostRate / mockRate;
  return {
    name: `mutations/s at ${MIDDLE_DOCUMENTS} documents, times the mock's`,
    value: ratio,
    holds: ratio >= MOCK_RATIO_MIN,
    wanted: `>= ${MOCK_RATIO_MIN}`,
  };
}

async function acrossSizes(
  { small, big, large }: { small: Host; big: Host; large: number },
  print: (line: string) => void,
): Promise<Bar> {
  const ratios: number[] = [];
  const rates: [number, number][] = [];
  for (let i = -WARM_UP_WINDOWS; i < WINDOWS; i++) {
    const atSmall = await rate(onHost(small), "items:bump", SMALL_DOCUMENTS, WINDOW_MS);
    const atLarge = await rate(onHost(big), "items:bump", large, WINDOW_MS);
    if (i < 0) continue;
    rates.push([atSmall, atLarge]);
    ratios.push(atLarge / atSmall);
  }
  print(
    `mutations/s: ${median(rates.map(([rateSmall]) => rateSmall)).toFixed(0)} at ${SMALL_DOCUMENTS} documents, ${median(rates.map(([, rateLarge]) => rateLarge)).toFixed(0)} at ${large}`,
  );
  const value = median(ratios);
  return {
    name: `mutations/s at ${large} documents, times those at ${SMALL_DOCUMENTS}`,
    value,
    holds: value >= SIZE_RATIO_MIN,
    wanted: `>= ${SIZE_RATIO_MIN}`,
  };
}

function onHost(host: Host): Call {
  return (name, key) => host.run(name, { key });
}

/**
 * Calls per second of many clients, one call after the other. Each takes random keys of its own, so
 * that conflicts, which depend on the number of documents, do not count.
 */
async function rate(
  call: Call,
  name: string,
  documents: number,
  windowMs: number,
): Promise<number> {
  const startMs = performance.now();
  const endMs = startMs + windowMs;
  let calls = 0;
  const keysPerClient = Math.floor(documents / CLIENTS);
  const client = async (_: unknown, place: number) => {
    while (performance.now() < endMs) {
      await call(name, place + CLIENTS * Math.floor(Math.random() * keysPerClient));
      calls += 1;
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
  return (calls / (performance.now() - startMs)) * 1_000;
}

async function fill(host: Host, documents: number): Promise<void> {
  for (let from = 0; from < documents; from += FILL_BATCH) {
    await host.run("items:fill", { from, to: Math.min(from + FILL_BATCH, documents) });
  }
}

async function timed(work: () => Promise<void>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? 0;
}
