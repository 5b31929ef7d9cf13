import type { Bench, Figure, Row } from "../figures";
import { ROWS, rowOf } from "../options";
import type { Results } from "../report";
import { cache } from "./cache";
import { fare, SCENARIOS } from "./contention";
import { guards } from "./guards";
import { countOperations } from "./operations";
import { queueCosts } from "./queueCosts";
import { queueLoads } from "./queueLoads";
import { upkeep } from "./upkeep";

/** What is measured in one go, in a process of its own where there are several. */
export interface Part {
  readonly id: string;
  /** The rows of the table of bars that it has figures of; none for the tables beside it. */
  readonly rows: readonly string[];
  measure(bench: Bench): Promise<Results>;
}

export const NOTHING: Results = { figures: [], operations: [], contention: [] };

const rows = [...queueCosts, ...queueLoads, ...guards, ...cache, ...upkeep];

/** The longest first, so that the last one to end is a short one. */
export const PARTS: readonly Part[] = [
  ...rows.map((row) => ({
    id: row.id,
    rows: row.rows ?? [row.id],
    measure: async (bench: Bench) => ({ ...NOTHING, figures: await measured(row, bench) }),
  })),
  {
    id: "operations",
    rows: [],
    measure: async (bench: Bench) => ({ ...NOTHING, operations: await countOperations(bench) }),
  },
  ...SCENARIOS.map((scenario) => ({
    id: `contention ${scenario.id}`,
    rows: [],
    measure: async (bench: Bench) => ({ ...NOTHING, contention: await fare(bench, scenario) }),
  })),
];

async function measured(row: Row, bench: Bench): Promise<readonly Figure[]> {
  try {
    return await row.measure(bench);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return unmeasured({ id: row.id, rows: row.rows ?? [row.id] }, why).figures;
  }
}

/** A row that cannot be measured is a miss, and the others are measured all the same. */
export function unmeasured({ id, rows }: Pick<Part, "id" | "rows">, why: string): Results {
  const figures = rows.map((row) => ({
    id: row === id ? row : `${row}.unmeasured@${id.replaceAll(/\W+/g, "-")}`,
    what: `not measured: ${why}`,
    ours: null,
    peer: null,
    limit: 0,
    pass: false,
  }));
  return { ...NOTHING, figures };
}

/** In the order of the table of bars. */
export function inOrder(figures: readonly Figure[]): Figure[] {
  const place = ({ id }: Figure): number => ROWS.indexOf(rowOf(id));
  return [...figures].sort((a, b) => place(a) - place(b));
}
