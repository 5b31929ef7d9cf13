import { indexKey, type Catalog, type IndexInfo, type TableSchema } from "./catalog";
import { parseDocument, storedKey, wholeIndex } from "./entries";
import type { Json } from "./json";
import type { Snapshot, Store, StoreWrite } from "./store";
import { afterKey } from "./keys";
import { documentMismatch } from "./validate";

const ROWS_PER_BATCH = 5_000;

interface ExportedSchema {
  readonly tables: readonly {
    readonly tableName: string;
    readonly indexes: readonly {
      readonly indexDescriptor: string;
      readonly fields: readonly string[];
    }[];
    readonly documentType: Json;
  }[];
  readonly schemaValidation: boolean;
}

/** Reads what a schema's `export()` gives; a missing schema asks for nothing. */
export function parseSchema(schemaJson: string): Map<string, TableSchema> {
  const exported = JSON.parse(schemaJson) as ExportedSchema | null;
  const tables = new Map<string, TableSchema>();
  for (const { tableName, indexes, documentType } of exported?.tables ?? []) {
    tables.set(tableName, {
      indexes: indexes.map(({ indexDescriptor, fields }) => ({ name: indexDescriptor, fields })),
      documentType: exported?.schemaValidation === false ? null : documentType,
    });
  }
  return tables;
}

/** What applying a schema needs of the engine, which lets no commit in between. */
export interface SchemaWork {
  readonly store: Store;
  readonly catalog: Catalog;
  /** Runs with the newest state. */
  readonly read: <T>(work: (snapshot: Snapshot) => T) => T;
  /** Stores the writes, and the catalog with them. */
  readonly write: (writes: readonly StoreWrite[]) => Promise<void>;
}

/**
 * Brings validators and indexes in line with the schema. Documents that do not fit fail it before
 * anything changes; an index appears only when all its entries are there.
 */
export async function applySchema(
  work: SchemaWork,
  schema: Map<string, TableSchema>,
): Promise<void> {
  const { catalog } = work;
  const names = new Set([
    ...schema.keys(),
    ...catalog
      .all()
      .filter((table) => !table.isSystem)
      .map((table) => table.name),
  ]);
  const changed = [...names]
    .map((name) => ({ name, wanted: schema.get(name) ?? { indexes: [], documentType: null } }))
    .filter(({ name, wanted }) => differs(catalog, name, wanted));
  for (const { name, wanted } of changed) checkDocuments(work, name, wanted);
  for (const { name, wanted } of changed) await buildTable(work, name, wanted);
  await dropIndexes(work);
}

function differs(catalog: Catalog, name: string, wanted: TableSchema): boolean {
  const table = catalog.find(name);
  if (table === undefined) return true;
  const present = table.indexes.slice(2).map((index) => [index.name, index.fields.slice(0, -1)]);
  const asked = wanted.indexes.map((index) => [index.name, index.fields]);
  return (
    JSON.stringify(present) !== JSON.stringify(asked) ||
    JSON.stringify(table.documentType) !== JSON.stringify(wanted.documentType)
  );
}

function checkDocuments(
  { store, catalog, read }: SchemaWork,
  name: string,
  wanted: TableSchema,
): void {
  const table = catalog.table(name);
  if (JSON.stringify(table.documentType) === JSON.stringify(wanted.documentType)) return;
  read((snapshot) => {
    for (const [id, packed] of documents(store, snapshot, table.indexes[0])) {
      const reason = documentMismatch(
        wanted.documentType,
        parseDocument(packed),
        (number) => catalog.byNumber(number)?.name,
      );
      if (reason === null) continue;
      throw new Error(
        `Document with ID "${id}" in table "${name}" does not match the schema: ${reason}`,
      );
    }
  });
}

async function buildTable(work: SchemaWork, name: string, wanted: TableSchema): Promise<void> {
  const { catalog } = work;
  const present = catalog.table(name).indexes.slice(2);
  const kept = new Set<IndexInfo>();
  const indexes: IndexInfo[] = [];
  const added: IndexInfo[] = [];
  for (const { name: indexName, fields } of wanted.indexes) {
    const asked = JSON.stringify([...fields, "_creationTime"]);
    const same = present.find(
      (index) => index.name === indexName && JSON.stringify(index.fields) === asked,
    );
    const index = same ?? catalog.planIndex(indexName, fields);
    if (same === undefined) added.push(index);
    else kept.add(same);
    indexes.push(index);
  }
  // Until the table has them, new entries are garbage that the next start must take away.
  for (const index of added) catalog.dropped.add(index.number);
  if (added.length > 0) await fillIndexes(work, name, added);
  for (const index of added) catalog.dropped.delete(index.number);
  for (const index of present) if (!kept.has(index)) catalog.dropped.add(index.number);
  catalog.define(name, indexes, wanted.documentType);
  await work.write([]);
}

async function fillIndexes(
  work: SchemaWork,
  name: string,
  added: readonly IndexInfo[],
): Promise<void> {
  const table = work.catalog.table(name);
  let after = "";
  for (;;) {
    const from = after;
    const writes: StoreWrite[] = work.read((snapshot) => {
      const entries: StoreWrite[] = [];
      for (const [id, packed] of documents(work.store, snapshot, table.indexes[0], from)) {
        const document = parseDocument(packed);
        for (const index of added) {
          entries.push([storedKey(table, index, indexKey(index, document, id)), ""]);
        }
        after = afterKey(id);
      }
      return entries;
    });
    await work.write(writes);
    if (writes.length === 0) return;
  }
}

/** Takes away the entries of indexes that no table has any more. */
export async function dropIndexes({ store, catalog, read, write }: SchemaWork): Promise<void> {
  for (const number of [...catalog.dropped]) {
    for (;;) {
      const keys = read((snapshot) =>
        store.keys(snapshot, { ...wholeIndex(number), limit: ROWS_PER_BATCH }),
      );
      if (keys.length === 0) break;
      await write(keys.map((key) => [key, null] as const));
    }
    catalog.dropped.delete(number);
    catalog.dirty = true;
  }
  if (catalog.dirty) await write([]);
}

/** Ids and documents of a table in order of id; with `from`, one batch from there on. */
function* documents(
  store: Store,
  snapshot: Snapshot,
  byId: IndexInfo,
  from?: string,
): Generator<readonly [id: string, packed: string]> {
  const { lower: prefix, upper } = wholeIndex(byId.number);
  let lower = prefix + (from ?? "");
  for (;;) {
    const keys = store.keys(snapshot, { lower, upper, limit: ROWS_PER_BATCH });
    for (const key of keys) {
      const packed = store.get(snapshot, key);
      if (packed !== undefined) yield [key.slice(prefix.length), packed];
    }
    const last = keys.at(-1);
    if (last === undefined || from !== undefined) return;
    lower = afterKey(last);
  }
}
