import { spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import path from "node:path";
import type { Io, Main } from "../main";
import { documentOf } from "./document";
import { type Bench, type Figure, seedsOf } from "./figures";
import { asksFor, asksForRow, type Options, readOptions, rowOf, USAGE } from "./options";
import { loadOurs } from "./ours";
import { loadPeers } from "./peers";
import {
  boundTable,
  contentionTable,
  figureTable,
  operationTable,
  rounded,
  type Results,
} from "./report";
import { inOrder, NOTHING, PARTS, unmeasured, type Part } from "./rows";
import { UsageError } from "../usage";

const MICROSECONDS_PER_SECOND = 1_000_000;

/** What a process that measures one part says on its last line. */
interface Said {
  readonly results: Results;
  readonly notes: readonly string[];
  /** Why there are no results. */
  readonly failure?: string;
}

/**
 * `npm run bench`: what operations cost and how they fare under contention, ours beside the peers;
 * 1 when a bar is missed. The flags are in `USAGE`.
 */
export const main: Main = async (argv, io) => {
  try {
    const options = readOptions(argv);
    if (options.part !== null) return await measurePart(options.part, options, io);
    if (!options.help) return await run(options, io);
    for (const line of USAGE) io.print(line);
    return 0;
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    io.printError(error.message.endsWith(".") ? error.message : `${error.message}.`);
    return 2;
  }
};

async function run(options: Options, io: Io): Promise<number> {
  const { only } = options;
  const wanted = PARTS.filter(
    ({ rows }) => only === null || only.some((id) => rows.some((row) => asksForRow(id, row))),
  );
  const said = await measureAll(wanted, options, io);
  const results: Results = {
    figures: chosen(
      said.flatMap(({ results: { figures } }) => figures),
      only,
    ),
    operations: said.flatMap(({ results: { operations } }) => operations),
    contention: said.flatMap(({ results: { contention } }) => contention),
  };
  const { contention, figures, operations } = results;
  if (options.json) io.print(JSON.stringify(figures.map(rounded)));
  else {
    for (const line of said.flatMap(({ notes }) => notes)) io.print(line);
    for (const line of figureTable(figures)) io.print(line);
    if (figures.some(({ counted }) => counted !== undefined))
      for (const line of boundTable(figures)) io.print(line);
    if (operations.length > 0) for (const line of operationTable(operations)) io.print(line);
    if (contention.length > 0) for (const line of contentionTable(contention)) io.print(line);
  }
  const failures = said.flatMap(({ failure }) => failure ?? []);
  for (const failure of failures) io.printError(failure);
  if (options.write && failures.length === 0) {
    const file = path.join(io.projectDir, "docs", "benchmarks.md");
    await writeFile(file, await documentOf(results, options.seed, io.projectDir));
  }
  return failures.length === 0 && figures.every(({ pass }) => pass) ? 0 : 1;
}

/** The figures asked for. Which ones a row has is known once it is measured. */
function chosen(all: readonly Figure[], only: Options["only"]): Figure[] {
  const figures = inOrder(all);
  if (only === null) return figures;
  // What a row could not measure stands for all of its figures.
  const asked = (id: string, figure: Figure): boolean =>
    asksFor(id, figure) || (figure.ours === null && asksForRow(id, rowOf(figure.id)));
  const nothing = only.filter((id) => !figures.some((figure) => asked(id, figure)));
  if (nothing.length > 0)
    throw new UsageError(
      `--only asks for ${nothing.join(", ")}; the figures there are ${figures.map(({ id }) => id).join(", ")}`,
    );
  return figures.filter((figure) => only.some((id) => asked(id, figure)));
}

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
      else resolve(without(part, exitCode));
    });
  });
}

/** A part whose process died: its rows are misses, and its tables are not there. */
function without(part: Part, exitCode: number | null): Said {
  const why = `its process ended with code ${exitCode}`;
  const failure = `${part.id} was not measured: ${why}.`;
  const { rows } = part;
  return { results: rows.length === 0 ? NOTHING : unmeasured(part, why), notes: [], failure };
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
    seeds: seedsOf(options),
    once: <T>(name: string, work: () => Promise<T>): Promise<T> => {
      const known = memory.get(name) ?? work();
      memory.set(name, known);
      return known as Promise<T>;
    },
    note,
  };
}
