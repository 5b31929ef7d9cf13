import type { Main } from "../main";
import type { Bench, Figure, Row } from "./figures";
import { loadOurs } from "./ours";
import { loadPeers } from "./peers";
import { cache } from "./rows/cache";
import { guards } from "./rows/guards";
import { queueCosts } from "./rows/queueCosts";
import { queueLoads } from "./rows/queueLoads";

const ROWS: readonly Row[] = [...queueCosts, ...queueLoads, ...guards, ...cache];
const SEEDS = 10;
const DIGITS = 3;

interface Options {
  readonly json: boolean;
  readonly only: ReadonlySet<string> | null;
  readonly seed: number;
  readonly seeds: number;
}

/**
 * `npm run bench`: what operations cost and how they fare under contention, ours beside the peers;
 * 1 when a bar is missed. `--only T1,T6` measures some rows, `--seed n` draws other arrivals,
 * `--seeds n` means over fewer or more runs than ten, `--json` prints the figures as one array.
 */
export const main: Main = async (argv, io) => {
  const options = parse(argv);
  const note = (line: string): void => {
    if (!options.json) io.print(line);
  };
  const memory = new Map<string, Promise<unknown>>();
  const bench: Bench = {
    ours: await loadOurs(io.projectDir),
    peers: await loadPeers(io.projectDir),
    seeds: Array.from({ length: options.seeds }, (_, i) => options.seed * 1_000 + i * 10),
    once: <T>(name: string, work: () => Promise<T>): Promise<T> => {
      const known = memory.get(name) ?? work();
      memory.set(name, known);
      return known as Promise<T>;
    },
    note,
  };
  const figures: Figure[] = [];
  for (const row of ROWS) {
    if (options.only?.has(row.id) === false) continue;
    figures.push(...(await measured(row, bench)));
  }
  if (options.json) io.print(JSON.stringify(figures.map(rounded)));
  else for (const figure of figures) io.print(lineOf(figure));
  return figures.every(({ pass }) => pass) ? 0 : 1;
};

/** A row that cannot be measured is a miss, and the others are measured all the same. */
async function measured(row: Row, bench: Bench): Promise<readonly Figure[]> {
  try {
    return await row.measure(bench);
  } catch (error) {
    const what = `not measured: ${error instanceof Error ? error.message : String(error)}`;
    return [{ id: row.id, what, ours: null, peer: null, limit: 0, pass: false }];
  }
}

function parse(argv: readonly string[]): Options {
  const valueOf = (flag: string): string | undefined => {
    const at = argv.indexOf(flag);
    return at < 0 ? undefined : argv[at + 1];
  };
  const only = valueOf("--only");
  return {
    json: argv.includes("--json"),
    only: only === undefined ? null : new Set(only.split(",")),
    seed: Number(valueOf("--seed") ?? 1),
    seeds: Number(valueOf("--seeds") ?? SEEDS),
  };
}

const round = (value: number | null): number | null =>
  value === null ? null : Number(value.toFixed(DIGITS));

function rounded({ id, what, ours, peer, limit, pass }: Figure): Figure {
  return { id, what, ours: round(ours), peer: round(peer), limit, pass };
}

function lineOf(figure: Figure): string {
  const { id, what, ours, peer, limit, pass } = rounded(figure);
  return `${pass ? "ok  " : "MISS"} ${id}: ${ours ?? "not measured"}, at most ${limit}; peer ${peer ?? "-"} (${what})`;
}
