import { createOpenRouter, openRouterSpec } from "./openrouter";
import type { ProviderSpec } from "./provider";
import { createSerper, serperSpec } from "./serper";

/** Every simulated provider, known without starting anything. */
export const SPECS: readonly ProviderSpec[] = [openRouterSpec, serperSpec];

/** Fresh instances that share nothing with those of another server. */
export function createProviders() {
  return { openrouter: createOpenRouter(), serper: createSerper() };
}

export type Providers = ReturnType<typeof createProviders>;
