import type { Transaction } from "./database";

/** A stored system document, as JSON. */
export type Row = Readonly<Record<string, unknown>> & { readonly _id: string };

export const JOBS = "_scheduled_functions";
export const CRONS = "_cron_jobs";

const INDEXES: Readonly<
  Record<string, readonly { indexDescriptor: string; fields: readonly string[] }[]>
> = {
  [JOBS]: [
    { indexDescriptor: "by_state", fields: ["state.kind", "scheduledTime"] },
    { indexDescriptor: "by_completed_time", fields: ["completedTime"] },
  ],
  [CRONS]: [{ indexDescriptor: "by_name", fields: ["name"] }],
};

/** The app's schema with the tables that the scheduler and the crons keep beside it. */
export function withSystemTables(schemaJson: string | null): string {
  const schema = (
    schemaJson === null ? { tables: [], schemaValidation: false } : JSON.parse(schemaJson)
  ) as {
    tables: unknown[];
  };
  const none = {
    stagedDbIndexes: [],
    searchIndexes: [],
    stagedSearchIndexes: [],
    vectorIndexes: [],
    stagedVectorIndexes: [],
  };
  const own = Object.entries(INDEXES).map(([tableName, indexes]) => ({
    tableName,
    indexes,
    ...none,
    documentType: { type: "any" },
  }));
  return JSON.stringify({ ...schema, tables: [...schema.tables, ...own] });
}

export interface IndexRead {
  /** `table.index`. */
  readonly index: string;
  readonly range: readonly {
    readonly type: string;
    readonly fieldPath: string;
    readonly value: unknown;
  }[];
  readonly limit?: number;
}

/** Reads a range of an index, a row at a time. */
export async function* readRows(transaction: Transaction, read: IndexRead): AsyncGenerator<Row> {
  const query = {
    source: { type: "IndexRange", indexName: read.index, range: read.range, order: "asc" },
    operators: read.limit === undefined ? [] : [{ limit: read.limit }],
  };
  const opened = transaction.syscall(
    "1.0/queryStream",
    JSON.stringify({ query, version: "1.48.0" }),
  );
  const { queryId } = JSON.parse(opened) as { queryId: number };
  for (;;) {
    const text = await transaction.asyncSyscall("1.0/queryStreamNext", JSON.stringify({ queryId }));
    const { value, done } = JSON.parse(text) as { value: Row | null; done: boolean };
    if (done || value === null) return;
    yield value;
  }
}
