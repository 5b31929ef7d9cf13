import { mkdir, mkdtemp, rm } from "node:fs/promises";
import path from "node:path";
import { readDeployment } from "../../src/host/deployment";
import { openIssuer } from "../../src/host/devIssuer";
import { Environment } from "../../src/host/env";
import { startHost } from "../../src/host/index";
import { holderOf } from "../../src/host/lock";
import { findDeployment } from "../../src/sim/deployment";
import { ballast } from "../ballast";
import { DEV_ISSUER } from "../issuer";
import type { Io } from "../main";
import { UsageError } from "../usage";

/** The deployment that a script looks at. */
export interface Target {
  /** `embedded`: started for this run and gone after it. `local`: runs on this machine. */
  readonly environment: "embedded" | "local" | "remote";
  /** Where HTTP actions answer; no slash at the end. */
  readonly siteUrl: string;
  /** Where functions answer. */
  readonly cloudUrl: string;
  readonly adminKey: string | null;
  /** A variable of the deployment, where it can be known from here. */
  setting(name: string): string | null;
  /** A user's access token; null where somebody else issues them. */
  token(user: string): Promise<string | null>;
  close(): Promise<void>;
}

/** What the command line says of the target; each has a variable that it goes before. */
export interface TargetFlags {
  readonly baseUrl?: string | undefined;
  readonly cloudUrl?: string | undefined;
  readonly adminKey?: string | undefined;
  readonly dataDir?: string | undefined;
}

export const TARGET_OPTIONS = {
  "base-url": { type: "string" },
  "cloud-url": { type: "string" },
  "admin-key": { type: "string" },
  "data-dir": { type: "string" },
} as const;

export const TARGET_USAGE = [
  "  --base-url <url>    where HTTP actions answer; else RELIABILITY_BASE_URL, CONVEX_SITE_URL,",
  "                      VITE_CONVEX_SITE_URL, or it follows from where functions answer",
  "  --cloud-url <url>   where functions answer; else RELIABILITY_CLOUD_URL,",
  "                      CONVEX_SELF_HOSTED_URL, CONVEX_URL, the deployment of CONVEX_DEPLOY_KEY,",
  "                      or it follows from the base URL",
  "  --admin-key <key>   else RELIABILITY_ADMIN_KEY, CONVEX_SELF_HOSTED_ADMIN_KEY, CONVEX_DEPLOY_KEY",
  "  --data-dir <dir>    of a local host, .ballast by default",
  "Where nothing names a deployment and no host runs on .ballast, one is started for the run.",
];

const BASE_URL_NAMES = ["RELIABILITY_BASE_URL", "CONVEX_SITE_URL", "VITE_CONVEX_SITE_URL"];
const CLOUD_URL_NAMES = ["RELIABILITY_CLOUD_URL", "CONVEX_SELF_HOSTED_URL", "CONVEX_URL"];
const ADMIN_KEY_NAMES = [
  "RELIABILITY_ADMIN_KEY",
  "CONVEX_SELF_HOSTED_ADMIN_KEY",
  "CONVEX_DEPLOY_KEY",
];

/**
 * Finds the target, or starts one: what the flags say goes before what the variables say. A
 * deployment that was named in any of the ways of Convex's own command line is never replaced by a
 * host of the run's own, which knows of no trouble. Throws `UsageError` for an address that is none.
 */
export async function openTarget(flags: TargetFlags, io: Io): Promise<Target> {
  const dataDir = path.resolve(io.projectDir, flags.dataDir ?? ".ballast");
  const local = await localTarget(dataDir, io);
  const named = addressOf(flags, io);
  if (named === null) {
    if (local !== null) return { ...local, adminKey: flags.adminKey ?? local.adminKey };
    if (flags.dataDir !== undefined)
      throw new UsageError(`No host runs on ${flags.dataDir}; start one with npm start.`);
    if (flags.adminKey !== undefined)
      throw new UsageError("--admin-key is of no use without --base-url or --cloud-url.");
    return await embeddedTarget(io);
  }
  if (local !== null && isSame(named, local, flags))
    return { ...local, adminKey: flags.adminKey ?? local.adminKey };
  const { siteUrl = siteUrlFrom(named.cloudUrl ?? ""), cloudUrl = cloudUrlFrom(siteUrl) } = named;
  return {
    environment: /^https?:\/\/(127\.|localhost|\[::1\])/.test(siteUrl) ? "local" : "remote",
    siteUrl,
    cloudUrl,
    adminKey: flags.adminKey ?? firstOf(io, ADMIN_KEY_NAMES),
    setting: (name) => io.processEnvironment[name] ?? null,
    token: async () => io.processEnvironment["RELIABILITY_AUTH_TOKEN"] ?? null,
    close: async () => undefined,
  };
}

/** One of the two addresses of a deployment, or both. */
interface Address {
  readonly siteUrl?: string | undefined;
  readonly cloudUrl?: string | undefined;
}

function addressOf(flags: TargetFlags, io: Io): Address | null {
  if (flags.baseUrl === undefined && flags.cloudUrl === undefined && flags.dataDir !== undefined)
    return null;
  // Beside a flag for one address Convex's variables are those of some other deployment.
  const isFlagged = flags.baseUrl !== undefined || flags.cloudUrl !== undefined;
  const among = (names: readonly string[]) => (isFlagged ? names.slice(0, 1) : names);
  const baseUrl = flags.baseUrl ?? firstOf(io, among(BASE_URL_NAMES));
  const cloudUrl =
    flags.cloudUrl ??
    firstOf(io, among(CLOUD_URL_NAMES)) ??
    (baseUrl === null ? cloudUrlOfKey(flags, io) : null);
  if (baseUrl === null && cloudUrl === null) return null;
  return {
    siteUrl: baseUrl === null ? undefined : siteUrlOf(checkedUrl("--base-url", baseUrl)),
    cloudUrl: cloudUrl === null ? undefined : checkedUrl("--cloud-url", cloudUrl),
  };
}

function isSame({ siteUrl, cloudUrl }: Address, local: Target, flags: TargetFlags): boolean {
  if (siteUrl === undefined || flags.cloudUrl !== undefined) {
    if (cloudUrl !== local.cloudUrl) return false;
  }
  return siteUrl === undefined || siteUrl === local.siteUrl;
}

/** An empty variable is one that is not set. */
function firstOf({ processEnvironment }: Io, names: readonly string[]): string | null {
  return names.map((name) => processEnvironment[name]).find(Boolean) ?? null;
}

/** A deploy key of the cloud begins with its deployment: `prod:happy-otter-123|…`. */
function cloudUrlOfKey(flags: TargetFlags, io: Io): string | null {
  const key = flags.adminKey ?? firstOf(io, ["CONVEX_DEPLOY_KEY"]) ?? "";
  const [, name] = /^(?:prod|dev):([a-z0-9-]+)\|/.exec(key) ?? [];
  return name === undefined ? null : `https://${name}.convex.cloud`;
}

function checkedUrl(flag: string, text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || !/^https?:$/.test(url.protocol))
    throw new UsageError(`${flag} ${text} is no http or https address.`);
  return `${url.origin}${url.pathname}`.replace(/\/+$/, "");
}

/** The platform's two addresses of one deployment differ in their last word. */
const siteUrlOf = (url: string): string => url.replace(/\.convex\.cloud$/, ".convex.site");

/** Elsewhere functions answer one port below HTTP actions, as self-hosted deployments have it. */
function cloudUrlFrom(siteUrl: string): string {
  if (siteUrl.endsWith(".convex.site")) return siteUrl.replace(/site$/, "cloud");
  return withPort(siteUrl, -1);
}

function siteUrlFrom(cloudUrl: string): string {
  const siteUrl = siteUrlOf(cloudUrl);
  return siteUrl === cloudUrl ? withPort(cloudUrl, 1) : siteUrl;
}

function withPort(address: string, step: 1 | -1): string {
  const url = new URL(address);
  if (url.port !== "") url.port = String(Number(url.port) + step);
  return url.origin;
}

async function localTarget(dataDir: string, io: Io): Promise<Target | null> {
  const deployment = await readDeployment(dataDir);
  if (deployment === null || (await holderOf(dataDir)) === null) return null;
  const found = findDeployment({ dataDir, cwd: io.projectDir, env: io.processEnvironment });
  const setting = (name: string): string | null => found.setting(name);
  return {
    environment: "local",
    ...deployment,
    setting,
    token: async (user) =>
      setting("AUTH_ISSUER") === null
        ? await (await openIssuer(dataDir, DEV_ISSUER)).token(user)
        : null,
    close: async () => undefined,
  };
}

/** A host of the run's own: a fresh directory, every provider simulated, nothing of the machine's. */
async function embeddedTarget(io: Io): Promise<Target> {
  const parent = path.join(io.projectDir, ".output", "tmp");
  await mkdir(parent, { recursive: true });
  const dataDir = await mkdtemp(path.join(parent, "reliability-"));
  const app = ballast(io.projectDir);
  try {
    const environment = await Environment.load({
      names: [],
      processEnvironment: {},
      projectDir: null,
      dataDir,
    });
    const host = await startHost({
      functionsDir: path.join(io.projectDir, app.functionsDir),
      dataDir,
      environment,
      instanceName: app.name,
      prepare: async (started) => await app.surroundings(started, dataDir),
    });
    const issuer = await openIssuer(dataDir, DEV_ISSUER);
    return {
      environment: "embedded",
      siteUrl: host.siteUrl,
      cloudUrl: host.cloudUrl,
      adminKey: host.adminKey,
      setting: (name) => environment.get(name) ?? null,
      token: async (user) => await issuer.token(user),
      close: async () => {
        await host.close();
        await rm(dataDir, { recursive: true, force: true });
      },
    };
  } catch (error) {
    await rm(dataDir, { recursive: true, force: true });
    throw error;
  }
}
