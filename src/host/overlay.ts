import type { TableInfo } from "./catalog";
import type { JsonObject } from "./json";

/** The document a transaction will leave behind in place of what the snapshot holds. */
export interface Write {
  readonly table: TableInfo;
  readonly id: string;
  /** What is stored in the snapshot, or null when the transaction made the document. */
  readonly base: string | null;
  /** The document as it will be, or null when it is deleted. */
  readonly next: NextDocument | null;
}

export interface NextDocument {
  readonly value: JsonObject;
  readonly text: string;
  readonly bytes: number;
  /** The key in each index of the table, in the table's order. */
  readonly keys: readonly string[];
}

/** The uncommitted writes of one transaction on top of those of the transaction around it. */
export class Overlay {
  readonly #parent: Overlay | null;
  readonly #byTable = new Map<number, Map<string, Write>>();
  #changes = 0;

  constructor(parent: Overlay | null) {
    this.#parent = parent;
  }

  /** Grows with every write that is visible here. */
  get version(): number {
    return this.#changes + (this.#parent?.version ?? 0);
  }

  find(tableNumber: number, id: string): Write | undefined {
    return this.#byTable.get(tableNumber)?.get(id) ?? this.#parent?.find(tableNumber, id);
  }

  put(write: Write): void {
    let writes = this.#byTable.get(write.table.number);
    if (writes === undefined) {
      writes = new Map();
      this.#byTable.set(write.table.number, writes);
    }
    writes.set(write.id, write);
    this.#changes += 1;
  }

  /** Every write to the table that is visible here, inner ones over outer ones. */
  ofTable(tableNumber: number): ReadonlyMap<string, Write> {
    const own = this.#byTable.get(tableNumber);
    const outer = this.#parent?.ofTable(tableNumber);
    if (outer === undefined || outer.size === 0) return own ?? new Map<string, Write>();
    return own === undefined ? outer : new Map([...outer, ...own]);
  }

  /** Takes over all writes of a finished sub-transaction. */
  keep(child: Overlay): void {
    for (const write of child.all()) this.put(write);
  }

  *all(): Generator<Write> {
    for (const writes of this.#byTable.values()) yield* writes.values();
  }

  get isEmpty(): boolean {
    return this.#byTable.size === 0;
  }
}
