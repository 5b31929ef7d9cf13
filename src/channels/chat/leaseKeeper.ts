import { SECOND } from "../../core/time";
import type { Io } from "../../providers/io";

/** What a heartbeat answers. Not `ok` where the job is another's; `cancelled` where nobody wants it. */
interface Beat {
  readonly ok: boolean;
  readonly cancelled: boolean;
  /** Epoch milliseconds. */
  readonly leaseExpiresAt: number;
}

/** Share of the time left after which a heartbeat is due: two may fail before the lease is lost. */
const BEATS_PER_LEASE = 3;
const GAP_MIN_MS = SECOND / 2;

/**
 * Keeps a lease by heartbeats until it is released; work that is done within a third of it pays for
 * none. `lost` aborts when the work is of no use any more: cancelled, taken over by another, or not
 * heard of until its lease ended.
 */
export function holdLease(
  leaseExpiresAt: number,
  beat: () => Promise<Beat>,
  io: Pick<Io, "now" | "sleep">,
): { readonly lost: AbortSignal; readonly release: () => void } {
  const lost = new AbortController();
  const released = new AbortController();
  void keep();
  return {
    lost: lost.signal,
    release: () => {
      released.abort();
    },
  };

  async function keep(): Promise<void> {
    let endsAtMs = leaseExpiresAt;
    for (;;) {
      await io.sleep(
        Math.max(GAP_MIN_MS, (endsAtMs - io.now()) / BEATS_PER_LEASE),
        released.signal,
      );
      if (released.signal.aborted) return;
      // One that fails is followed by another, as long as there is something to keep.
      const answer = await beat().catch(() => null);
      const isOurs = answer === null ? io.now() < endsAtMs : answer.ok && !answer.cancelled;
      if (!isOurs) {
        lost.abort();
        return;
      }
      endsAtMs = answer?.leaseExpiresAt ?? endsAtMs;
    }
  }
}
