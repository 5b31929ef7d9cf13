import { SPECS } from "./providers";
import { serve } from "./server";

/** A simulated provider and the variables that belong to it. */
export interface SimulatedProvider {
  readonly id: string;
  readonly title: string;
  /** Variables whose presence means that the real provider is to be used. */
  readonly keyNames: readonly string[];
  /** Everything that `env` holds for this provider. */
  readonly envNames: readonly string[];
}

export const SIMULATED_PROVIDERS: readonly SimulatedProvider[] = SPECS.map((spec) => ({
  id: spec.id,
  title: spec.title,
  keyNames: spec.keyNames,
  envNames: Object.keys(spec.env("")),
}));

export interface Simulators {
  /** Where the control endpoint and every provider's prefix are. */
  readonly url: string;
  /** The app's variables, pointing at the simulators with placeholder keys. */
  readonly env: Record<string, string>;
  close(): Promise<void>;
}

/**
 * Starts all provider simulators on one loopback port (default: a free one). `now` dates tokens
 * and the request log; what a provider answers does not depend on it.
 */
export async function startSimulators(
  options: { port?: number; now?: () => number } = {},
): Promise<Simulators> {
  const server = await serve({ port: options.port ?? 0, now: options.now ?? Date.now });
  const env = Object.assign(
    {},
    ...SPECS.map((spec) => spec.env(`${server.url}/${spec.servedBy ?? spec.id}`)),
  ) as Record<string, string>;
  return { url: server.url, env, close: () => server.close() };
}
