import { spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import path from "node:path";
import type { Io, Main } from "../main";
import { documentOf } from "./document";
import type { Bench } from "./figures";
import { loadOurs } from "./ours";
import { loadPeers } from "./peers";
import { contentionTable, figureTable, operationTable, rounded, type Results } from "./report";
import { inOrder, PARTS, rowOf, unmeasured, type Part } from "./rows";

const SEEDS = 10;
const SEED_STEP = 1_000;
const BETWEEN_SEEDS = 10;
const MICROSECONDS_PER_SECOND = 1_000_000;

interface Options {
  readonly json: boolean;
  readonly write: boolean;
  readonly only: ReadonlySet<string> | null;
  readonly seed: number;
  readonly seeds: number;
  /** The one part that a process started by another measures. */
  readonly part: string | null;
}

/** What a process that measures one part says on its last line. */
interface Said {
  readonly results: Results;
  readonly notes: readonly string[];
}

/**
 * `npm run bench`: what operations cost and how they fare under contention, ours beside the peers;
 * 1 when a bar is missed. `--only T1,T6` measures some rows of the table of bars, `--seed n` draws
 * other arrivals, `--seeds n` takes means over more or fewer runs than ten, `--json` prints the
 * figures as one array, `--write` puts everything into docs/benchmarks.md.
 */
export const main: Main = async (argv, io) => {
  const options = parse(argv);
  const { only } = options;
  if (options.part !== null) return measurePart(options.part, options, io);
  const wanted = PARTS.filter(({ rows }) => only === null || rows.some((row) => only.has(row)));
  const said = await measureAll(wanted, options, io);
  const all = said.flatMap(({ results }) => results.figures);
  const results: Results = {
    figures: inOrder(all.filter((figure) => only?.has(rowOf(figure)) !== false)),
    operations: said.flatMap(({ results: { operations } }) => operations),
    contention: said.flatMap(({ results: { contention } }) => contention),
  };
  const { contention, figures, operations } = results;
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
};

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

function parse(argv: readonly string[]): Options {
  const valueOf = (flag: string): string | undefined => {
    const at = argv.indexOf(flag);
    return at < 0 ? undefined : argv[at + 1];
  };
  const only = valueOf("--only");
  return {
    json: argv.includes("--json"),
    write: argv.includes("--write"),
    only: only === undefined ? null : new Set(only.split(",")),
    seed: Number(valueOf("--seed") ?? 1),
    seeds: Number(valueOf("--seeds") ?? SEEDS),
    part: valueOf("--part") ?? null,
  };
}
