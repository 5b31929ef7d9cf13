import type { Backend, Call } from "./backend";
import { Usage } from "./billing";

/** What some calls came to. */
export interface Cost {
  readonly calls: number;
  readonly usage: Usage;
  readonly byFunction: ReadonlyMap<string, number>;
}

export function costOf(calls: readonly Call[]): Cost {
  const usage = new Usage();
  const byFunction = new Map<string, number>();
  for (const call of calls) {
    usage.add(call.usage);
    byFunction.set(call.label, (byFunction.get(call.label) ?? 0) + 1);
  }
  return { calls: calls.length, usage, byFunction };
}

/** What some work came to, with everything that happens in simulated time until it is done. */
export async function measure(backend: Backend, work: () => Promise<unknown>): Promise<Cost> {
  const from = backend.calls.length;
  await work();
  return costOf(backend.calls.slice(from));
}
