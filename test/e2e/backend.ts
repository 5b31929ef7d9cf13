import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import { openIssuer } from "../../src/host/devIssuer";
import { type Host, type HostOptions, startHost } from "../../src/host/index";
import { startSimulators } from "../../src/sim/index";
import { DEV_ISSUER } from "../../scripts/issuer";

const TMP = path.resolve(".output/tmp");

/** Ballast on the embedded host with every provider simulated, on a directory of its own. */
export interface Backend {
  readonly host: Host;
  readonly siteUrl: string;
  readonly simUrl: string;
  readonly dataDir: string;
  readonly secrets: typeof SECRETS;
  token(user: string): Promise<string>;
  /** Sets a fault of a simulated provider; see the simulators' control endpoint. */
  fault(provider: string, fault: Record<string, unknown>): Promise<void>;
  resetFaults(): Promise<void>;
  close(): Promise<void>;
}

const SECRETS = {
  WHATSAPP_APP_SECRET: "e2e-app-secret",
  WHATSAPP_VERIFY_TOKEN: "e2e-verify-token",
  GMAIL_PUBSUB_VERIFY_TOKEN: "e2e-pubsub-token",
  ENCRYPTION_KEY: "ab".repeat(32),
};

interface Options extends Pick<HostOptions, "injection" | "isolation"> {
  /** Variables over the defaults; an empty text is a variable set to nothing. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts a backend; close it, or its ports stay open. */
export async function startBackend({ env = {}, ...options }: Options = {}): Promise<Backend> {
  mkdirSync(TMP, { recursive: true });
  const dataDir = mkdtempSync(path.join(TMP, "e2e-"));
  const simulators = await startSimulators();
  const issuer = await openIssuer(dataDir, DEV_ISSUER);
  const host = await startHost({
    functionsDir: "convex",
    dataDir,
    env: {
      ...simulators.env,
      ...SECRETS,
      AUTH_ISSUER: DEV_ISSUER.issuer,
      AUTH_JWKS_URL: issuer.jwksUrl,
      AUTH_AUDIENCE: DEV_ISSUER.audience,
      ...env,
    },
    ...options,
  });
  const control = async (action: string, body: unknown): Promise<void> => {
    const response = await fetch(`${simulators.url}/control/${action}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`control ${action}: ${response.status}`);
  };
  return {
    host,
    siteUrl: host.siteUrl,
    simUrl: simulators.url,
    dataDir,
    secrets: SECRETS,
    token: async (user) => await issuer.token(user),
    fault: async (provider, fault) => {
      await control("fault", { provider, ...fault });
    },
    resetFaults: async () => {
      await control("reset", {});
    },
    close: async () => {
      await host.close();
      await simulators.close();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

/** Waits until a look finds what is wanted; throws with the last look after ten seconds. */
export async function until<T>(look: () => Promise<T>, isIt: (found: T) => boolean): Promise<T> {
  for (let i = 0; ; i++) {
    const found = await look();
    if (isIt(found)) return found;
    if (i >= LOOKS_MAX) throw new Error(`never came: ${JSON.stringify(found)}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_GAP_MS));
  }
}

const LOOKS_MAX = 200;
const LOOK_GAP_MS = 50;
