/**
 * Breaker, probes and slots of one provider said naively: it remembers every call there ever was,
 * and looks through the list whenever it is asked. It draws no lots: told which slot and which
 * place a call got, it says whether that was right.
 */
import type { BreakerPolicy, OpenReason } from "../../../src/core/breaker";

export type Outcome = "success" | "failure" | "neutral";

export interface NaivePolicy extends BreakerPolicy {
  readonly size: number;
  /** Lease of a slot, in milliseconds; at least that of a probe. */
  readonly leaseMs: number;
}

interface Call {
  readonly id: number;
  readonly slot: number;
  /** Place among the probes, for one that is a probe. */
  readonly place: number | null;
  readonly generation: number;
  readonly leaseUntilMs: number;
  readonly probeUntilMs: number;
  /** Whether it can still be settled, and whether its place is still its own. */
  holdsSlot: boolean;
  holdsPlace: boolean;
  succeeded: boolean;
}

/** A call that was settled, as the counts know it. */
interface Counted {
  readonly turn: number;
  readonly slot: number;
  readonly atMs: number;
  /** Generation it counts for: that at its end, even where it began in an earlier one. */
  readonly generation: number;
  readonly outcome: Outcome;
  readonly slow: boolean;
}

type State =
  | { readonly kind: "closed" | "forced_open" | "metrics_only" }
  | {
      readonly kind: "open";
      readonly sinceMs: number;
      readonly openings: number;
      readonly reason: OpenReason;
    };

type Expected =
  | { readonly admit: true; readonly probe: boolean }
  /** `retryAfterMs` is null where no slot is free. */
  | { readonly admit: false; readonly retryAfterMs: number | null };

export interface Sums {
  readonly calls: number;
  readonly failures: number;
  readonly slow: number;
  readonly run: number;
}

export class NaiveProvider {
  state: State = { kind: "closed" };
  generation = 0;
  /** Settlements so far: what a reader of an older state has seen is told by such a number. */
  turn = 0;
  readonly policy: NaivePolicy;
  private readonly calls = new Map<number, Call>();
  /** Those that still hold something: only they are looked through, for the time it takes. */
  private live: readonly Call[] = [];
  private readonly counted: Counted[] = [];

  constructor(policy: NaivePolicy) {
    this.policy = policy;
  }

  phase(nowMs: number): "closed" | "open" | "half_open" | "forced_open" | "metrics_only" {
    if (this.state.kind !== "open") return this.state.kind;
    return nowMs < this.openUntilMs() ? "open" : "half_open";
  }

  /** Slots held now, those of calls that never came back until their leases end. */
  inFlight(nowMs: number): number {
    return this.holders(nowMs).length;
  }

  /** Probes that count against the limit now: those out, and those that succeeded. */
  liveProbes(nowMs: number): number {
    return this.probes(nowMs).length;
  }

  /** What an admission must say at this moment. */
  expected(nowMs: number): Expected {
    const phase = this.phase(nowMs);
    if (phase === "forced_open") return { admit: false, retryAfterMs: this.policy.cooldownMs };
    if (phase === "open") return { admit: false, retryAfterMs: this.openUntilMs() - nowMs };
    if (phase === "half_open") {
      const live = this.probes(nowMs);
      const out = live.filter(({ succeeded }) => !succeeded);
      if (live.length >= this.policy.probesMax)
        return {
          admit: false,
          retryAfterMs: Math.min(...out.map(({ probeUntilMs }) => probeUntilMs)) - nowMs,
        };
    }
    if (this.inFlight(nowMs) >= this.policy.size) return { admit: false, retryAfterMs: null };
    return { admit: true, probe: phase === "half_open" };
  }

  /** A call got this slot, and this place where it is a probe. Throws where somebody has it. */
  admitted(
    id: number,
    { slot, place }: { readonly slot: number; readonly place: number | null },
    nowMs: number,
  ): void {
    if (slot < 0 || slot >= this.policy.size) throw new Error(`there is no slot ${slot}`);
    if (this.holders(nowMs).some((call) => call.slot === slot)) throw new Error("slot is held");
    if (place !== null) {
      if (place < 0 || place >= this.policy.probesMax)
        throw new Error(`there is no place ${place}`);
      if (this.probes(nowMs).some((call) => call.place === place)) throw new Error("place is held");
    }
    for (const call of this.live) {
      if (call.slot === slot) call.holdsSlot = false;
      if (place !== null && call.place === place) call.holdsPlace = false;
    }
    const call: Call = {
      id,
      slot,
      place,
      generation: this.generation,
      leaseUntilMs: nowMs + this.policy.leaseMs,
      probeUntilMs: nowMs + this.policy.probeLeaseMs,
      holdsSlot: true,
      holdsPlace: place !== null,
      succeeded: false,
    };
    this.calls.set(id, call);
    this.live = [...this.live.filter((one) => one.holdsSlot || one.holdsPlace), call];
  }

  /**
   * A call reports, for the first time or again. Other slots are seen as they were after
   * `seenTurn` settlements. Returns whether that freed its slot.
   */
  settled(
    id: number,
    { outcome, slow }: { readonly outcome: Outcome; readonly slow: boolean },
    { nowMs, seenTurn = Infinity }: { readonly nowMs: number; readonly seenTurn?: number },
  ): boolean {
    const call = this.calls.get(id);
    if (call === undefined) throw new Error(`there was no call ${id}`);
    if (!call.holdsSlot) return false;
    call.holdsSlot = false;
    this.turn += 1;
    const heard = call.generation === this.generation;
    const counts = { outcome: heard ? outcome : "neutral", slow: heard && slow } as const;
    const { generation, turn } = this;
    this.counted.push({ turn, slot: call.slot, atMs: nowMs, generation, ...counts });
    if (!heard) return true;
    if (call.place !== null) this.probed(call, outcome, nowMs);
    else if (this.state.kind === "closed" && (outcome === "failure" || slow))
      this.judge(nowMs, call.slot, seenTurn);
    return true;
  }

  force(kind: "closed" | "forced_open" | "metrics_only"): void {
    this.change({ kind });
  }

  /** What the slots counted, other slots than one as they were after `seenTurn` settlements. */
  sums(nowMs: number, slot = -1, seenTurn = Infinity): Sums {
    const seen = this.counted.filter(
      (one) => one.generation === this.generation && (one.slot === slot || one.turn <= seenTurn),
    );
    const inWindow = seen.filter((one) => this.isInWindow(one, seen, nowMs));
    const successes = seen.filter(({ outcome }) => outcome === "success");
    const lastMs = Math.max(0, ...successes.map(({ atMs }) => atMs));
    const run = seen.filter(
      (one) =>
        one.outcome === "failure" &&
        one.atMs >= lastMs &&
        !successes.some((success) => success.slot === one.slot && success.turn > one.turn),
    );
    return {
      calls: inWindow.filter(({ outcome }) => outcome !== "neutral").length,
      failures: inWindow.filter(({ outcome }) => outcome === "failure").length,
      slow: inWindow.filter((one) => one.slow).length,
      run: run.length,
    };
  }

  /** Calls of this generation that ended less than so long ago, whatever the halves are. */
  since(fromMs: number): number {
    return this.counted.filter(
      ({ atMs, generation, outcome }) =>
        generation === this.generation && outcome !== "neutral" && atMs > fromMs,
    ).length;
  }

  /** A slot's window moves on by halves, from the first call it counted in this generation on. */
  private isInWindow({ atMs, slot }: Counted, seen: readonly Counted[], nowMs: number): boolean {
    const anchorMs = seen.find((one) => one.slot === slot)?.atMs ?? nowMs;
    const half = (ms: number) => Math.floor((ms - anchorMs) / (this.policy.windowMs / 2));
    return half(nowMs) - half(atMs) <= 1;
  }

  private probed(call: Call, outcome: Outcome, nowMs: number): void {
    if (!call.holdsPlace) return;
    call.holdsPlace = outcome === "success";
    if (outcome === "neutral") return;
    if (outcome === "failure") {
      this.open("failed_probe", nowMs);
      return;
    }
    call.succeeded = true;
    const succeeded = this.inGeneration().filter((one) => one.holdsPlace && one.succeeded);
    if (succeeded.length >= this.policy.probesMax) this.change({ kind: "closed" });
  }

  private judge(nowMs: number, slot: number, seenTurn: number): void {
    const { callsMin, failureRate, failureThreshold, slowCallRate } = this.policy;
    const { calls, failures, run, slow } = this.sums(nowMs, slot, seenTurn);
    if (run >= failureThreshold) this.open("consecutive_failures", nowMs);
    else if (calls < callsMin) return;
    else if (failures / calls >= failureRate) this.open("failure_rate", nowMs);
    else if (slow / calls >= slowCallRate) this.open("slow_call_rate", nowMs);
  }

  private open(reason: OpenReason, nowMs: number): void {
    const openings = this.state.kind === "open" ? this.state.openings + 1 : 1;
    this.change({ kind: "open", sinceMs: nowMs, openings, reason });
  }

  private change(state: State): void {
    this.state = state;
    this.generation += 1;
  }

  private openUntilMs(): number {
    if (this.state.kind !== "open") throw new Error("it is not open");
    const growth = Math.min(8, 2 ** (this.state.openings - 1));
    return this.state.sinceMs + this.policy.cooldownMs * growth;
  }

  private holders(nowMs: number): Call[] {
    return this.live.filter((call) => call.holdsSlot && call.leaseUntilMs > nowMs);
  }

  private inGeneration(): Call[] {
    return this.live.filter(({ generation }) => generation === this.generation);
  }

  private probes(nowMs: number): Call[] {
    return this.inGeneration().filter(
      (call) => call.holdsPlace && (call.succeeded || call.probeUntilMs > nowMs),
    );
  }
}
