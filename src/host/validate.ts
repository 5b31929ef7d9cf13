import type { TableInfo } from "./catalog";
import { decodeId } from "./ids";
import { isArray, isObject, untag, type Json, type JsonObject } from "./json";

/** The name of the table with a number, or undefined when there is none. */
export type TableName = (tableNumber: number) => string | undefined;

interface FieldType {
  readonly fieldType: Validator;
  readonly optional: boolean;
}

/** Validators as `exportArgs`, `exportReturns` and the schema's export spell them. */
type Validator =
  | { readonly type: "id"; readonly tableName: string }
  | { readonly type: "number" | "bigint" | "boolean" | "string" | "bytes" | "null" | "any" }
  | { readonly type: "commitTs" }
  | { readonly type: "literal"; readonly value: Json }
  | { readonly type: "array"; readonly value: Validator }
  | { readonly type: "object"; readonly value: Readonly<Record<string, FieldType>> }
  | { readonly type: "record"; readonly keys: Validator; readonly values: FieldType }
  | { readonly type: "union"; readonly value: readonly Validator[] };

/** What did not fit: everything but where, which is added on the way out. */
interface Mismatch {
  readonly headline: string;
  /** Lines about the value and the validator, after the path. */
  readonly details: readonly string[];
  /** Steps from the root to the value. */
  readonly path: readonly string[];
}

/**
 * Null when the value (in JSON form) fits the validator, else the reason in Convex's words. Without
 * `tableName` any well-formed id counts as an id of any table.
 */
export function validateValue(
  validator: unknown,
  value: unknown,
  tableName?: TableName,
): string | null {
  const mismatch = check(validator as Validator, value as Json, tableName);
  return mismatch === null ? null : describe(mismatch);
}

/** Throws when a document does not fit the schema of its table. System fields are not checked. */
export function validateDocument(
  table: TableInfo,
  document: JsonObject,
  tableName: TableName,
): void {
  const reason = documentMismatch(table.documentType, document, tableName);
  if (reason === null) return;
  throw new Error(
    `Failed to insert or update a document in table "${table.name}" because it does not match the schema: ${reason}`,
  );
}

/** Why a document does not fit a table's validator, or null. */
export function documentMismatch(
  documentType: Json,
  document: JsonObject,
  tableName: TableName,
): string | null {
  if (documentType === null) return null;
  const { _id, _creationTime, ...fields } = document;
  if (_id === undefined || _creationTime === undefined) return "The document has no system fields.";
  return validateValue(documentType, fields, tableName);
}

function describe({ headline, details, path }: Mismatch): string {
  const where = path.length === 0 ? "" : `Path: ${path.join("")}`;
  if (details.length === 0) return `${headline}${where}`;
  return [headline, where, ...details].join("\n");
}

function check(validator: Validator, value: Json, tables?: TableName): Mismatch | null {
  switch (validator.type) {
    case "any":
      return null;
    case "id":
      return checkId(validator, value, tables);
    case "literal":
      return sameValue(validator.value, value)
        ? null
        : mismatch(
            `\`${show(value)}\` does not match literal validator \`${showValidator(validator)}\`.`,
          );
    case "array":
      if (!isArray(value)) return noMatch(validator, value);
      return first(value, (item, i) => within(`[${i}]`, check(validator.value, item, tables)));
    case "record":
      return checkRecord(validator, value, tables);
    case "object":
      return checkObject(validator, value, tables);
    case "union":
      return checkUnion(validator, value, tables);
    case "null":
    case "number":
    case "bigint":
    case "commitTs":
    case "boolean":
    case "string":
    case "bytes":
      return typesOf(value).includes(validator.type) ? null : noMatch(validator, value);
  }
}

/** The plain validator types a value belongs to. */
function typesOf(value: Json): readonly Validator["type"][] {
  if (value === null) return ["null"];
  if (typeof value !== "object") return [typeof value as "boolean" | "number" | "string"];
  if (isArray(value)) return ["array"];
  switch (untag(value).kind) {
    case "bytes":
      return ["bytes"];
    case "float":
      return ["number"];
    case "integer":
    case "commitTs":
      // A commit timestamp is checked as the integer it will become.
      return ["bigint", "commitTs"];
    case "object":
    case "undefined":
      return ["object"];
  }
}

function fieldsOf(value: Json): JsonObject | null {
  if (!isObject(value)) return null;
  const tagged = untag(value);
  return tagged.kind === "object" ? tagged.fields : null;
}

function checkId(
  validator: Validator & { type: "id" },
  value: Json,
  tables: TableName | undefined,
): Mismatch | null {
  if (typeof value !== "string") return noMatch(validator, value);
  const decoded = decodeId(value);
  if ("error" in decoded) return noMatch(validator, value);
  if (tables === undefined) return null;
  const found = tables(decoded.tableNumber);
  if (found === validator.tableName) return null;
  if (found === undefined) return noMatch(validator, value);
  const from = found.startsWith("_") ? "from a system table" : `from table \`${found}\``;
  return mismatch(
    `Found ID "${value}" ${from}, which does not match the table name in validator \`${showValidator(validator)}\`.`,
  );
}

function checkRecord(
  validator: Validator & { type: "record" },
  value: Json,
  tables: TableName | undefined,
): Mismatch | null {
  const fields = fieldsOf(value);
  if (fields === null) return noMatch(validator, value);
  return first(
    Object.entries(fields),
    ([key, inner]) =>
      within(".keys()", check(validator.keys, key, tables)) ??
      within(".values()", check(validator.values.fieldType, inner, tables)),
  );
}

function checkObject(
  validator: Validator & { type: "object" },
  value: Json,
  tables: TableName | undefined,
): Mismatch | null {
  const fields = fieldsOf(value);
  if (fields === null) return noMatch(validator, value);
  const about = () => [`Object: ${show(value)}`, `Validator: ${showValidator(validator)}`];
  for (const [name, { fieldType, optional }] of Object.entries(validator.value)) {
    const inner = Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (inner !== undefined) {
      const found = within(`.${name}`, check(fieldType, inner, tables));
      if (found !== null) return found;
    } else if (!optional) {
      return mismatch(
        `Object is missing the required field \`${name}\`. Consider wrapping the field validator in \`v.optional(...)\` if this is expected.`,
        about(),
      );
    }
  }
  for (const name of Object.keys(fields)) {
    if (!Object.hasOwn(validator.value, name)) {
      return mismatch(
        `Object contains extra field \`${name}\` that is not in the validator.`,
        about(),
      );
    }
  }
  return null;
}

function checkUnion(
  validator: Validator & { type: "union" },
  value: Json,
  tables: TableName | undefined,
): Mismatch | null {
  const [only] = validator.value;
  if (only !== undefined && validator.value.length === 1) return check(only, value, tables);
  const fits = validator.value.some((member) => check(member, value, tables) === null);
  return fits ? null : noMatch(validator, value);
}

function first<T>(
  items: readonly T[],
  checkItem: (item: T, i: number) => Mismatch | null,
): Mismatch | null {
  for (const [i, item] of items.entries()) {
    const found = checkItem(item, i);
    if (found !== null) return found;
  }
  return null;
}

function mismatch(headline: string, details: readonly string[] = []): Mismatch {
  return { headline, details, path: [] };
}

function noMatch(validator: Validator, value: Json): Mismatch {
  return mismatch("Value does not match validator.", [
    `Value: ${show(value)}`,
    `Validator: ${showValidator(validator)}`,
  ]);
}

function within(step: string, found: Mismatch | null): Mismatch | null {
  return found === null ? null : { ...found, path: [step, ...found.path] };
}

function sameValue(literal: Json, value: Json): boolean {
  if (literal === value) return true;
  // Only integers are literals that are not plain in JSON.
  return (
    isObject(literal) &&
    isObject(value) &&
    literal["$integer"] !== undefined &&
    literal["$integer"] === value["$integer"]
  );
}

/** A value as the platform prints it in messages. */
function show(value: Json): string {
  if (typeof value === "number") return showNumber(value);
  if (typeof value === "string") return JSON.stringify(value);
  if (value === null || typeof value === "boolean") return String(value);
  if (isArray(value)) return `[${value.map(show).join(", ")}]`;
  const tagged = untag(value);
  switch (tagged.kind) {
    case "integer":
      return Buffer.from(tagged.base64, "base64").readBigInt64LE().toString();
    case "float":
      return showNumber(Buffer.from(tagged.base64, "base64").readDoubleLE());
    case "bytes":
      return `b"${tagged.base64}"`;
    case "commitTs":
      return "commitTs";
    case "undefined":
      return "undefined";
    case "object":
      return showFields(tagged.fields, show);
  }
}

// Floats print with a fraction, so that they are not taken for integers.
function showNumber(value: number): string {
  if (Object.is(value, -0)) return "-0.0";
  if (!Number.isFinite(value)) return String(value).replace("Infinity", "inf");
  return Number.isInteger(value) && Math.abs(value) < 1e16 ? `${value}.0` : String(value);
}

function showValidator(validator: Validator): string {
  switch (validator.type) {
    case "id":
      return `v.id("${validator.tableName}")`;
    case "number":
      return "v.float64()";
    case "bigint":
      return "v.int64()";
    case "literal":
      return `v.literal(${isObject(validator.value) ? "<bigint>" : JSON.stringify(validator.value)})`;
    case "array":
      return `v.array(${showValidator(validator.value)})`;
    case "record":
      return `v.record(${showValidator(validator.keys)}, ${showField(validator.values)})`;
    case "object":
      return `v.object(${showFields(validator.value, showField)})`;
    case "union":
      return `v.union(${validator.value.map(showValidator).join(", ")})`;
    case "null":
    case "commitTs":
    case "boolean":
    case "string":
    case "bytes":
    case "any":
      return `v.${validator.type}()`;
  }
}

function showField({ fieldType, optional }: FieldType): string {
  return optional ? `v.optional(${showValidator(fieldType)})` : showValidator(fieldType);
}

// The platform keeps the fields of values and of validators in order.
function showFields<T>(fields: Readonly<Record<string, T>>, showOne: (value: T) => string): string {
  const names = Object.keys(fields).sort();
  return `{${names.map((name) => `${name}: ${showOne(fields[name] as T)}`).join(", ")}}`;
}
