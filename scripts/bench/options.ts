import { parseArgs } from "node:util";
import { mistakeIn, UsageError, wholeNumber } from "../usage";
import { ROWS } from "./rows";

export interface Options {
  readonly help: boolean;
  readonly json: boolean;
  readonly write: boolean;
  readonly only: ReadonlySet<string> | null;
  readonly seed: number;
  readonly seeds: number;
  /** The one part that a process started by another measures. */
  readonly part: string | null;
}

export const USAGE = [
  "Usage: npm run bench -- [flags]",
  "  --only <rows>   some rows of the table of bars, such as T1,T6 or T1.calls",
  "  --seed <n>      another run of the random parts, 1 by default",
  "  --seeds <n>     means over more or fewer runs than 10",
  "  --json          prints the figures as one array",
  "  --write         puts everything into docs/benchmarks.md",
  "Exit code: 0 every bar holds, 1 one does not, 2 it could not run.",
];

const SEEDS = 10;
const SEED_MAX = 1_000_000;
const SEEDS_MAX = 1_000;

/** What the command line says. Throws `UsageError` for what it cannot mean. */
export function readOptions(argv: readonly string[]): Options {
  const { only, seed, seeds, part, ...flags } = readFlags(argv);
  return {
    ...flags,
    only: only === undefined ? null : rowsOf(only),
    seed: wholeNumber("--seed", seed, { min: 0, max: SEED_MAX }) ?? 1,
    seeds: wholeNumber("--seeds", seeds, { min: 1, max: SEEDS_MAX }) ?? SEEDS,
    part: part ?? null,
  };
}

function readFlags(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        only: { type: "string" },
        seed: { type: "string" },
        seeds: { type: "string" },
        part: { type: "string" },
        json: { type: "boolean", default: false },
        write: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    }).values;
  } catch (error) {
    throw new UsageError(mistakeIn(error, "bench"));
  }
}

/** Rows by their id, or by that of one of their figures. */
function rowsOf(only: string): ReadonlySet<string> {
  const ids = only.split(",").map((id) => id.trim());
  const unknown = ids.filter((id) => !ROWS.includes(id.split(".")[0] ?? ""));
  if (unknown.length > 0)
    throw new UsageError(
      `--only ${only}: there is no row ${unknown.map((id) => `"${id}"`).join(", ")}; known are ${ROWS.join(", ")}.`,
    );
  return new Set(ids);
}
