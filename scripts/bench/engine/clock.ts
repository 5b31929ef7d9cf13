interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly happen: () => void;
}

const nextTurn = globalThis.setImmediate;

/**
 * Simulated time: nothing waits, the next event is always now. Between two events everything that
 * the first one set off runs to where it waits for the clock again.
 */
export class Clock {
  readonly #events: Event[] = [];
  readonly #idle: (() => void)[] = [];
  #order = 0;
  nowMs: number;

  constructor(startMs: number) {
    this.nowMs = startMs;
  }

  at(atMs: number, happen: () => void): void {
    this.#push({ atMs: Math.max(atMs, this.nowMs), order: this.#order++, happen });
  }

  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.at(this.nowMs + delayMs, resolve);
    });
  }

  /** Resolves when nothing is left to happen. */
  idle(): Promise<void> {
    return new Promise((resolve) => {
      this.#idle.push(resolve);
    });
  }

  /** Lets time pass until the work is done; other events stay where they are. */
  async runFor<T>(work: Promise<T>): Promise<T> {
    const state = { isOver: false };
    const over = (): void => {
      state.isOver = true;
    };
    work.then(over, over);
    for (;;) {
      await settled();
      if (state.isOver) return work;
      const next = this.#pop();
      if (next !== undefined) {
        this.nowMs = next.atMs;
        next.happen();
        continue;
      }
      const waiting = this.#idle.splice(0);
      if (waiting.length === 0) throw new Error("The work waits for what never happens.");
      for (const resolve of waiting) resolve();
    }
  }

  #push(event: Event): void {
    const events = this.#events;
    let at = events.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = events[parent];
      if (above === undefined || isBefore(above, event)) break;
      events[at] = above;
      at = parent;
    }
    events[at] = event;
  }

  #pop(): Event | undefined {
    const events = this.#events;
    const first = events[0];
    const last = events.pop();
    if (first === undefined || last === undefined || events.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      const right = events[child + 1];
      let smaller = events[child];
      if (smaller === undefined) break;
      if (right !== undefined && isBefore(right, smaller)) {
        child += 1;
        smaller = right;
      }
      if (isBefore(last, smaller)) break;
      events[at] = smaller;
      at = child;
    }
    events[at] = last;
    return first;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

function settled(): Promise<void> {
  return new Promise((resolve) => {
    nextTurn(resolve);
  });
}
