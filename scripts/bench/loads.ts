import { Backend, type BackendOptions } from "./engine/backend";
import type { Definition } from "./engine/app";

/** No time passes in a transaction and none conflict: for counting. */
export const COUNTED: BackendOptions = { transactionMs: 0, jitter: 0, schedulerMs: 0, seed: 1 };

/** What a transaction takes on the platform, roughly; see the limits of the method. */
const TRANSACTION_MS = 15;
const JITTER = 0.3;
const SCHEDULER_MS = 10;

export function simulated(
  definition: Definition,
  seed: number,
  variables: Readonly<Record<string, string>> = {},
): Backend {
  return new Backend(definition, {
    transactionMs: TRANSACTION_MS,
    jitter: JITTER,
    schedulerMs: SCHEDULER_MS,
    seed,
    variables,
  });
}

/** Independent arrivals at a mean rate for some time, or all at once. */
export type Load =
  { readonly perSecond: number; readonly forMs: number } | { readonly burst: number };

export const nameOf = (load: Load): string =>
  "burst" in load ? `burst of ${load.burst}` : `${load.perSecond}/s`;

/** Starts one operation per arrival and waits until all are over; each gets its number. */
export async function arrive(
  backend: Backend,
  load: Load,
  operation: (i: number) => Promise<void>,
): Promise<number> {
  const operations: Promise<void>[] = [];
  const start = (delayMs: number): void => {
    const i = operations.length;
    operations.push(backend.clock.sleep(delayMs).then(() => operation(i)));
  };
  if ("burst" in load) {
    for (let i = 0; i < load.burst; i++) start(0);
  } else {
    let atMs = 0;
    for (;;) {
      atMs += (-Math.log(1 - backend.random()) / load.perSecond) * 1_000;
      if (atMs > load.forMs) break;
      start(atMs);
    }
  }
  await Promise.all(operations);
  return operations.length;
}
