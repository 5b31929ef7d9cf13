import { getConvexSize, jsonToConvex, type JSONValue } from "convex/values";
import { isObject, untag, type Json } from "../../../src/host/json";

/**
 * The platform's formulas for database bandwidth, as its source has them: a read costs the
 * document and, through a declared index, the key it was found under; a write costs the document
 * and a key in every declared index.
 */

/** Table number and internal id, as an index entry holds them. */
const ENTRY_ID_BYTES = 20;
/** The creation time that closes every key. */
const CREATION_TIME_BYTES = 9;
/** Type marker and terminator. */
const TEXT_FRAME_BYTES = 2;

export function keyBytesRead(id: string, values: readonly (Json | undefined)[]): number {
  const fields = values.reduce<number>((sum, value) => sum + sortKeyBytes(value), 0);
  return CREATION_TIME_BYTES + TEXT_FRAME_BYTES + id.length + fields;
}

export function keyBytesWritten(id: string, values: readonly (Json | undefined)[]): number {
  const fields = values.reduce<number>((sum, value) => sum + valueBytes(value), 0);
  return ENTRY_ID_BYTES + CREATION_TIME_BYTES + TEXT_FRAME_BYTES + id.length + fields;
}

export function valueBytes(value: Json | undefined): number {
  return value === undefined ? 0 : getConvexSize(jsonToConvex(value as JSONValue));
}

/** Sizes of integers in a sort key grow with the number, unlike in a document. */
const INTEGER_KEY_SIZES: readonly (readonly [below: bigint, bytes: number])[] = [
  [1n, 1],
  [2n ** 7n, 2],
  [2n ** 15n, 3],
  [2n ** 31n, 5],
];
const LARGEST_INTEGER_KEY_BYTES = 9;

function sortKeyBytes(value: Json | undefined): number {
  if (value === undefined) return 1;
  if (!isObject(value) || untag(value).kind !== "integer") return valueBytes(value);
  const integer = jsonToConvex(value as JSONValue);
  if (typeof integer !== "bigint") throw new Error("an integer is decoded as one");
  const magnitude = integer < 0n ? -integer : integer;
  const size = INTEGER_KEY_SIZES.find(([below]) => magnitude < below);
  return size?.[1] ?? LARGEST_INTEGER_KEY_BYTES;
}

/** What the documents of one table cost. */
export interface TableUsage {
  documentsRead: number;
  documentsWritten: number;
  bytesRead: number;
  bytesWritten: number;
}

/** What one transaction, or many together, cost. Bytes of the tables hold keys as well. */
export class Usage {
  /** By component and table, as in `workpool/work`; the app's own begin with a slash. */
  readonly tables = new Map<string, TableUsage>();
  /** Of documents alone, as `ctx.meta.getTransactionMetrics()` counts. */
  documentBytesRead = 0;
  documentBytesWritten = 0;
  writeOperations = 0;
  /** Point reads and index ranges that the functions asked for. */
  queries = 0;
  /** Intervals in the read set: also those of patches, replacements and deletions. */
  intervals = 0;
  scheduled = 0;

  table(component: string, name: string): TableUsage {
    const key = `${component}/${name}`;
    let usage = this.tables.get(key);
    if (usage === undefined) {
      usage = { documentsRead: 0, documentsWritten: 0, bytesRead: 0, bytesWritten: 0 };
      this.tables.set(key, usage);
    }
    return usage;
  }

  add(other: Usage): void {
    for (const [key, from] of other.tables) {
      const [component, name] = splitKey(key);
      const into = this.table(component, name);
      into.documentsRead += from.documentsRead;
      into.documentsWritten += from.documentsWritten;
      into.bytesRead += from.bytesRead;
      into.bytesWritten += from.bytesWritten;
    }
    this.documentBytesRead += other.documentBytesRead;
    this.documentBytesWritten += other.documentBytesWritten;
    this.writeOperations += other.writeOperations;
    this.queries += other.queries;
    this.intervals += other.intervals;
    this.scheduled += other.scheduled;
  }

  get documentsRead(): number {
    return this.#sum("documentsRead");
  }

  get documentsWritten(): number {
    return this.#sum("documentsWritten");
  }

  get bytesRead(): number {
    return this.#sum("bytesRead");
  }

  get bytesWritten(): number {
    return this.#sum("bytesWritten");
  }

  /** Database bandwidth in both directions. */
  get bytes(): number {
    return this.bytesRead + this.bytesWritten;
  }

  #sum(field: keyof TableUsage): number {
    let sum = 0;
    for (const usage of this.tables.values()) sum += usage[field];
    return sum;
  }
}

function splitKey(key: string): [string, string] {
  const at = key.lastIndexOf("/");
  return [key.slice(0, at), key.slice(at + 1)];
}
