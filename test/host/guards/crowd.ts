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
  /** How many ask at once; how fast they are served is the machine's affair. */
  readonly callers: number;
  /** How many asks are made in all, or how many are to be granted. */
  readonly until: { readonly asks: number } | { readonly calls: number };
  /** Longest time that one holds its slot, in milliseconds; who is refused waits as long. */
  readonly holdMs: number;
}

/** Callers that ask again and again, and each time hold what they get for a random while. */
export async function crowd(
  app: Guarded,
  { callers, holdMs, provider, until }: Crowd,
): Promise<Seen> {
  const holders = new Holders();
  const seen = { calls: 0, saturated: 0, lost: 0 };
  let asks = 0;
  const over = () => ("asks" in until ? asks >= until.asks : seen.calls >= until.calls);
  await together(callers, async () => {
    while (!over()) {
      asks += 1;
      const verdict = await app.admit(provider);
      if (verdict.ok) {
        holders.enter(verdict.permit);
        seen.calls += 1;
        await sleep(Math.random() * holdMs);
        holders.leave(verdict.permit);
        await app.settle(verdict.permit, "success");
        continue;
      }
      if (verdict.code === LOST) seen.lost += 1;
      else seen.saturated += 1;
      await sleep(Math.random() * holdMs);
    }
  });
  return { ...seen, most: holders.most };
}
