/**
 * How counters of one key spread over documents by their rate. The first document of a key is its
 * director: while the rate is low it takes every count, and knows the rate from that. Once the rate
 * is high, or the director was written a moment ago, counts go to the other documents at random and
 * only a few, weighted, to the director. It is meant to be read on a stale snapshot, so that
 * reading it makes nobody wait.
 */
export interface Rate {
  /** Events per second, averaged with a memory of `MEMORY_MS`. */
  readonly perSecond: number;
  /** When it was so; it fades from then on. */
  readonly atMs: number;
}

export interface Place {
  /** 0 is the director. */
  readonly shard: number;
  /** How many events this one stands for in the director's rate. */
  readonly weight: number;
}

/** Documents of one key, the director not counted. */
export const SPREAD_MAX = 48;

const MEMORY_MS = 1_000;
/**
 * The director takes up to 5/s alone. A rate known from a second scatters around the true one,
 * so spreading starts two deviations above that.
 */
const ALONE_PER_SECOND_MAX = 8;
/** A director written so lately has others about to write it. */
const CROWD_MS = 100;
/** Documents that such a crowd spreads over. */
const CROWD_SHARDS = 8;
/** What one document takes of a high rate, in events per second. */
const SHARD_PER_SECOND = 4;
/** Writes of the director at a high rate, per second: enough to know the rate, too few to meet. */
const DIRECTED_PER_SECOND = 2;

/** The rate as it stands now. */
export function perSecondAt(rate: Rate | null, nowMs: number): number {
  if (rate === null) return 0;
  return rate.perSecond * Math.exp(-Math.max(0, nowMs - rate.atMs) / MEMORY_MS);
}

/** The rate after an event that stands for `weight` events. */
export const countedRate = (rate: Rate | null, weight: number, nowMs: number): Rate => ({
  perSecond: perSecondAt(rate, nowMs) + (weight * 1_000) / MEMORY_MS,
  atMs: nowMs,
});

/** Where one event is counted. */
export function placeOf(rate: Rate | null, nowMs: number, random: () => number): Place {
  const perSecond = perSecondAt(rate, nowMs);
  if (perSecond <= ALONE_PER_SECOND_MAX) {
    // Of a crowd that came out of silence one is the first; the others meet it and make room.
    const crowded = rate !== null && nowMs - rate.atMs < CROWD_MS;
    if (!crowded) return { shard: 0, weight: 1 };
    return { shard: Math.floor(random() * CROWD_SHARDS), weight: CROWD_SHARDS };
  }
  const directed = DIRECTED_PER_SECOND / perSecond;
  if (random() < directed) return { shard: 0, weight: 1 / directed };
  const shards = Math.min(SPREAD_MAX, Math.ceil(perSecond / SHARD_PER_SECOND));
  return { shard: 1 + Math.floor(random() * shards), weight: 1 };
}
