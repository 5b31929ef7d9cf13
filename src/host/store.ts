import { open, type Database as Lmdb, type Transaction as LmdbTransaction } from "lmdb";

/** One change to the stored bytes: null removes the key. */
export type StoreWrite = readonly [key: string, value: string | null];

export interface KeyRange {
  /** Inclusive. */
  readonly lower: string;
  /** Exclusive. */
  readonly upper: string;
  readonly reverse?: boolean;
  readonly limit?: number;
}

/** A snapshot: everything read through it is the state of one commit. */
export interface Snapshot {
  readonly ts: number;
  readonly transaction: LmdbTransaction;
}

// Above the default of 126: the 127th open snapshot would throw.
const READERS_MAX = 2_048;
const TIMESTAMP_KEY = "\x00\x00\x00timestamp";
const CATALOG_KEY = "\x00\x00\x00catalog";

const keyEncoder = {
  writeKey(key: string, target: Buffer, start: number): number {
    // `latin1Write` would cut a key that does not fit; the library grows its buffer on this error.
    if (start + key.length > target.length) throw new RangeError("The key does not fit.");
    return start + target.write(key, start, "latin1");
  },
  readKey(source: Buffer, start: number, end: number): string {
    return source.toString("latin1", start, end);
  },
};

/** The bytes on disk: ordered keys to texts, snapshots, and batches that are atomic and durable. */
export class Store {
  readonly #lmdb: Lmdb<string, string>;

  constructor(dir: string) {
    this.#lmdb = open<string, string>({
      path: dir,
      encoding: "string",
      maxReaders: READERS_MAX,
      keyEncoder,
    });
  }

  get(snapshot: Snapshot, key: string): string | undefined {
    return this.#lmdb.get(key, { transaction: snapshot.transaction });
  }

  /** Reads a whole stretch at once, because a cursor must not outlive its snapshot. */
  keys(snapshot: Snapshot, range: KeyRange): string[] {
    const { lower, upper, reverse = false, limit } = range;
    if (lower >= upper) return [];
    return [
      ...this.#lmdb.getKeys({
        transaction: snapshot.transaction,
        ...(limit === undefined ? {} : { limit }),
        ...(reverse
          ? { reverse, start: upper, end: lower, exclusiveStart: true, inclusiveEnd: true }
          : { start: lower, end: upper }),
      }),
    ];
  }

  /** How many keys lie in the range. */
  count(snapshot: Snapshot, range: KeyRange): number {
    if (range.lower >= range.upper) return 0;
    const { lower: start, upper: end } = range;
    return this.#lmdb.getKeysCount({ transaction: snapshot.transaction, start, end });
  }

  /** Opens a snapshot of the newest batch; close it with `closeSnapshot`. */
  openSnapshot(): Snapshot {
    const transaction = this.#lmdb.useReadTransaction();
    // Read inside the snapshot: a batch may have been committed since anyone last looked.
    const ts = Number(this.#lmdb.get(TIMESTAMP_KEY, { transaction }) ?? 0);
    return { ts, transaction };
  }

  closeSnapshot(snapshot: Snapshot): void {
    snapshot.transaction.done();
  }

  catalog(snapshot: Snapshot): string | undefined {
    return this.get(snapshot, CATALOG_KEY);
  }

  /**
   * Writes a batch under one timestamp, all or nothing. Resolves when it is on disk: the library's
   * own promise only says that readers see it.
   */
  async write(writes: Iterable<StoreWrite>, ts: number, catalogJson?: string): Promise<void> {
    const lmdb = this.#lmdb;
    // Everything put in one turn of the event loop is one transaction of the store. Mostly all
    // share one promise; a set keeps a failed one from going unheard.
    const committed = new Set([lmdb.put(TIMESTAMP_KEY, String(ts))]);
    for (const [key, value] of writes) {
      committed.add(value === null ? lmdb.remove(key) : lmdb.put(key, value));
    }
    if (catalogJson !== undefined) committed.add(lmdb.put(CATALOG_KEY, catalogJson));
    const { flushed } = lmdb;
    await Promise.all(committed);
    await flushed;
  }

  async close(): Promise<void> {
    await this.#lmdb.close();
  }
}
