import { createHash } from "node:crypto";
import { BY_CREATION_TIME, BY_ID, findIndex, type Catalog, type IndexInfo } from "./catalog";
import { compileFilter } from "./expressions";
import type { Interval } from "./intervals";
import { fieldAt, isObject, type Json, type JsonObject } from "./json";
import { afterKey, afterPrefix, encodeValue } from "./keys";
import type { ScanRange } from "./scan";

export type Operator =
  | { readonly kind: "filter"; readonly accepts: (document: JsonObject) => boolean }
  | { readonly kind: "limit"; readonly rows: number };

export interface Query {
  readonly range: ScanRange;
  readonly operators: readonly Operator[];
  /** Tells cursors of different queries apart. */
  readonly fingerprint: () => string;
}

type Comparison = "Eq" | "Gt" | "Gte" | "Lt" | "Lte";
interface RangeExpression {
  readonly type: Comparison;
  readonly fieldPath: string;
  readonly value: Json;
}

type Source =
  | {
      readonly type: "FullTableScan";
      readonly tableName: string;
      readonly order: "asc" | "desc" | null;
    }
  | {
      readonly type: "IndexRange";
      readonly indexName: string;
      readonly range: readonly RangeExpression[];
      readonly order: "asc" | "desc" | null;
    }
  | { readonly type: "Search" };

interface SerializedQuery {
  readonly source: Source;
  readonly operators: readonly Json[];
}

const FINGERPRINT_CHARS = 12;
const STRING_TAG = encodeValue("").charAt(0);

/** Reads the query that the functions' library serialized and finds its place in an index. */
export function parseQuery(json: Json, catalog: Catalog): Query {
  if (!isObject(json)) throw new Error("Invalid argument `query`: expected an object.");
  const { source, operators } = json as unknown as SerializedQuery;
  return {
    range: parseSource(source, catalog),
    operators: operators.map(parseOperator),
    fingerprint: () =>
      createHash("sha256")
        .update(JSON.stringify(json))
        .digest("base64url")
        .slice(0, FINGERPRINT_CHARS),
  };
}

function parseSource(source: Source, catalog: Catalog): ScanRange {
  switch (source.type) {
    case "FullTableScan": {
      const table = catalog.table(source.tableName);
      const index = findIndex(table, BY_CREATION_TIME);
      const interval = { lower: "", upper: afterPrefix("") };
      return { table, index, interval, descending: source.order === "desc" };
    }
    case "IndexRange": {
      const [tableName = "", indexName = ""] = source.indexName.split(".");
      const table = catalog.table(tableName);
      const index = findIndex(table, indexName);
      const interval = compileRange(source.indexName, index, source.range);
      return { table, index, interval, descending: source.order === "desc" };
    }
    case "Search":
      throw new Error("The embedded host has no search indexes; use a deployment for this query.");
  }
}

function parseOperator(operator: Json): Operator {
  const limit = isObject(operator) ? fieldAt(operator, ["limit"]) : undefined;
  if (typeof limit === "number") return { kind: "limit", rows: limit };
  const filter = isObject(operator) ? fieldAt(operator, ["filter"]) : undefined;
  if (filter === undefined) throw new Error(`Unknown operator ${JSON.stringify(operator)}.`);
  return { kind: "filter", accepts: compileFilter(filter) };
}

/** Turns comparisons on a prefix of the index's fields into one range of keys. */
function compileRange(
  name: string,
  index: IndexInfo,
  expressions: readonly RangeExpression[],
): Interval {
  const fields = index.name === BY_ID ? ["_id"] : index.fields;
  const place: Place = index.name === BY_ID ? IDS : VALUES;
  const { equalities, inequality } = splitExpressions(name, fields, expressions);
  let prefix = "";
  let used = 0;
  for (const field of fields) {
    if (!equalities.has(field)) break;
    prefix += place.encode(equalities.get(field) ?? null);
    used += 1;
  }
  const next = fields[used];
  if (used < equalities.size || (inequality !== null && inequality.field !== next)) {
    throw outOfOrder(name, fields, expressions, used);
  }
  const { lower = null, upper = null } = inequality ?? {};
  return {
    lower: lower === null ? prefix : bound(prefix, lower, place),
    upper: upper === null ? place.end(prefix, used) : bound(prefix, upper, place),
  };
}

/** How values become keys in an index, and where the keys below a prefix end. */
interface Place {
  encode(value: Json): string;
  after(key: string): string;
  end(prefix: string, fields: number): string;
}

const VALUES: Place = { encode: encodeValue, after: afterPrefix, end: afterPrefix };

// In the index by id the key is the id itself; other values sort before or after all ids.
const IDS: Place = {
  encode(value) {
    if (typeof value === "string") return value;
    return encodeValue(value) < STRING_TAG ? "" : afterPrefix("");
  },
  after: afterKey,
  end: (prefix, fields) => (fields === 0 ? afterPrefix(prefix) : afterKey(prefix)),
};

interface Inequality {
  readonly field: string;
  lower: RangeExpression | null;
  upper: RangeExpression | null;
}

function splitExpressions(
  name: string,
  fields: readonly string[],
  expressions: readonly RangeExpression[],
): { equalities: Map<string, Json>; inequality: Inequality | null } {
  const equalities = new Map<string, Json>();
  let inequality: Inequality | null = null;
  for (const expression of expressions) {
    const { type, fieldPath } = expression;
    if (!fields.includes(fieldPath)) {
      throw new Error(
        `The index range included a comparison with "${fieldPath}", but ${name} with fields ${list(fields)} doesn't index this field. For more information see https://docs.convex.dev/using/indexes.`,
      );
    }
    if (type === "Eq") {
      if (equalities.has(fieldPath)) throw alreadyDefined("equality", expression);
      equalities.set(fieldPath, expression.value);
      continue;
    }
    inequality ??= { field: fieldPath, lower: null, upper: null };
    if (inequality.field !== fieldPath) {
      throw new Error(
        `Upper and lower bounds in \`range\` can only be applied to a single index field. This query against index ${name} attempted to set a range bound on both "${inequality.field}" and "${fieldPath}". Consider using \`filter\` instead. See https://docs.convex.dev/using/indexes for more info.`,
      );
    }
    const side = type === "Gt" || type === "Gte" ? "lower" : "upper";
    if (inequality[side] !== null) throw alreadyDefined(side, expression);
    inequality[side] = expression;
  }
  return { equalities, inequality };
}

function bound(prefix: string, { type, value }: RangeExpression, place: Place): string {
  const key = prefix + place.encode(value);
  return type === "Gt" || type === "Lte" ? place.after(key) : key;
}

function outOfOrder(
  name: string,
  fields: readonly string[],
  expressions: readonly RangeExpression[],
  used: number,
): Error {
  const queried = [...new Set(expressions.map(({ fieldPath }) => fieldPath))];
  const first = queried.find((field) => !fields.slice(0, used).includes(field)) ?? "";
  return new Error(
    `Tried to query index ${name} but the query didn't use the index fields in order.\nIndex fields: ${list(fields)}\nQuery fields: ${list(queried)}\nFirst incorrect field: ${first}\nFor more information see https://docs.convex.dev/using/indexes.`,
  );
}

function alreadyDefined(side: string, { fieldPath, type, value }: RangeExpression): Error {
  const sign = { Eq: "==", Gt: ">", Gte: ">=", Lt: "<", Lte: "<=" }[type];
  return new Error(
    `Already defined ${side} bound in index range. Can't add "${fieldPath}" ${sign} ${JSON.stringify(value)}.`,
  );
}

function list(fields: readonly string[]): string {
  return `[${fields.join(", ")}]`;
}
