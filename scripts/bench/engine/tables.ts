import { idLength } from "../../../src/host/ids";
import { fieldAt, type Json, type JsonObject } from "../../../src/host/json";
import { encodeValues } from "../../../src/host/keys";
import { measureDocument } from "../../../src/host/limits";
import { keyBytesRead, keyBytesWritten } from "./billing";
import { SortedKeys } from "./sortedKeys";

export const BY_ID = "by_id";
const BY_CREATION_TIME = "by_creation_time";
const FIRST_TABLE_NUMBER = 10_001;
// The text of a large document is made again at each read instead of being kept.
const KEPT_TEXT_BYTES_MAX = 8_192;

/** One index: its keys in order. A key ends in the id of its document. */
export interface Index {
  readonly name: string;
  /** Declared in the schema, so that its keys are billed. */
  readonly isDeclared: boolean;
  readonly place: number;
  readonly paths: readonly (readonly string[])[];
  readonly fields: readonly string[];
  readonly keys: SortedKeys;
}

interface IndexSchema {
  readonly indexDescriptor: string;
  readonly fields: readonly string[];
}

/** What `schema.export()` says of one table. */
interface TableSchema {
  readonly tableName: string;
  readonly indexes: readonly IndexSchema[];
  readonly documentType: Json;
}

export class Table {
  readonly component: string;
  readonly name: string;
  readonly number: number;
  readonly isSystem: boolean;
  readonly documentType: Json;
  readonly indexes: readonly Index[];
  readonly documents = new Map<string, StoredDocument>();
  readonly idLength: number;

  constructor(component: string, number: number, schema: TableSchema) {
    this.component = component;
    this.name = schema.tableName;
    this.number = number;
    this.idLength = idLength(number);
    this.isSystem = schema.tableName.startsWith("_");
    this.documentType = schema.documentType;
    const declared = schema.indexes.map(({ indexDescriptor, fields }) => ({
      name: indexDescriptor,
      fields: [...fields, "_creationTime"],
      isDeclared: true,
    }));
    const all = [
      { name: BY_ID, fields: [], isDeclared: false },
      { name: BY_CREATION_TIME, fields: ["_creationTime"], isDeclared: false },
      ...declared,
    ];
    this.indexes = all.map((index, place) => ({
      ...index,
      place,
      paths: index.fields.map((field) => field.split(".")),
      keys: new SortedKeys(),
    }));
  }

  index(name: string): Index {
    const found = this.indexes.find((index) => index.name === name);
    if (found === undefined) throw new Error(`There is no index ${this.name}.${name}.`);
    return found;
  }

  /** Replaces what is stored under an id; null deletes it. */
  put(id: string, next: StoredDocument | null): void {
    const before = this.documents.get(id);
    for (const { keys, place } of this.indexes) {
      const oldKey = before?.keys[place];
      const newKey = next?.keys[place];
      if (oldKey === newKey) continue;
      if (oldKey !== undefined) keys.remove(oldKey);
      if (newKey !== undefined) keys.add(newKey);
    }
    if (next === null) this.documents.delete(id);
    else this.documents.set(id, next);
  }

  clear(): void {
    this.documents.clear();
    for (const { keys } of this.indexes) keys.clear();
  }

  idOf(key: string): string {
    return key.slice(-this.idLength);
  }
}

/** A document with everything that is asked of it again and again. */
export class StoredDocument {
  readonly id: string;
  readonly value: JsonObject;
  readonly bytes: number;
  /** Its key in each index of the table. */
  readonly keys: readonly string[];
  readonly #table: Table;
  #text: string | null = null;
  #keyBytesWritten: number | null = null;

  constructor(table: Table, id: string, value: JsonObject) {
    this.#table = table;
    this.id = id;
    this.value = value;
    this.bytes = measureDocument(value);
    this.keys = table.indexes.map(
      (index) => encodeValues(index.paths.map((path) => fieldAt(value, path))) + id,
    );
  }

  get text(): string {
    if (this.#text !== null) return this.#text;
    const text = JSON.stringify(this.value);
    if (this.bytes <= KEPT_TEXT_BYTES_MAX) this.#text = text;
    return text;
  }

  /** What reading it through an index adds to its own size. */
  keyBytesRead(index: Index): number {
    return index.isDeclared ? keyBytesRead(this.id, this.#valuesIn(index)) : 0;
  }

  /** What writing it adds: a key in every declared index, changed or not. */
  get keyBytesWritten(): number {
    this.#keyBytesWritten ??= this.#table.indexes
      .filter((index) => index.isDeclared)
      .reduce((sum, index) => sum + keyBytesWritten(this.id, this.#valuesIn(index)), 0);
    return this.#keyBytesWritten;
  }

  #valuesIn(index: Index): (Json | undefined)[] {
    // Every key also holds the creation time, which the platform's formula counts by itself.
    return index.paths.slice(0, -1).map((path) => fieldAt(this.value, path));
  }
}

const SCHEDULED_FUNCTIONS: TableSchema = {
  tableName: "_scheduled_functions",
  indexes: [],
  documentType: null,
};

/** The tables of one component, all of them known from its schema. */
export class Tables {
  readonly #component: string;
  readonly #byName = new Map<string, Table>();
  readonly #byNumber = new Map<number, Table>();
  readonly scheduledFunctions: Table;

  constructor(component: string, schemaJson: string) {
    this.#component = component;
    const schema = JSON.parse(schemaJson) as { readonly tables: readonly TableSchema[] };
    for (const table of [...schema.tables, SCHEDULED_FUNCTIONS]) this.#add(table);
    this.scheduledFunctions = this.named(SCHEDULED_FUNCTIONS.tableName);
  }

  named(name: string): Table {
    const table = this.#byName.get(name);
    if (table === undefined) throw new Error(`There is no table ${name}.`);
    return table;
  }

  find(name: string): Table | undefined {
    return this.#byName.get(name);
  }

  numbered(number: number): Table | undefined {
    return this.#byNumber.get(number);
  }

  /** Drops every document. */
  clear(): void {
    for (const table of this.#byName.values()) table.clear();
  }

  #add(schema: TableSchema): void {
    const number = FIRST_TABLE_NUMBER + this.#byName.size;
    const table = new Table(this.#component, number, schema);
    this.#byName.set(table.name, table);
    this.#byNumber.set(number, table);
  }
}
