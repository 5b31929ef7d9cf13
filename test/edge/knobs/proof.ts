/** What it takes to show that a knob governs something. */
import { vi } from "vitest";
import { type Env, env } from "../../../src/config/env";
import type { KnobName } from "../../../src/config/knobs";

export interface Proof {
  /** Two values of the knob, either of which may be its default. */
  readonly values: readonly [string, string];
  /** What is seen under a value; must be the same whenever the value is. */
  readonly observe: () => Promise<unknown>;
}

export type Proofs = Readonly<Partial<Record<KnobName, Proof>>>;

/** Sets other knobs than the one that is looked at. */
export function given(env: Env): void {
  for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
}

/** What is set of some knobs now. */
export const now = (...names: readonly KnobName[]): Env =>
  Object.fromEntries(names.map((name) => [name, env[name]]));

/** How often something succeeds until it does not, up to a bound. */
export async function countUntil(
  most: number,
  succeeds: (i: number) => Promise<boolean>,
): Promise<number> {
  for (let i = 0; i < most; i++) if (!(await succeeds(i))) return i;
  return most;
}
