import { isArray, untag, type Json, type JsonObject } from "./json";

const KIB = 1_024;
const MIB = KIB * KIB;

const DOCUMENT_BYTES_MAX = MIB;
const DOCUMENT_NESTING_MAX = 16;
const ARRAY_LENGTH_MAX = 8_192;
const OBJECT_FIELDS_MAX = 1_024;
const FIELD_NAME_LENGTH_MAX = 1_024;
const SCALAR_BYTES = 9;
const BASE64_BYTES = 3 / 4;

/** What one run of a query or mutation, with everything it calls, may use. */
const BUDGET = {
  bytesRead: 16 * MIB,
  bytesWritten: 16 * MIB,
  databaseQueries: 4_096,
  documentsRead: 32_000,
  documentsWritten: 16_000,
  functionsScheduled: 1_000,
  scheduledFunctionArgsBytes: 16 * MIB,
} as const;

type Metric = keyof typeof BUDGET;
type Usage = Record<Metric, number>;

const METRICS = Object.keys(BUDGET) as Metric[];

function perMetric<T>(make: (metric: Metric) => T): Record<Metric, T> {
  return Object.fromEntries(METRICS.map((metric) => [metric, make(metric)])) as Record<Metric, T>;
}

const NOTHING: Usage = perMetric(() => 0);

const HELP =
  "Consider using smaller limits in your queries, paginating your queries, or using indexed queries with a selective index range expressions.";
const RUN = "in a single function execution";
const OVERRUN: Record<Metric, string> = {
  bytesRead: `Too many bytes read ${RUN} (limit: ${BUDGET.bytesRead} bytes). ${HELP}`,
  bytesWritten: `Too many bytes written ${RUN} (limit: ${formatBytes(BUDGET.bytesWritten)})`,
  databaseQueries: `Too many reads ${RUN} (limit: ${BUDGET.databaseQueries}). ${HELP}`,
  documentsRead: `Too many documents read ${RUN} (limit: ${BUDGET.documentsRead}). ${HELP}`,
  documentsWritten: `Too many writes ${RUN} (limit: ${BUDGET.documentsWritten})`,
  functionsScheduled: `Too many functions scheduled by this mutation (limit: ${BUDGET.functionsScheduled})`,
  scheduledFunctionArgsBytes: `Too large total size of the arguments of scheduled functions from this mutation (limit: ${BUDGET.scheduledFunctionArgsBytes} bytes)`,
};

/** A transaction used up its budget. A page of results may end there instead of failing. */
export class BudgetExceeded extends Error {}

/**
 * What a tree of transactions has used. Reads count for the whole tree for good; what a dropped
 * sub-transaction wrote is given back, so writes count where they were made until it is kept.
 */
export class Budget {
  readonly #parent: Budget | null;
  readonly #used: Usage = { ...NOTHING };

  constructor(parent: Budget | null = null) {
    this.#parent = parent;
  }

  countQuery(): void {
    this.#root().#count("databaseQueries", 1);
  }

  countRead(bytes: number): void {
    const root = this.#root();
    root.#used.bytesRead += bytes;
    root.#count("documentsRead", 1);
    root.#count("bytesRead", 0);
  }

  countWrite(bytes: number): void {
    this.#count("documentsWritten", 1);
    this.#count("bytesWritten", bytes);
  }

  countScheduled(argsBytes: number): void {
    this.#count("functionsScheduled", 1);
    this.#count("scheduledFunctionArgsBytes", argsBytes);
  }

  /** Takes over what a finished sub-transaction wrote and scheduled. */
  keep(child: Budget): void {
    for (const metric of METRICS) this.#used[metric] += child.#used[metric];
  }

  /** In the shape of `ctx.meta.getTransactionMetrics()`. */
  metrics(): Record<Metric, { used: number; remaining: number }> {
    return perMetric((metric) => {
      const used = this.#total(metric);
      return { used, remaining: BUDGET[metric] - used };
    });
  }

  #count(metric: Metric, amount: number): void {
    this.#used[metric] += amount;
    if (this.#total(metric) > BUDGET[metric]) throw new BudgetExceeded(OVERRUN[metric]);
  }

  #total(metric: Metric): number {
    const outer = this.#parent === null ? 0 : this.#parent.#total(metric);
    return this.#used[metric] + outer;
  }

  #root(): Budget {
    return this.#parent === null ? this : this.#parent.#root();
  }
}

interface Measure {
  readonly bytes: number;
  readonly nesting: number;
}

/** The size of a document by the platform's formula; throws when it breaks a limit on values. */
export function measureDocument(document: JsonObject): number {
  const { bytes, nesting } = measure(document);
  if (nesting > DOCUMENT_NESTING_MAX) {
    throw new Error(
      `Document is too nested (nested ${nesting} levels deep > maximum nesting ${DOCUMENT_NESTING_MAX})`,
    );
  }
  if (bytes > DOCUMENT_BYTES_MAX) {
    throw new Error(
      `Value is too large (${formatBytes(bytes)} > maximum size ${formatBytes(DOCUMENT_BYTES_MAX)})`,
    );
  }
  return bytes;
}

/** Fields that start with an underscore belong to the platform. */
export function checkTopLevelFields(value: JsonObject): void {
  for (const name in value) {
    if (name.startsWith("_")) {
      throw new Error(
        `Field '${name}' starts with an underscore, which is only allowed for system fields like '_id'`,
      );
    }
  }
}

function measure(value: Json): Measure {
  if (value === null || typeof value === "boolean") return { bytes: 1, nesting: 0 };
  if (typeof value === "number") return { bytes: SCALAR_BYTES, nesting: 0 };
  if (typeof value === "string") return { bytes: 2 + Buffer.byteLength(value), nesting: 0 };
  if (isArray(value)) return measureArray(value);
  const tagged = untag(value);
  switch (tagged.kind) {
    case "undefined":
      return { bytes: 0, nesting: 0 };
    case "bytes":
      return { bytes: 2 + base64Bytes(tagged.base64), nesting: 0 };
    case "object":
      return measureObject(tagged.fields);
    case "integer":
    case "float":
    case "commitTs":
      return { bytes: SCALAR_BYTES, nesting: 0 };
  }
}

function measureArray(items: readonly Json[]): Measure {
  if (items.length > ARRAY_LENGTH_MAX) {
    throw new Error(
      `Array length is too long (${items.length} > maximum length ${ARRAY_LENGTH_MAX})`,
    );
  }
  let bytes = 2;
  let nesting = 0;
  for (const item of items) {
    const inner = measure(item);
    bytes += inner.bytes;
    nesting = Math.max(nesting, inner.nesting);
  }
  return { bytes, nesting: nesting + 1 };
}

function measureObject(fields: JsonObject): Measure {
  let bytes = 2;
  let nesting = 0;
  let count = 0;
  for (const name in fields) {
    const value = fields[name];
    if (value === undefined) continue;
    checkFieldName(name);
    const inner = measure(value);
    bytes += name.length + 1 + inner.bytes;
    nesting = Math.max(nesting, inner.nesting);
    count += 1;
  }
  if (count > OBJECT_FIELDS_MAX) {
    throw new Error(`Object has too many fields (${count} > maximum number ${OBJECT_FIELDS_MAX})`);
  }
  return { bytes, nesting: nesting + 1 };
}

function checkFieldName(name: string): void {
  if (name.length > FIELD_NAME_LENGTH_MAX) {
    throw new Error(
      `Field name ${name} exceeds maximum field name length ${FIELD_NAME_LENGTH_MAX}.`,
    );
  }
  if (name.startsWith("$")) {
    throw new Error(`Field name ${name} starts with a '$', which is reserved.`);
  }
  const bad = /[^\x20-\x7e]/.exec(name);
  if (bad !== null) {
    throw new Error(
      `Field name ${name} has invalid character '${bad[0]}': Field names can only contain non-control ASCII characters`,
    );
  }
}

function base64Bytes(base64: string): number {
  const padding = base64.endsWith("==") ? 2 : base64.endsWith("=") ? 1 : 0;
  return base64.length * BASE64_BYTES - padding;
}

function formatBytes(bytes: number): string {
  const [amount, unit] = bytes >= MIB ? [bytes / MIB, "MiB"] : [bytes / KIB, "KiB"];
  return `${Number(amount.toFixed(2))} ${unit}`;
}
