import { parseArgs } from "node:util";
import { mistakeIn, UsageError, wholeNumber } from "../usage";
import type { Figure } from "./figures";

export const USAGE = [
  "Usage: npm run bench -- [flags]",
  "  --only <ids>   rows of the table of bars, or single figures: T1,T6 or T1.calls,T5.p50@10",
  "  --seed <n>     another run of the random parts, from 0 to 2147483648, 1 by default",
  "  --seeds <n>    takes means over so many runs instead of 10",
  "  --json         prints the figures as one array of objects, and nothing else",
  "  --write        writes everything into docs/benchmarks.md",
  "Exit code: 0 every bar holds, 1 one is missed or was not measured, 2 the flags make no sense.",
];

export interface Options {
  readonly json: boolean;
  readonly write: boolean;
  readonly help: boolean;
  /** What to measure, as ids of rows or figures; null is everything. */
  readonly only: readonly string[] | null;
  readonly seed: number;
  readonly seeds: number;
  /** The one part that a process started by another measures. */
  readonly part: string | null;
}

export const SEED_DEFAULT = 1;
const SEEDS_DEFAULT = 10;
export const SEED_MAX = 2 ** 31;
const SEEDS_MAX = 100;

/** The rows of the table of bars; T10b stands in the row of T10. */
export const ROWS: readonly string[] = [
  ...Array.from({ length: 10 }, (_, i) => `T${i + 1}`),
  "T10b",
  ...Array.from({ length: 9 }, (_, i) => `T${i + 11}`),
];

export const rowOf = (id: string): string => id.split(".")[0] ?? id;

/** Whether an id of a row or of a figure asks for this figure; `T3.calls` asks for `T3.calls@batch`. */
export function asksFor(wanted: string, { id }: Pick<Figure, "id">): boolean {
  if (wanted === "T10" && rowOf(id) === "T10b") return true;
  return wanted === id || id.startsWith(`${wanted}.`) || id.startsWith(`${wanted}@`);
}

/** Whether an id may ask for figures of a row. */
export const asksForRow = (wanted: string, row: string): boolean =>
  rowOf(wanted) === row || (wanted === "T10" && row === "T10b");

/** What the command line says. Throws `UsageError` for what it cannot mean. */
export function readOptions(argv: readonly string[]): Options {
  const flags = read(argv);
  const only = flags.only === undefined ? null : idsIn(flags.only);
  const seeds = wholeNumber("--seeds", flags.seeds, { min: 1, max: SEEDS_MAX }) ?? SEEDS_DEFAULT;
  if (flags.write && (only !== null || seeds !== SEEDS_DEFAULT))
    throw new UsageError("--write writes a whole run: leave --only and --seeds out");
  const { help, json, write } = flags;
  const seed = wholeNumber("--seed", flags.seed, { min: 0, max: SEED_MAX }) ?? SEED_DEFAULT;
  return { json, write, help, only, seed, seeds, part: flags.part ?? null };
}

function read(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        only: { type: "string" },
        seed: { type: "string" },
        seeds: { type: "string" },
        json: { type: "boolean", default: false },
        write: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
        part: { type: "string" },
      },
    }).values;
  } catch (error) {
    throw new UsageError(mistakeIn(error, "bench"));
  }
}

function idsIn(list: string): readonly string[] {
  const ids = list.split(",").map((id) => id.trim());
  const unknown = ids.filter((id) => !ROWS.includes(rowOf(id)));
  if (unknown.length > 0)
    throw new UsageError(
      `--only knows no ${unknown.map((id) => JSON.stringify(id)).join(", ")}: the rows are ${ROWS.join(", ")}`,
    );
  return ids;
}
