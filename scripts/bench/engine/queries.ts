import { compileFilter } from "../../../src/host/expressions";
import type { Interval } from "../../../src/host/intervals";
import { fieldAt, isObject, type Json, type JsonObject } from "../../../src/host/json";
import { afterKey, afterPrefix, encodeValue } from "../../../src/host/keys";
import { BY_ID, type Index, type StoredDocument, type Tables } from "./tables";
import type { Scan, ScanRange, Transaction } from "./transaction";

/** The query that `convex/server` serializes, as far as functions here use it. */
interface SerializedQuery {
  readonly source:
    | { readonly type: "FullTableScan"; readonly tableName: string; readonly order: Order }
    | {
        readonly type: "IndexRange";
        readonly indexName: string;
        readonly range: readonly RangeExpression[];
        readonly order: Order;
      }
    | { readonly type: "Search" };
  readonly operators: readonly Json[];
}
type Order = "asc" | "desc" | null;
interface RangeExpression {
  readonly type: "Eq" | "Gt" | "Gte" | "Lt" | "Lte";
  readonly fieldPath: string;
  readonly value: Json;
}

type Operator = (document: JsonObject) => "keep" | "drop";

/** Documents that pass the filters; those that do not are read, and billed, as well. */
export class Results {
  readonly #scan: Scan;
  readonly #operators: Operator[] = [];
  #limit = Infinity;
  #given = 0;
  /** The key of the last document that was read. */
  lastKey: string | null = null;
  isExhausted = false;

  constructor(scan: Scan, operators: readonly Json[]) {
    this.#scan = scan;
    for (const operator of operators) {
      const rows = isObject(operator) ? fieldAt(operator, ["limit"]) : undefined;
      if (typeof rows === "number") this.#limit = Math.min(this.#limit, rows);
      else this.#operators.push(filterOf(operator));
    }
  }

  next(): StoredDocument | null {
    while (this.#given < this.#limit) {
      const document = this.#scan.next();
      if (document === null) {
        this.isExhausted = true;
        return null;
      }
      this.lastKey = document.keys[this.#scan.range.index.place] ?? null;
      if (this.#operators.some((operator) => operator(document.value) === "drop")) continue;
      this.#given += 1;
      return document;
    }
    return null;
  }
}

export function startQuery(
  transaction: Transaction,
  tables: Tables,
  query: Json,
  options: { readonly stale: boolean; readonly after?: string | null },
): Results {
  const { source, operators } = query as unknown as SerializedQuery;
  const range = rangeOf(source, tables);
  const { after } = options;
  if (after !== undefined && after !== null) {
    const { lower, upper } = range.interval;
    const interval = range.descending ? { lower, upper: after } : { lower: afterKey(after), upper };
    return new Results(transaction.scan({ ...range, interval }, options.stale), operators);
  }
  return new Results(transaction.scan(range, options.stale), operators);
}

const END_OF_QUERY = "_end";

/** One page of a paginated query, as the syscall answers it. */
export function readPage(
  transaction: Transaction,
  tables: Tables,
  args: Readonly<Record<string, Json | undefined>>,
  stale: boolean,
): string {
  const { cursor = null, query = null, pageSize } = args;
  const after =
    typeof cursor === "string" ? Buffer.from(cursor, "base64url").toString("latin1") : null;
  const results =
    cursor === END_OF_QUERY ? null : startQuery(transaction, tables, query, { stale, after });
  const page: string[] = [];
  while (results !== null && page.length < Number(pageSize)) {
    const document = results.next();
    if (document === null) break;
    page.push(document.text);
  }
  const isDone = results?.isExhausted ?? true;
  const last = results?.lastKey ?? null;
  const position =
    isDone || last === null ? END_OF_QUERY : Buffer.from(last, "latin1").toString("base64url");
  const rest = JSON.stringify({
    isDone,
    continueCursor: position,
    splitCursor: null,
    pageStatus: null,
  });
  return `{"page":[${page.join(",")}],${rest.slice(1)}`;
}

function filterOf(operator: Json): Operator {
  const filter = isObject(operator) ? fieldAt(operator, ["filter"]) : undefined;
  if (filter === undefined) throw new Error(`Unknown operator ${JSON.stringify(operator)}.`);
  const accepts = compileFilter(filter);
  return (document) => (accepts(document) ? "keep" : "drop");
}

function rangeOf(source: SerializedQuery["source"], tables: Tables): ScanRange {
  switch (source.type) {
    case "FullTableScan": {
      const table = tables.named(source.tableName);
      const index = table.index("by_creation_time");
      const interval = { lower: "", upper: afterPrefix("") };
      return { table, index, interval, descending: source.order === "desc" };
    }
    case "IndexRange": {
      const [tableName = "", indexName = ""] = source.indexName.split(".");
      const table = tables.named(tableName);
      const index = table.index(indexName);
      const interval = intervalOf(index, source.range);
      return { table, index, interval, descending: source.order === "desc" };
    }
    case "Search":
      throw new Error("There are no search indexes here.");
  }
}

/** Comparisons on a prefix of the index's fields, as one range of keys. */
function intervalOf(index: Index, expressions: readonly RangeExpression[]): Interval {
  const equal = new Map<string, Json>();
  for (const { type, fieldPath, value } of expressions) {
    if (type === "Eq") equal.set(fieldPath, value);
  }
  let prefix = "";
  for (const field of index.name === BY_ID ? ["_id"] : index.fields) {
    const value = equal.get(field);
    if (value === undefined) break;
    prefix += index.name === BY_ID && typeof value === "string" ? value : encodeValue(value);
  }
  const interval = { lower: prefix, upper: afterPrefix(prefix) };
  for (const { type, value } of expressions) {
    if (type === "Eq") continue;
    const key = prefix + encodeValue(value);
    if (type === "Gte") interval.lower = key;
    else if (type === "Gt") interval.lower = afterPrefix(key);
    else if (type === "Lt") interval.upper = key;
    else interval.upper = afterPrefix(key);
  }
  return interval;
}
