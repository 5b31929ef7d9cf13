import { idLength } from "./ids";
import { encodeValues } from "./keys";
import { fieldAt, type Json, type JsonObject } from "./json";

/** One index of a table. Its entries start with its number; numbers are never used again. */
export interface IndexInfo {
  readonly name: string;
  readonly number: number;
  /** Field paths in order, with the `_creationTime` that closes every declared index. */
  readonly fields: readonly string[];
  readonly paths: readonly (readonly string[])[];
}

export interface TableInfo {
  readonly name: string;
  readonly number: number;
  readonly isSystem: boolean;
  readonly idLength: number;
  /** The first holds the documents themselves under their ids, the second is by creation time. */
  readonly indexes: readonly [IndexInfo, IndexInfo, ...IndexInfo[]];
  /** The validator of documents, as the schema exports it; null accepts anything. */
  readonly documentType: Json;
}

/** What the schema asks for in one table. */
export interface TableSchema {
  readonly indexes: readonly { readonly name: string; readonly fields: readonly string[] }[];
  readonly documentType: Json;
}

interface StoredCatalog {
  readonly tables: readonly {
    readonly name: string;
    readonly number: number;
    readonly indexes: readonly { name: string; number: number; fields: readonly string[] }[];
    readonly documentType: Json;
  }[];
  readonly nextIndexNumber: number;
  /** Indexes whose entries have to go: taken out of the schema, or never finished. */
  readonly dropped: readonly number[];
}

const FIRST_USER_TABLE = 10_001;
const FIRST_INDEX = 1;
const NAME_LENGTH_MAX = 64;
const TABLES_MAX = 10_000;
const INDEX_PREFIX_BITS = 8;

export const BY_ID = "by_id";
export const BY_CREATION_TIME = "by_creation_time";

/** The names and numbers of tables and indexes. Tables come into being when first named. */
export class Catalog {
  readonly #byName = new Map<string, TableInfo>();
  readonly #byNumber = new Map<number, TableInfo>();
  readonly dropped: Set<number>;
  #nextIndexNumber: number;
  /** Whether the stored copy is behind. */
  dirty = false;
  /** Changes whenever the indexes do: writes planned against the old ones must be planned anew. */
  generation = 0;

  constructor(storedJson?: string) {
    const stored = storedJson === undefined ? undefined : (JSON.parse(storedJson) as StoredCatalog);
    this.#nextIndexNumber = stored?.nextIndexNumber ?? FIRST_INDEX;
    this.dropped = new Set(stored?.dropped);
    for (const table of stored?.tables ?? []) {
      const [byId, byCreation, ...rest] = table.indexes.map(indexInfo);
      if (byId === undefined || byCreation === undefined) {
        throw new Error(`The stored catalog is damaged at table ${table.name}.`);
      }
      this.#add(tableInfo(table, [byId, byCreation, ...rest]));
    }
    this.dirty = false;
  }

  toJson(): string {
    const stored: StoredCatalog = {
      tables: [...this.#byName.values()].map(({ name, number, indexes, documentType }) => ({
        name,
        number,
        indexes: indexes.map((index) => ({
          name: index.name,
          number: index.number,
          fields: index.fields,
        })),
        documentType,
      })),
      nextIndexNumber: this.#nextIndexNumber,
      dropped: [...this.dropped],
    };
    return JSON.stringify(stored);
  }

  /** The table of that name; reading or writing a new name makes it. */
  table(name: string): TableInfo {
    const known = this.#byName.get(name);
    if (known !== undefined) return known;
    checkName(name, "Table name");
    if (this.#byName.size >= TABLES_MAX) {
      throw new Error(`Too many tables (maximum ${TABLES_MAX}).`);
    }
    const numbers = [...this.#byName.values()]
      .filter((table) => table.isSystem === name.startsWith("_"))
      .map((table) => table.number);
    const first = name.startsWith("_") ? 1 : FIRST_USER_TABLE;
    const number = Math.max(first - 1, ...numbers) + 1;
    const indexes = [
      this.#newIndex(BY_ID, []),
      this.#newIndex(BY_CREATION_TIME, ["_creationTime"]),
    ] as const;
    return this.#add(tableInfo({ name, number, documentType: null }, [...indexes]));
  }

  find(name: string): TableInfo | undefined {
    return this.#byName.get(name);
  }

  byNumber(number: number): TableInfo | undefined {
    return this.#byNumber.get(number);
  }

  all(): TableInfo[] {
    return [...this.#byName.values()];
  }

  /** An index that no table has yet: entries are built under its number first. */
  planIndex(name: string, fields: readonly string[]): IndexInfo {
    return this.#newIndex(name, [...fields, "_creationTime"]);
  }

  /** Puts a table's declared indexes and validator in place. */
  define(name: string, declared: readonly IndexInfo[], documentType: Json): void {
    const [byId, byCreation] = this.table(name).indexes;
    const { number } = this.table(name);
    this.#add(tableInfo({ name, number, documentType }, [byId, byCreation, ...declared]));
    this.generation += 1;
  }

  #add(table: TableInfo): TableInfo {
    this.#byName.set(table.name, table);
    this.#byNumber.set(table.number, table);
    this.dirty = true;
    return table;
  }

  #newIndex(name: string, fields: readonly string[]): IndexInfo {
    const number = this.#nextIndexNumber;
    this.#nextIndexNumber += 1;
    this.dirty = true;
    return indexInfo({ name, number, fields });
  }
}

/** The index of a query, or the platform's complaint that there is none. */
export function findIndex(table: TableInfo, name: string): IndexInfo {
  const index = table.indexes.find((candidate) => candidate.name === name);
  if (index === undefined) throw new Error(`Index ${table.name}.${name} not found.`);
  return index;
}

/** The key of a document in an index: the values of its fields, then its id. */
export function indexKey(index: IndexInfo, document: JsonObject, id: string): string {
  if (index.paths.length === 0) return id;
  return encodeValues(index.paths.map((path) => fieldAt(document, path))) + id;
}

/** The three bytes that every stored key of the index starts with. */
export function indexPrefix(indexNumber: number): string {
  return String.fromCharCode(
    (indexNumber >> (2 * INDEX_PREFIX_BITS)) & 0xff,
    (indexNumber >> INDEX_PREFIX_BITS) & 0xff,
    indexNumber & 0xff,
  );
}

function checkName(name: string, what: string): void {
  if (name.length > NAME_LENGTH_MAX || !/^_?[a-zA-Z][a-zA-Z0-9_]*$/.test(name)) {
    throw new Error(
      `${what} "${name}" is invalid: it must start with a letter, hold only letters, digits and underscores and be at most ${NAME_LENGTH_MAX} characters long.`,
    );
  }
}

function indexInfo(index: { name: string; number: number; fields: readonly string[] }): IndexInfo {
  return { ...index, paths: index.fields.map((field) => field.split(".")) };
}

function tableInfo(
  table: { readonly name: string; readonly number: number; readonly documentType: Json },
  indexes: TableInfo["indexes"],
): TableInfo {
  return {
    name: table.name,
    number: table.number,
    documentType: table.documentType,
    isSystem: table.name.startsWith("_"),
    idLength: idLength(table.number),
    indexes,
  };
}
