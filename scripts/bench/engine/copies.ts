import { isArray, isObject, type Json, type JsonObject } from "../../../src/host/json";
import { StoredDocument, type Table } from "./tables";

/**
 * Copies every document of some tables, `times` each. Copies of one round refer to each other as the
 * originals do, and every time in them is `stepMs` earlier than in the round before.
 */
export function multiply(
  tables: readonly Table[],
  { stepMs, times }: { readonly times: number; readonly stepMs: number },
  newId: (table: Table) => string,
): void {
  const originals = tables.map((table) => ({ table, documents: [...table.documents.values()] }));
  for (let round = 1; round <= times; round++) {
    const ids = new Map<string, string>();
    for (const { documents, table } of originals)
      for (const { id } of documents) ids.set(id, newId(table));
    for (const { documents, table } of originals)
      for (const document of documents) {
        const id = ids.get(document.id) ?? "";
        const value = copied(document.value, ids, round * stepMs) as JsonObject;
        table.put(id, new StoredDocument(table, id, value));
      }
  }
}

/** Numbers as large as these are times of this century, in milliseconds. */
const TIME_MIN_MS = Date.UTC(2020, 0);

/** A value with the ids in it exchanged for others, and every time in it earlier. */
function copied(value: Json, ids: ReadonlyMap<string, string>, earlierMs: number): Json {
  if (typeof value === "string") return ids.get(value) ?? value;
  if (typeof value === "number") return value > TIME_MIN_MS ? value - earlierMs : value;
  if (isArray(value)) return value.map((item) => copied(item, ids, earlierMs));
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([field, inner]) => [field, copied(inner, ids, earlierMs)]),
  );
}
