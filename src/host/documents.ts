import type { Catalog, TableInfo } from "./catalog";
import { documentKey, nextDocument, wholeIndex } from "./entries";
import { decodeId } from "./ids";
import { isObject, type Json, type JsonObject } from "./json";
import { afterPrefix } from "./keys";
import { checkTopLevelFields, measureDocument, type Budget } from "./limits";
import type { Overlay } from "./overlay";
import { storedRow, type Row, type View } from "./scan";
import { validateDocument } from "./validate";

/** Where new documents get what no one may choose. */
export interface Origin {
  readonly catalog: Catalog;
  newId(table: TableInfo): string;
  nextCreationTime(): number;
}

/** The documents as one transaction sees and changes them, one at a time. */
export class Documents {
  readonly #view: View;
  readonly #origin: Origin;
  readonly #budget: Budget;

  constructor(view: View, origin: Origin, budget: Budget) {
    this.#view = view;
    this.#origin = origin;
    this.#budget = budget;
  }

  /** The table of an id; `expected` is the table the caller named, if it named one. */
  tableOf(id: string, operation: string, expected: string | null = null): TableInfo {
    const invalid = (reason: string) =>
      new Error(`Invalid argument \`id\` for \`${operation}\`: ${reason}`);
    const decoded = decodeId(id);
    if ("error" in decoded) throw invalid(decoded.error);
    const table = this.#origin.catalog.byNumber(decoded.tableNumber);
    if (table === undefined) throw invalid(`Table for ID "${id}" not found`);
    if (expected !== null && expected !== table.name) {
      throw invalid(`expected to be an Id<"${expected}">, got Id<"${table.name}"> instead.`);
    }
    return table;
  }

  /** The id itself when it is one of the table's. */
  normalizeId(tableName: string, id: string): string | null {
    const decoded = decodeId(id);
    const table = this.#origin.catalog.find(tableName);
    return "tableNumber" in decoded && decoded.tableNumber === table?.number ? id : null;
  }

  /** A lookup that finds nothing counts as read all the same. */
  find(table: TableInfo, id: string): Row | null {
    this.#budget.countQuery();
    this.#view.reads?.addPoint(table.indexes[0].number, id);
    const row = this.#look(table, id);
    if (row !== null && !table.isSystem) this.#budget.countRead(row.bytes);
    return row;
  }

  count(table: TableInfo): number {
    const { store, reads, overlay } = this.#view;
    const [byId] = table.indexes;
    this.#budget.countQuery();
    reads?.addRange(byId.number, { lower: "", upper: afterPrefix("") });
    let rows = store.count(this.#view.snapshot(), wholeIndex(byId.number));
    for (const { base, next } of overlay?.ofTable(table.number).values() ?? []) {
      rows += Number(next !== null) - Number(base !== null);
    }
    return rows;
  }

  insert(table: TableInfo, value: JsonObject): string {
    checkTopLevelFields(value);
    const id = this.#origin.newId(table);
    const system = { _id: id, _creationTime: this.#origin.nextCreationTime() };
    this.#put(table, id, null, { ...value, ...system });
    return id;
  }

  /** Replaces the fields that are given; one given as undefined goes. Returns the new text. */
  patch(table: TableInfo, id: string, value: JsonObject): string {
    const old = this.#require(table, id, "Update");
    const merged: Record<string, Json> = { ...old };
    for (const [field, change] of Object.entries(value)) {
      if (isObject(change) && "$undefined" in change) Reflect.deleteProperty(merged, field);
      else merged[field] = change;
    }
    checkSystemFields(merged, old);
    return this.#put(table, id, this.#base(table, id), merged);
  }

  replace(table: TableInfo, id: string, value: JsonObject): string {
    const old = this.#require(table, id, "Replace");
    const replaced = { _id: id, _creationTime: old["_creationTime"] ?? null, ...value };
    checkSystemFields(replaced, old);
    return this.#put(table, id, this.#base(table, id), replaced);
  }

  /** Returns the text the document had. */
  remove(table: TableInfo, id: string): string {
    const row = this.find(table, id);
    if (row === null) throw new Error(`Delete on nonexistent document ID ${id}`);
    this.#writable().put({ table, id, base: this.#base(table, id), next: null });
    if (!table.isSystem) this.#budget.countWrite(0);
    return row.text;
  }

  /** Plans the document's new state: checked, measured, with its keys; returns its text. */
  #put(table: TableInfo, id: string, base: string | null, document: JsonObject): string {
    const sorted = sortFields(document);
    const bytes = measureDocument(sorted);
    validateDocument(table, sorted, (number) => this.#origin.catalog.byNumber(number)?.name);
    const next = nextDocument(table, id, sorted, bytes);
    this.#writable().put({ table, id, base, next });
    if (!table.isSystem) this.#budget.countWrite(bytes);
    return next.text;
  }

  #look(table: TableInfo, id: string): Row | null {
    const own = this.#view.overlay?.find(table.number, id);
    if (own !== undefined) {
      if (own.next === null) return null;
      const { text, bytes, value } = own.next;
      return { key: id, text, bytes, value: () => value };
    }
    const packed = this.#view.store.get(this.#view.snapshot(), documentKey(table, id));
    return packed === undefined ? null : storedRow(id, packed);
  }

  #require(table: TableInfo, id: string, verb: string): JsonObject {
    const row = this.find(table, id);
    if (row === null) throw new Error(`${verb} on nonexistent document ID ${id}`);
    return row.value();
  }

  /** What the snapshot holds under the id, whatever the transaction has written since. */
  #base(table: TableInfo, id: string): string | null {
    const own = this.#view.overlay?.find(table.number, id);
    if (own !== undefined) return own.base;
    return this.#view.store.get(this.#view.snapshot(), documentKey(table, id)) ?? null;
  }

  #writable(): Overlay {
    this.#view.snapshot();
    if (this.#view.overlay === null) throw new Error("A query can not write.");
    return this.#view.overlay;
  }
}

function checkSystemFields(document: JsonObject, old: JsonObject): void {
  const { _id = null, _creationTime = null, ...fields } = document;
  for (const [field, given] of Object.entries({ _id, _creationTime })) {
    if (given === old[field]) continue;
    throw new Error(
      `Provided \`${field}\` field value ${JSON.stringify(given)} does not match the document's ${JSON.stringify(old[field] ?? null)}`,
    );
  }
  checkTopLevelFields(fields);
}

// The platform keeps fields in order, and callers see them so.
function sortFields(document: JsonObject): JsonObject {
  const sorted: Record<string, Json> = {};
  for (const field of Object.keys(document).sort()) sorted[field] = document[field] ?? null;
  return sorted;
}
