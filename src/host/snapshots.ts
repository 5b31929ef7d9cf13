import type { Snapshot, Store } from "./store";

/** A snapshot that several transactions share; it closes when the last one lets go. */
export interface SharedSnapshot extends Snapshot {
  readonly openedMs: number;
  users: number;
  /** Set when the snapshot was taken away from its users because it grew too old. */
  expired: boolean;
}

// An open snapshot keeps the space of everything deleted since from being used again.
export const SNAPSHOT_AGE_MS_MAX = 20_000;
// Joining an old snapshot would leave a new transaction too little time.
const JOIN_AGE_MS_MAX = 5_000;
const HELD_SNAPSHOTS_MAX = 32;
const LAGGING_SNAPSHOTS_MAX = 16;

/**
 * The snapshots in use. All transactions that begin between two batches share one reader of the
 * store, opened when the earlier batch is on disk, so nobody sees what a crash could take back.
 */
export class Snapshots {
  readonly #store: Store;
  readonly #monotonicMs: () => number;
  readonly #open = new Set<SharedSnapshot>();
  readonly #held = new Map<number, SharedSnapshot>();
  /** Earlier snapshots kept for lagging readers, newest last; empty unless a test asks for lag. */
  readonly #earlier: SharedSnapshot[] = [];
  readonly #keepsEarlier: boolean;
  #current: SharedSnapshot;

  constructor(store: Store, options: { monotonicMs: () => number; keepsEarlier: boolean }) {
    this.#store = store;
    this.#monotonicMs = options.monotonicMs;
    this.#keepsEarlier = options.keepsEarlier;
    this.#current = this.#openNew();
  }

  get latestTs(): number {
    return this.#current.ts;
  }

  /** Moves on to the batch just flushed; call before the next one is handed to the store. */
  publish(): void {
    const previous = this.#current;
    this.#current = this.#openNew();
    if (!this.#keepsEarlier) {
      this.release(previous);
      return;
    }
    this.#earlier.push(previous);
    if (this.#earlier.length > LAGGING_SNAPSHOTS_MAX) this.#releaseMaybe(this.#earlier.shift());
  }

  /** The newest snapshot; `renewable` says that no batch is on its way to the store. */
  acquire(renewable: boolean): SharedSnapshot {
    if (renewable && this.#age(this.#current) > JOIN_AGE_MS_MAX) this.#renew();
    this.#current.users += 1;
    return this.#current;
  }

  /** The snapshot some batches before the newest, for readers that a test lets lag. */
  acquireLagging(batches: number): SharedSnapshot | null {
    const snapshot = batches > 0 ? this.#earlier.at(-batches) : undefined;
    if (snapshot === undefined || this.#age(snapshot) > JOIN_AGE_MS_MAX) return null;
    snapshot.users += 1;
    return snapshot;
  }

  release(snapshot: SharedSnapshot): void {
    snapshot.users -= 1;
    if (snapshot.users === 0) this.#close(snapshot);
  }

  /** Keeps the newest snapshot for `query_at_ts`; asking again at the same commit extends it. */
  hold(renewable: boolean): number {
    this.sweep();
    const ts = this.latestTs;
    const held = this.#held.get(ts);
    if (held === undefined && this.#held.size >= HELD_SNAPSHOTS_MAX) {
      throw new Error(
        `Too many snapshots are held for query_at_ts (limit: ${HELD_SNAPSHOTS_MAX}); try again in a few seconds.`,
      );
    }
    if (renewable) this.#renew();
    this.#held.set(ts, this.acquire(false));
    this.#releaseMaybe(held);
    return ts;
  }

  acquireHeld(ts: number): SharedSnapshot {
    this.sweep();
    const snapshot = ts === this.#current.ts ? this.#current : this.#held.get(ts);
    if (snapshot === undefined) {
      throw new Error(`The snapshot at ${ts} is no longer held; take a new timestamp.`);
    }
    snapshot.users += 1;
    return snapshot;
  }

  /** Closes snapshots that grew too old and fails whoever still uses them. */
  sweep(): void {
    for (const [ts, held] of this.#held) {
      if (this.#age(held) <= SNAPSHOT_AGE_MS_MAX) continue;
      this.#held.delete(ts);
      this.release(held);
    }
    for (const snapshot of this.#open) {
      if (this.#age(snapshot) <= SNAPSHOT_AGE_MS_MAX) continue;
      if (snapshot !== this.#current) this.#expire(snapshot);
      // The newest snapshot holds back nothing, unless transactions stay on it.
      else if (snapshot.users > 1) {
        this.#current = this.#openNew();
        this.release(snapshot);
        this.#expire(snapshot);
      }
    }
  }

  get openCount(): number {
    return this.#open.size;
  }

  close(): void {
    for (const snapshot of this.#open) this.#expire(snapshot);
  }

  #renew(): void {
    const previous = this.#current;
    this.#current = this.#openNew();
    this.release(previous);
  }

  // The field `#current` counts as one user.
  #openNew(): SharedSnapshot {
    const snapshot = this.#store.openSnapshot();
    const shared = { ...snapshot, openedMs: this.#monotonicMs(), users: 1, expired: false };
    this.#open.add(shared);
    return shared;
  }

  #age(snapshot: SharedSnapshot): number {
    return this.#monotonicMs() - snapshot.openedMs;
  }

  #releaseMaybe(snapshot: SharedSnapshot | undefined): void {
    if (snapshot !== undefined) this.release(snapshot);
  }

  #expire(snapshot: SharedSnapshot): void {
    if (snapshot.expired) return;
    snapshot.expired = true;
    this.#close(snapshot);
  }

  #close(snapshot: SharedSnapshot): void {
    if (this.#open.delete(snapshot)) this.#store.closeSnapshot(snapshot);
  }
}
