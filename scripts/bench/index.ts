import { spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import path from "node:path";
import type { Io, Main } from "../main";
import { UsageError } from "../usage";
import { documentOf } from "./document";
import type { Bench } from "./figures";
import { loadOurs } from "./ours";
import { type Options, readOptions, USAGE } from "./options";
import { loadPeers } from "./peers";
import { contentionTable, figureTable, operationTable, rounded, type Results } from "./report";
import { inOrder, PARTS, rowOf, unmeasured, type Part } from "./rows";

const SEED_STEP = 1_000;
const BETWEEN_SEEDS = 10;
const MICROSECONDS_PER_SECOND = 1_000_000;

/** What a process that measures one part says on its last line. */
interface Said {
  readonly results: Results;
  readonly notes: readonly string[];
}

/**
 * `npm run bench`: what operations cost and how they fare under contention, ours beside the peers;
 * 1 when a bar is missed. A mistake in the flags is one line and 2, and nothing is measured.
 */
export const main: Main = async (argv, io) => {
  try {
    return await bench(readOptions(argv), io);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    io.printError(error.message);
    return 2;
  }
};

async function bench(options: Options, io: Io): Promise<number> {
  const { only } = options;
  if (options.help) for (const line of USAGE) io.print(line);
  if (options.help) return 0;
  if (options.part !== null) return measurePart(options.part, options, io);
  // Rows may be named by one of their figures.
  const onlyRows = only === null ? null : new Set([...only].map((id) => rowOf({ id })));
  const wanted = PARTS.filter(
    ({ rows }) => onlyRows === null || rows.some((row) => onlyRows.has(row)),
  );
  const said = await measureAll(wanted, options, io);
  const all = said.flatMap(({ results }) => results.figures);
  const results: Results = {
    figures: inOrder(all.filter((figure) => isWanted(figure, only))),
    operations: said.flatMap(({ results: { operations } }) => operations),
    contention: said.flatMap(({ results: { contention } }) => contention),
  };
  const { contention, figures, operations } = results;
  const unknown = [...(only ?? [])].filter(
    (id) => !figures.some((figure) => isWanted(figure, new Set([id]))),
  );
  if (unknown.length > 0) throw new UsageError(`There is no figure ${unknown.join(", ")}.`);
  if (options.json) io.print(JSON.stringify(figures.map(rounded)));
  else {
    for (const line of said.flatMap(({ notes }) => notes)) io.print(line);
    for (const line of figureTable(figures)) io.print(line);
    if (operations.length > 0) for (const line of operationTable(operations)) io.print(line);
    if (contention.length > 0) for (const line of contentionTable(contention)) io.print(line);
  }
  if (options.write) {
    const file = path.join(io.projectDir, "docs", "benchmarks.md");
    await writeFile(file, await documentOf(results, io.projectDir));
  }
  return figures.every(({ pass }) => pass) ? 0 : 1;
}

/** A row that could not be measured has one figure of its own name. */
const isWanted = (figure: { readonly id: string }, only: Options["only"]): boolean =>
  only === null ||
  [figure.id, rowOf(figure)].some((id) => only.has(id)) ||
  [...only].some((id) => rowOf({ id }) === figure.id);

/** One part here; several in as many processes at once as the machine has cores. */
async function measureAll(parts: readonly Part[], options: Options, io: Io): Promise<Said[]> {
  const [first] = parts;
  if (parts.length === 1 && first !== undefined) {
    const notes: string[] = [];
    const bench = await prepare(options, io, (line) => notes.push(line));
    return [{ results: await first.measure(bench), notes }];
  }
  const said = new Map<string, Said>();
  const waiting = [...parts];
  const work = async (): Promise<void> => {
    for (let part = waiting.shift(); part !== undefined; part = waiting.shift())
      said.set(part.id, await elsewhere(part, options, io));
  };
  await Promise.all(Array.from({ length: Math.min(parts.length, availableParallelism()) }, work));
  return parts.flatMap(({ id }) => said.get(id) ?? []);
}

async function measurePart(id: string, options: Options, io: Io): Promise<number> {
  const part = PARTS.find((candidate) => candidate.id === id);
  if (part === undefined) throw new Error(`There is no part ${id}.`);
  const notes: string[] = [];
  const bench = await prepare(options, io, (line) => notes.push(line));
  const results = await part.measure(bench);
  const { system, user } = process.cpuUsage();
  notes.push(
    `${id}: ${((system + user) / MICROSECONDS_PER_SECOND).toFixed(1)} s of processor time`,
  );
  const said: Said = { results, notes };
  io.print(JSON.stringify(said));
  return 0;
}

/** Measures a part in a process of its own. */
function elsewhere(part: Part, { seed, seeds }: Options, { projectDir }: Io): Promise<Said> {
  const bootstrap = path.join(projectDir, "scripts", "bootstrap.mjs");
  const script = path.join("scripts", "bench", "index.ts");
  const flags = ["--part", part.id, "--seed", String(seed), "--seeds", String(seeds)];
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [bootstrap, "run", script, ...flags], {
      cwd: projectDir,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const chunks: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
    child.on("error", reject);
    child.on("close", (exitCode) => {
      if (exitCode === 0) resolve(JSON.parse(Buffer.concat(chunks).toString()) as Said);
      else resolve({ results: unmeasured(part.rows, `code ${exitCode}`), notes: [] });
    });
  });
}

async function prepare(
  options: Options,
  { projectDir }: Io,
  note: (line: string) => void,
): Promise<Bench> {
  const memory = new Map<string, Promise<unknown>>();
  return {
    ours: await loadOurs(projectDir),
    peers: await loadPeers(projectDir),
    seeds: Array.from(
      { length: options.seeds },
      (_, i) => options.seed * SEED_STEP + i * BETWEEN_SEEDS,
    ),
    once: <T>(name: string, work: () => Promise<T>): Promise<T> => {
      const known = memory.get(name) ?? work();
      memory.set(name, known);
      return known as Promise<T>;
    },
    note,
  };
}
