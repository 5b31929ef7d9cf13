import { randomBytes } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { KNOB_NAMES } from "../src/config/knobs";
import { configWarnings } from "../src/config/read";
import type { HostApp } from "../src/host/cli";
import { openIssuer } from "../src/host/devIssuer";
import type { Environment } from "../src/host/env";
import type { Started } from "../src/host/index";
import { DEV_ISSUER } from "./issuer";
import { SIMULATED_PROVIDERS, startSimulators } from "../src/sim/index";

const AUTH_NAMES = ["AUTH_ISSUER", "AUTH_JWKS_URL", "AUTH_AUDIENCE"];
const BANNER_USER = "alice";

/** Ballast as the host serves it: what it reads, what stands around it, what it says at start. */
export function ballast(projectDir: string): HostApp {
  return {
    name: "ballast",
    projectDir,
    functionsDir: "convex",
    watchDirs: ["src"],
    environmentNames: KNOB_NAMES,
    surroundings: async ({ environment }, dataDir) => {
      const auth = await developmentAuth(environment, dataDir);
      const secrets = await developmentSecrets(environment, dataDir);
      const simulators = await simulatedProviders(environment);
      return {
        env: { ...auth.env, ...secrets.env, ...simulators.env },
        notes: [...simulators.notes, ...secrets.notes, ...auth.notes],
        deployment: { simUrl: simulators.url },
        close: () => simulators.close(),
      };
    },
    banner,
  };
}

async function banner(
  started: Started,
  dataDir: string,
  notes: readonly string[],
): Promise<readonly string[]> {
  const { cloudUrl, siteUrl, adminKey, environment } = started;
  const own = environment.get("AUTH_ISSUER") === DEV_ISSUER.issuer;
  const token = own ? await (await openIssuer(dataDir, DEV_ISSUER)).token(BANNER_USER) : null;
  const body = JSON.stringify({
    message: { content: "What is new in espresso machines?" },
    webSearch: true,
  });
  return [
    "Ballast is running.",
    `  Functions     ${cloudUrl}`,
    `  HTTP actions  ${siteUrl}`,
    `  Data          ${dataDir}`,
    `  Admin key     ${adminKey}`,
    ...notes.map((note) => `  ${note}`),
    ...settings(environment),
    "",
    ...(token === null
      ? ["Chat with a token of your identity provider:"]
      : [
          `A token for the user "${BANNER_USER}" (others: npm run -s token -- bob):`,
          token,
          "",
          "Try it:",
        ]),
    `curl -N ${siteUrl}/api/chat -H 'Content-Type: application/json' -H 'Authorization: Bearer ${token ?? "…"}' -d '${body}'`,
    "",
  ];
}

/** Whoever mistypes a variable is told before they wonder why it changes nothing. */
function settings(environment: Environment): readonly string[] {
  const env = Object.fromEntries(KNOB_NAMES.map((name) => [name, environment.get(name)]));
  return configWarnings(env).map(
    ({ name, problem, used }, i) =>
      `  ${(i === 0 ? "Settings" : "").padEnd(12)}  ${name} ${problem}; in use: ${used}`,
  );
}

interface Part {
  readonly env: Readonly<Record<string, string>>;
  readonly notes: readonly string[];
}

/** The development issuer stands in only when no identity provider is configured at all. */
async function developmentAuth(environment: Environment, dataDir: string): Promise<Part> {
  if (AUTH_NAMES.some((name) => environment.configured(name) !== undefined))
    return { env: {}, notes: ["Identity      as configured by AUTH_ISSUER"] };
  const { jwksUrl } = await openIssuer(dataDir, DEV_ISSUER);
  const env = {
    AUTH_ISSUER: DEV_ISSUER.issuer,
    AUTH_JWKS_URL: jwksUrl,
    AUTH_AUDIENCE: DEV_ISSUER.audience,
  };
  return { env, notes: ["Identity      development tokens, issued here"] };
}

const token = () => randomBytes(24).toString("base64url");

/** Secrets that a deployment must be given, and how one is made up for development. */
const SECRETS: Readonly<Record<string, () => string>> = {
  WHATSAPP_APP_SECRET: () => randomBytes(32).toString("hex"),
  WHATSAPP_VERIFY_TOKEN: token,
  GMAIL_PUBSUB_VERIFY_TOKEN: token,
  ENCRYPTION_KEY: () => randomBytes(32).toString("hex"),
};

/** Made once, kept in the data directory; one that a person set, even to nothing, is left alone. */
async function developmentSecrets(environment: Environment, dataDir: string): Promise<Part> {
  const file = path.join(dataDir, "secrets.json");
  const known = await readFile(file, "utf8").then(
    (text) => JSON.parse(text) as Record<string, string>,
    (): Record<string, string> => ({}),
  );
  const env: Record<string, string> = {};
  for (const [name, make] of Object.entries(SECRETS)) {
    const value = known[name] ?? make();
    known[name] = value;
    if (environment.configured(name) === undefined) env[name] = value;
  }
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  await writeFile(file, `${JSON.stringify(known, null, 2)}\n`, { mode: 0o600 });
  const names = Object.keys(env);
  const where = path.relative(path.dirname(dataDir), file);
  return {
    env,
    notes:
      names.length === 0
        ? []
        : [`Secrets       random, for development, in ${where}: ${names.join(", ")}`],
  };
}

/** A provider with a key of its own is real; the others answer from the simulators. */
async function simulatedProviders(environment: Environment) {
  const simulators = await startSimulators();
  const env: Record<string, string> = {};
  const real: string[] = [];
  const simulated: string[] = [];
  for (const provider of SIMULATED_PROVIDERS) {
    const isReal = provider.keyNames.some((name) => (environment.configured(name) ?? "") !== "");
    (isReal ? real : simulated).push(provider.title);
    if (!isReal) for (const name of provider.envNames) env[name] = simulators.env[name] ?? "";
  }
  const notes = [
    ...(simulated.length === 0
      ? []
      : [`Simulated     ${simulated.join(", ")} (${simulators.url})`]),
    ...(real.length === 0 ? [] : [`Real          ${real.join(", ")}`]),
  ];
  return { env, notes, url: simulators.url, close: () => simulators.close() };
}
