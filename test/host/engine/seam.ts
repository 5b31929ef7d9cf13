import type { Transaction } from "../../../src/host/database";

export type Fields = Readonly<Record<string, unknown>>;
export interface Stored extends Fields {
  readonly _id: string;
  readonly _creationTime: number;
}

/** The JSON of one query, as the functions' library would send it. */
export interface QueryJson {
  readonly source: Fields;
  readonly operators: readonly Fields[];
}

export interface Page {
  readonly page: readonly Stored[];
  readonly isDone: boolean;
  readonly continueCursor: string;
  readonly splitCursor: string | null;
  readonly pageStatus: string | null;
}

/** A range of a declared index: `range` in the words of the protocol. */
export function indexQuery(
  index: string,
  range: readonly (readonly [type: string, fieldPath: string, value: unknown])[] = [],
  options: { order?: "asc" | "desc"; operators?: readonly Fields[] } = {},
): QueryJson {
  return {
    source: {
      type: "IndexRange",
      indexName: index,
      range: range.map(([type, fieldPath, value]) => ({ type, fieldPath, value })),
      order: options.order ?? null,
    },
    operators: options.operators ?? [],
  };
}

export function tableQuery(tableName: string, operators: readonly Fields[] = []): QueryJson {
  return { source: { type: "FullTableScan", tableName, order: null }, operators };
}

async function call(transaction: Transaction, op: string, args: Fields): Promise<unknown> {
  return JSON.parse(await transaction.asyncSyscall(op, JSON.stringify(args)));
}

export async function insert(
  transaction: Transaction,
  table: string,
  value: Fields,
): Promise<string> {
  return ((await call(transaction, "1.0/insert", { table, value })) as { _id: string })._id;
}

export async function get(
  transaction: Transaction,
  id: string,
  more: Fields = {},
): Promise<Stored | null> {
  return (await call(transaction, "1.0/get", { id, isSystem: false, ...more })) as Stored | null;
}

export async function patch(transaction: Transaction, id: string, value: Fields): Promise<void> {
  await call(transaction, "1.0/shallowMerge", { id, value });
}

export async function replace(transaction: Transaction, id: string, value: Fields): Promise<void> {
  await call(transaction, "1.0/replace", { id, value });
}

export async function remove(transaction: Transaction, id: string): Promise<void> {
  await call(transaction, "1.0/remove", { id });
}

/** Opens a stream; `next` gives a document, or null at the end. */
export function stream(
  transaction: Transaction,
  query: QueryJson,
): { next: () => Promise<Stored | null> } {
  const args = transaction.syscall("1.0/queryStream", JSON.stringify({ query }));
  const { queryId } = JSON.parse(args) as { queryId: number };
  return {
    next: async () => {
      const result = await call(transaction, "1.0/queryStreamNext", { queryId });
      return (result as { value: Stored | null }).value;
    },
  };
}

export async function collect(transaction: Transaction, query: QueryJson): Promise<Stored[]> {
  const rows: Stored[] = [];
  const { next } = stream(transaction, query);
  for (let row = await next(); row !== null; row = await next()) rows.push(row);
  return rows;
}

export async function page(
  transaction: Transaction,
  query: QueryJson,
  options: Fields = {},
): Promise<Page> {
  const defaults = { cursor: null, endCursor: null, pageSize: 10 };
  return (await call(transaction, "1.0/queryPage", { query, ...defaults, ...options })) as Page;
}

export async function metrics(
  transaction: Transaction,
): Promise<Record<string, { used: number; remaining: number }>> {
  const result = await call(transaction, "1.0/getTransactionMetrics", {});
  return result as Record<string, { used: number; remaining: number }>;
}

/** The JSON of a schema with one table for each entry: indexes by name, and a validator. */
export function schemaOf(
  tables: Readonly<Record<string, { indexes?: Record<string, string[]>; documentType?: unknown }>>,
): string {
  return JSON.stringify({
    schemaValidation: true,
    tables: Object.entries(tables).map(([tableName, { indexes = {}, documentType }]) => ({
      tableName,
      indexes: Object.entries(indexes).map(([indexDescriptor, fields]) => ({
        indexDescriptor,
        fields,
      })),
      documentType: documentType ?? { type: "any" },
    })),
  });
}
