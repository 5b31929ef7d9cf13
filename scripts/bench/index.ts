import path from "node:path";
import type { Main } from "../main";
import { loadFunctions } from "./engine/load";
import type { Bench, Figure, Row } from "./figures";
import { loadPeers } from "./peers";
import { queueCosts } from "./rows/queueCosts";

const ROWS: readonly Row[] = [...queueCosts];
const SEEDS = 10;
const DIGITS = 3;

interface Options {
  readonly json: boolean;
  readonly only: ReadonlySet<string> | null;
  readonly seed: number;
}

/**
 * `npm run bench`: what operations cost and how they fare under contention, ours beside the peers;
 * 1 when a bar is missed. `--only T1,T6` measures some rows, `--seed n` draws other arrivals,
 * `--json` prints the figures as one array.
 */
export const main: Main = async (argv, io) => {
  const options = parse(argv);
  const note = (line: string): void => {
    if (!options.json) io.print(line);
  };
  const functionsDir = path.join(io.projectDir, "convex");
  const memory = new Map<string, Promise<unknown>>();
  const bench: Bench = {
    ours: await loadFunctions(io.projectDir, functionsDir),
    peers: await loadPeers(io.projectDir),
    seeds: Array.from({ length: SEEDS }, (_, i) => options.seed * 1_000 + i * 10),
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
    figures.push(...(await row.measure(bench)));
  }
  if (options.json) io.print(JSON.stringify(figures.map(rounded)));
  else for (const figure of figures) io.print(lineOf(figure));
  return figures.every(({ pass }) => pass) ? 0 : 1;
};

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
