/** The breaker's policies driven as admission and settlement drive them, with lists for tables. */
import {
  admitProbe,
  type Breaker,
  CLOSED,
  closed,
  forced,
  opened,
  phaseAt,
  type Probe,
  reasonToOpen,
} from "../../../src/core/breaker";
import { count, sum, type Tally } from "../../../src/core/tally";
import type { NaivePolicy, Outcome } from "./naiveProvider";

export interface Permit {
  readonly id: number;
  readonly slot: number;
  readonly fence: number;
  readonly generation: number;
  readonly place: number | null;
}

interface Slot {
  readonly untilMs: number;
  readonly fence: number;
  readonly tally: Tally | null;
}

export class DrivenProvider {
  breaker: Breaker = CLOSED;
  readonly policy: NaivePolicy;
  private probes: (Probe & { readonly id: number })[] = [];
  private slots: readonly Slot[];
  /** The slots as they were after each settlement: what a stale snapshot may show. */
  private readonly past: (readonly Slot[])[];

  constructor(policy: NaivePolicy) {
    this.policy = policy;
    this.slots = Array.from({ length: policy.size }, () => ({ untilMs: 0, fence: 0, tally: null }));
    this.past = [this.slots];
  }

  admit(id: number, nowMs: number, random: () => number): Permit | { retryAfterMs: number | null } {
    const phase = phaseAt(this.breaker, nowMs, this.policy);
    if (phase.kind === "open") return { retryAfterMs: phase.retryAfterMs };
    let place = null;
    if (phase.kind === "half_open") {
      const verdict = admitProbe(this.probes, { nowMs, random }, this.policy);
      if (!verdict.admit) return { retryAfterMs: verdict.retryAfterMs };
      ({ place } = verdict);
    }
    const slot = this.slots.findIndex(({ untilMs }) => untilMs <= nowMs);
    const free = this.slots[slot];
    if (free === undefined) return { retryAfterMs: null };
    const fence = free.fence + 1;
    this.write(slot, { ...free, fence, untilMs: nowMs + this.policy.leaseMs });
    if (place !== null) {
      const expiresAtMs = nowMs + this.policy.probeLeaseMs;
      const others = this.probes.filter((probe) => probe.place !== place);
      this.probes = [...others, { id, place, expiresAtMs, succeeded: false }];
    }
    return { id, slot, fence, generation: this.breaker.generation, place };
  }

  /** `lag`: how many settlements the pool that a failing one reads lies back. */
  settle(
    permit: Permit,
    { outcome, slow, lag }: { outcome: Outcome; slow: boolean; lag: number },
    nowMs: number,
  ): boolean {
    const row = this.slots[permit.slot];
    if (row?.fence !== permit.fence) return false;
    const { generation } = this.breaker;
    const { windowMs } = this.policy;
    const heard = permit.generation === generation;
    const settled = heard ? { outcome, slow } : ({ outcome: "neutral", slow: false } as const);
    const tally = count(row.tally, { ...settled, retries: 0, generation }, { nowMs, windowMs });
    const seen = this.past[Math.max(0, this.past.length - 1 - lag)] ?? [];
    this.write(permit.slot, { untilMs: nowMs, fence: row.fence + 1, tally });
    this.past.push(this.slots);
    if (!heard) return true;
    if (permit.place !== null) this.settleProbe(permit.id, outcome, nowMs);
    else if ((outcome === "failure" || slow) && this.breaker.state.kind === "closed") {
      const others = seen.flatMap((one, i) =>
        i === permit.slot || one.tally === null ? [] : [one.tally],
      );
      const counted = sum([...others, tally], { generation, nowMs, windowMs });
      const reason = reasonToOpen(counted, this.policy);
      if (reason !== null) this.change(opened(this.breaker, reason, nowMs));
    }
    return true;
  }

  force(kind: "closed" | "forced_open" | "metrics_only"): void {
    this.change(kind === "closed" ? closed(this.breaker) : forced(this.breaker, kind));
  }

  inFlight(nowMs: number): number {
    return this.slots.filter(({ untilMs }) => untilMs > nowMs).length;
  }

  /** What all slots counted, looked at now. */
  sums(nowMs: number) {
    const { generation } = this.breaker;
    const tallies = this.slots.flatMap(({ tally }) => (tally === null ? [] : [tally]));
    return sum(tallies, { generation, nowMs, windowMs: this.policy.windowMs });
  }

  private settleProbe(id: number, outcome: Outcome, nowMs: number): void {
    const probe = this.probes.find((one) => one.id === id);
    if (probe === undefined) return;
    const others = this.probes.filter((one) => one !== probe);
    if (outcome === "failure") this.change(opened(this.breaker, "failed_probe", nowMs));
    else if (outcome === "neutral") this.probes = others;
    else if (others.filter((one) => one.succeeded).length + 1 >= this.policy.probesMax)
      this.change(closed(this.breaker));
    else this.probes = [...others, { ...probe, succeeded: true }];
  }

  private change(next: Breaker): void {
    this.breaker = next;
    this.probes = [];
  }

  private write(slot: number, row: Slot): void {
    this.slots = this.slots.map((one, i) => (i === slot ? row : one));
  }
}
