/** Crowds of callers that share one pool, and what they see of each other. */
import type { ProviderId } from "../../../src/providers/table";
import { type Guarded, LOST, type Permit, together } from "./guarded";

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Who holds which slot, as the callers know it: from an admission's answer to the settlement's. */
class Holders {
  most = 0;
  private readonly bySlot = new Map<string, number>();

  enter({ fence, slotId }: Permit): void {
    if (this.bySlot.has(slotId)) throw new Error(`slot ${slotId} has two holders`);
    this.bySlot.set(slotId, fence);
    this.most = Math.max(this.most, this.bySlot.size);
  }

  leave({ slotId }: Permit): void {
    this.bySlot.delete(slotId);
  }
}

export interface Seen {
  readonly calls: number;
  readonly saturated: number;
  readonly lost: number;
  /** Most callers that held a slot at once. */
  readonly most: number;
}

interface Crowd {
  readonly provider: ProviderId;
  readonly callers: number;
  /** When each comes, in milliseconds from the start. */
  readonly atMs: (caller: number) => number;
  /** Longest time that one holds its slot, in milliseconds. */
  readonly holdMs: number;
}

/** Each caller asks once, holds what it gets for a random while, and gives it back. */
export async function crowd(
  app: Guarded,
  { atMs, callers, holdMs, provider }: Crowd,
): Promise<Seen> {
  const holders = new Holders();
  const seen = { calls: 0, saturated: 0, lost: 0 };
  await together(callers, async (i) => {
    await sleep(atMs(i));
    const verdict = await app.admit(provider);
    if (verdict.ok) {
      holders.enter(verdict.permit);
      seen.calls += 1;
      await sleep(Math.random() * holdMs);
      holders.leave(verdict.permit);
      await app.settle(verdict.permit, "success");
    } else if (verdict.code === LOST) seen.lost += 1;
    else seen.saturated += 1;
  });
  return { ...seen, most: holders.most };
}
