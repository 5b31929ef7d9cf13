import type { Bench, Figure, Row } from "../figures";
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

const NOTHING: Results = { figures: [], operations: [], contention: [] };

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
    return unmeasured(row.rows ?? [row.id], why).figures;
  }
}

/** A row that cannot be measured is a miss, and the others are measured all the same. */
export function unmeasured(ids: readonly string[], why: string): Results {
  const figures = ids.map((id) => ({
    id,
    what: `not measured: ${why}`,
    ours: null,
    peer: null,
    limit: 0,
    pass: false,
  }));
  return { ...NOTHING, figures };
}

const NUMBERED = Array.from({ length: 19 }, (_, i) => `T${i + 1}`);
/** In the order of the table of bars. */
export const ROWS = [...NUMBERED.slice(0, 10), "T10b", ...NUMBERED.slice(10)];

export const rowOf = ({ id }: Pick<Figure, "id">): string => id.split(".")[0] ?? id;

/** In the order of the table of bars. */
export function inOrder(figures: readonly Figure[]): Figure[] {
  const place = (figure: Figure): number => ROWS.indexOf(rowOf(figure));
  return [...figures].sort((a, b) => place(a) - place(b));
}
