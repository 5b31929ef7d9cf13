/** Longest time that a permit is kept: whoever hangs must not keep the others out for ever. */
const KEPT_MS_MAX = 20_000;

/** Lets so many through at once; the others wait in the order in which they came. */
export class Permits {
  readonly #waiting: (() => void)[] = [];
  #free: number;

  constructor(atOnce: number) {
    this.#free = atOnce;
  }

  /** Resolves when it is the caller's turn, to what gives the permit back; twice does no harm. */
  async take(): Promise<() => void> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    let kept = true;
    const giveBack = (): void => {
      if (!kept) return;
      kept = false;
      clearTimeout(timer);
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    };
    const timer = setTimeout(giveBack, KEPT_MS_MAX);
    timer.unref();
    return giveBack;
  }
}
