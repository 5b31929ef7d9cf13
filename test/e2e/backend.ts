import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import { ConvexHttpClient } from "convex/browser";
import { makeFunctionReference } from "convex/server";
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
  /** What functions and the host printed, the log included. */
  readonly printed: readonly string[];
  readonly token: (user: string) => Promise<string>;
  /** Calls any function over the wire with the admin key, as the Convex command line does. */
  operator<T>(name: string, args?: Record<string, unknown>): Promise<T>;
  /** Sets variables as `convex env set` does; null takes one back. */
  setEnv(variables: Readonly<Record<string, string | null>>): Promise<void>;
  /** Sets a fault of a simulated provider; see the simulators' control endpoint. */
  fault(provider: string, fault: Record<string, unknown>): Promise<void>;
  resetFaults(): Promise<void>;
  /** The simulators' control endpoint; a body makes it a POST. */
  control<T>(action: string, body?: unknown): Promise<T>;
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
  /** Without simulators' addresses, keys and secrets: a deployment that nobody has set up. */
  readonly bare?: boolean;
}

/** Starts a backend; close it, or its ports stay open. */
export async function startBackend({
  env = {},
  bare = false,
  ...options
}: Options = {}): Promise<Backend> {
  mkdirSync(TMP, { recursive: true });
  const dataDir = mkdtempSync(path.join(TMP, "e2e-"));
  const simulators = await startSimulators();
  const issuer = await openIssuer(dataDir, DEV_ISSUER);
  const printed: string[] = [];
  const host = await startHost({
    functionsDir: "convex",
    dataDir,
    env: {
      ...(bare ? {} : { ...simulators.env, ...SECRETS }),
      AUTH_ISSUER: DEV_ISSUER.issuer,
      AUTH_JWKS_URL: issuer.jwksUrl,
      AUTH_AUDIENCE: DEV_ISSUER.audience,
      ...env,
    },
    print: (line) => printed.push(line),
    ...options,
  });
  const control = async <T>(action: string, body?: unknown): Promise<T> => {
    const response = await fetch(`${simulators.url}/control/${action}`, {
      ...(body === undefined
        ? {}
        : {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: JSON.stringify(body),
          }),
    });
    if (!response.ok) throw new Error(`control ${action}: ${response.status}`);
    return (await response.json()) as T;
  };
  return {
    host,
    siteUrl: host.siteUrl,
    simUrl: simulators.url,
    dataDir,
    secrets: SECRETS,
    printed,
    token: async (user) => await issuer.token(user),
    operator: operatorOf(host),
    setEnv: async (variables) => {
      await setVariables(host, variables);
    },
    fault: async (provider, fault) => {
      await control("fault", { provider, ...fault });
    },
    resetFaults: async () => {
      await control("reset", {});
    },
    control,
    close: async () => {
      await host.close();
      await simulators.close();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

/** Where a deployment answers, whoever runs it. */
export interface Reachable {
  readonly cloudUrl: string;
  readonly adminKey: string;
}

/** The client's own way to call anything, which its types leave out. */
interface AdminClient {
  setAdminAuth(key: string): void;
  function(reference: unknown, componentPath: undefined, args: object): Promise<unknown>;
}

/** Calls functions over the wire with the admin key. */
export function operatorOf({ cloudUrl, adminKey }: Reachable): Backend["operator"] {
  const client = new ConvexHttpClient(cloudUrl) as unknown as AdminClient;
  client.setAdminAuth(adminKey);
  return async <T>(name: string, args: Record<string, unknown> = {}) =>
    (await client.function(makeFunctionReference(name), undefined, args)) as T;
}

async function setVariables(
  { cloudUrl, adminKey }: Reachable,
  variables: Readonly<Record<string, string | null>>,
): Promise<void> {
  const changes = Object.entries(variables).map(([name, value]) => ({ name, value }));
  const response = await fetch(`${cloudUrl}/api/update_environment_variables`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Convex ${adminKey}` },
    body: JSON.stringify({ changes }),
  });
  if (!response.ok) throw new Error(`variables: ${response.status} ${await response.text()}`);
}

/** A user's own client: public functions only, with the user's token. */
export async function clientOf(
  { host, token }: { readonly host: Pick<Reachable, "cloudUrl"> } & Pick<Backend, "token">,
  user: string,
): Promise<ConvexHttpClient> {
  const client = new ConvexHttpClient(host.cloudUrl);
  client.setAuth(await token(user));
  return client;
}

/** Waits until a look finds what is wanted; throws with the last look after a minute. */
export async function until<T>(
  look: () => Promise<T>,
  isIt: (found: T) => boolean,
  looksMax = LOOKS_MAX,
): Promise<T> {
  for (let i = 0; ; i++) {
    const found = await look();
    if (isIt(found)) return found;
    if (i >= looksMax) throw new Error(`never came: ${JSON.stringify(found)}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_GAP_MS));
  }
}

/** Nothing is asserted of how long: a busy machine may need most of it. */
const LOOKS_MAX = 1_200;
const LOOK_GAP_MS = 50;
