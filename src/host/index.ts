import { randomBytes, randomUUID } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { version as convexVersion } from "convex";
import { convexToJson, jsonToConvex } from "convex/values";
import type { JSONValue, Value } from "convex/values";
import { apiHandler } from "./api";
import { App } from "./app";
import { Authenticator } from "./auth";
import { bundleApp } from "./bundle";
import type { AppBundle } from "./bundle";
import { Crons } from "./crons";
import { openDatabase } from "./engine";
import { Environment } from "./env";
import { messageOf } from "./errors";
import { Runtime } from "./functions";
import type { RuntimeHooks } from "./functions";
import type { Injection } from "./injection";
import { currentInvocation } from "./invocation";
import type { Caller } from "./invocation";
import { removeDeployment, writeDeployment } from "./deployment";
import { lockDirectory } from "./lock";
import type { SandboxHost } from "./sandbox";
import { Scheduler } from "./scheduler";
import { siteHandler } from "./site";
import { convexGlobal } from "./syscalls";
import { withSystemTables } from "./systemTables";
import { listen } from "./wire";
import type { Listener } from "./wire";

export interface HostOptions {
  readonly functionsDir: string;
  readonly dataDir: string;
  /** 0 takes any free port, which is the default. */
  readonly port?: number;
  readonly sitePort?: number;
  /** Variables below everything that a person configures. */
  readonly env?: Readonly<Record<string, string>>;
  /** What a person configures; by default nothing of the machine or the project is read. */
  readonly environment?: Environment;
  readonly injection?: Injection;
  /** `call` gives each call a fresh global object, as the platform does. Default `shared`. */
  readonly isolation?: "shared" | "call";
  /** Addresses whose forwarded headers are believed. Default none. */
  readonly trustedProxies?: readonly string[];
  readonly instanceName?: string;
  /** Where log lines of functions and of the host go. Default nowhere. */
  readonly print?: (line: string) => void;
  /** Called when the ports are open, before functions load and before anything is answered. */
  readonly prepare?: (started: Started) => Promise<Surroundings>;
}

/** What the app sets up around its functions, such as simulated providers. */
export interface Surroundings {
  /** Variables below everything that a person configures. */
  readonly env: Readonly<Record<string, string>>;
  /** Joins `deployment.json`. */
  readonly deployment?: Readonly<Record<string, string>>;
  close(): Promise<void>;
}

export interface Started {
  readonly cloudUrl: string;
  readonly siteUrl: string;
  readonly adminKey: string;
  readonly environment: Environment;
}

export interface Host {
  readonly cloudUrl: string;
  readonly siteUrl: string;
  readonly adminKey: string;
  /** Runs any function, internal ones too, without going over HTTP. */
  run(name: string, args?: Record<string, Value>): Promise<Value>;
  /** Compiles the functions directory again; a failure leaves the running code in place. */
  reload(): Promise<void>;
  close(): Promise<void>;
}

const STOP_GRACE_MS = 3_000;
/**
 * Transactions that write under way at once. All share one thread, so more finish no sooner: they
 * only conflict more, since all that begin before a batch is on disk begin with the same state. The
 * platform's smallest class runs 16, each on a thread of its own.
 */
const WRITERS_AT_ONCE = 4;
const ADMIN_KEY_BYTES = 32;

/** Starts everything on a data directory, which it holds until it is closed. */
export async function startHost(options: HostOptions): Promise<Host> {
  const dataDir = path.resolve(options.dataDir);
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const cleanups: (() => Promise<void>)[] = [];
  const close = async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  };
  try {
    cleanups.push(await lockDirectory(dataDir));
    // One that `kill -9` left behind must not be taken for ours before ours is written.
    await removeDeployment(dataDir);
    cleanups.push(() => removeDeployment(dataDir));
    return await start({ ...options, dataDir }, cleanups, close);
  } catch (error) {
    await close();
    throw error;
  }
}

async function start(
  options: HostOptions,
  cleanups: (() => Promise<void>)[],
  close: () => Promise<void>,
): Promise<Host> {
  const { dataDir } = options;
  const print = options.print ?? (() => undefined);
  const instanceName = options.instanceName ?? "local";
  const adminKey = await keepAdminKey(dataDir, instanceName);
  // The longest part of a start, so it goes first. Awaited below, unless something fails before.
  const bundling = bundleApp(options.functionsDir);
  bundling.catch(() => undefined);
  const ports = await openPorts(options, cleanups);
  const environment =
    options.environment ??
    (await Environment.load({ names: [], processEnvironment: {}, projectDir: null, dataDir }));
  environment.setDefaults(options.env ?? {});
  environment.setBuiltIn({ CONVEX_CLOUD_URL: ports.cloudUrl, CONVEX_SITE_URL: ports.siteUrl });
  const started: Started = {
    cloudUrl: ports.cloudUrl,
    siteUrl: ports.siteUrl,
    adminKey,
    environment,
  };
  const surroundings = await options.prepare?.(started);
  if (surroundings !== undefined) {
    cleanups.push(() => surroundings.close());
    environment.setDefaults({ ...options.env, ...surroundings.env });
  }
  cleanups.push(catchStrayFailures(print));
  const { runtime, load } = await openRuntime(options, environment, { print, cleanups, bundling });
  const authenticator = new Authenticator(() => runtime.app.authConfig(), fetch);
  environment.onChange(() => {
    authenticator.forget();
  });
  const { crons } = await startBackground(runtime, print, cleanups);
  const trustedProxies = options.trustedProxies ?? [];
  const shared = { runtime, authenticator, trustedProxies, print };
  const api = { ...shared, environment, adminKey, instanceName, version: convexVersion };
  await writeDeployment(dataDir, { ...started, ...surroundings?.deployment });
  ports.open(apiHandler(api), siteHandler({ ...shared, siteUrl: () => ports.siteUrl }));
  // First of all no new requests, and those in flight get their answer while the store is open.
  cleanups.push(ports.close);
  const reload = async () => {
    await load();
    authenticator.forget();
    await crons.stop(STOP_GRACE_MS);
    await crons.start();
  };
  return { ...started, run: runnerFor(runtime), reload, close };
}

/** Calls as the operator who has the admin key. */
function runnerFor(runtime: Runtime): Host["run"] {
  return async (name, args = {}) => {
    const caller: Caller = {
      identity: { kind: "admin", actingAs: null },
      request: { requestId: randomUUID(), ip: null, userAgent: null, scheduledFunctionId: null },
    };
    const { valueJson } = await runtime.any(name, convexToJson(args), caller);
    return jsonToConvex(JSON.parse(valueJson) as JSONValue);
  };
}

async function startBackground(
  runtime: Runtime,
  print: (line: string) => void,
  cleanups: (() => Promise<void>)[],
): Promise<{ readonly crons: Crons }> {
  const scheduler = new Scheduler(runtime, print);
  const crons = new Crons(runtime, print);
  cleanups.push(async () => {
    await Promise.all([scheduler.stop(STOP_GRACE_MS), crons.stop(STOP_GRACE_MS)]);
  });
  await scheduler.start();
  await crons.start();
  return { crons };
}

type Handler = (request: IncomingMessage, response: ServerResponse) => Promise<void>;

/** Both ports are taken first, so that a taken one is known at once; requests wait until `open`. */
async function openPorts(options: HostOptions, cleanups: (() => Promise<void>)[]) {
  let open: (api: Handler, site: Handler) => void = () => undefined;
  const handlers = new Promise<readonly [Handler, Handler]>((resolve) => {
    open = (api, site) => {
      resolve([api, site]);
    };
  });
  const listeners: Listener[] = [];
  // Also when only one of the two could be opened, or the start fails later. Twice does no harm.
  const close = async () => {
    await Promise.all(listeners.splice(0).map((listener) => listener.close()));
  };
  cleanups.push(close);
  const cloud = await listen(options.port ?? 0, async (request, response) =>
    (await handlers)[0](request, response),
  );
  listeners.push(cloud);
  const site = await listen(options.sitePort ?? 0, async (request, response) =>
    (await handlers)[1](request, response),
  );
  listeners.push(site);
  const cloudUrl = `http://127.0.0.1:${cloud.port}`;
  const siteUrl = `http://127.0.0.1:${site.port}`;
  return { cloudUrl, siteUrl, open, close };
}

interface RuntimeParts {
  readonly print: (line: string) => void;
  readonly cleanups: (() => Promise<void>)[];
  readonly bundling: Promise<AppBundle>;
}

async function openRuntime(
  options: HostOptions,
  environment: Environment,
  { print, cleanups, bundling }: RuntimeParts,
) {
  const { functionsDir, dataDir, injection = {}, isolation = "shared" } = options;
  const database = await openDatabase({ dir: path.join(dataDir, "store"), injection });
  cleanups.push(() => database.close());
  const hooks: RuntimeHooks = {
    nowMs: injection.nowMs ?? Date.now,
    uniform: injection.random ?? Math.random,
    sleep: async (ms) => sleep(ms),
    print,
    writersAtOnce: injection.writersAtOnce ?? WRITERS_AT_ONCE,
  };
  // The sandbox is made before the runtime that its system calls go to.
  const late: { runtime?: Runtime } = {};
  const sandbox: SandboxHost = {
    current: currentInvocation,
    nowMs: () => hooks.nowMs(),
    environment: (name) => environment.get(name),
    convex: convexGlobal(() => {
      if (late.runtime === undefined) throw new Error("The host is still starting.");
      return late.runtime;
    }),
    fetch: async (invocation, input, init) => {
      const signals = [invocation.over, init?.signal ?? []].flat();
      return (injection.fetch ?? fetch)(input, { ...init, signal: AbortSignal.any(signals) });
    },
    print,
  };
  const build = (bundle: AppBundle) =>
    new App(bundle, {
      functionsDir: path.resolve(functionsDir),
      host: sandbox,
      environment: () => environment.all(),
      isolation,
    });
  const app = build(await bundling);
  await database.applySchema(withSystemTables(app.schemaJson()));
  const opened = new Runtime(app, database, hooks);
  late.runtime = opened;
  const load = async () => {
    const next = build(await bundleApp(functionsDir));
    await database.applySchema(withSystemTables(next.schemaJson()));
    opened.app = next;
  };
  return { runtime: opened, load };
}

/** Made once, readable by the owner only. */
async function keepAdminKey(dataDir: string, instanceName: string): Promise<string> {
  const file = path.join(dataDir, "admin-key");
  const known = await readFile(file, "utf8").catch(() => null);
  if (known !== null && known.trim() !== "") return known.trim();
  const key = `${instanceName}|${randomBytes(ADMIN_KEY_BYTES).toString("hex")}`;
  await writeFile(file, `${key}\n`, { mode: 0o600 });
  return key;
}

/** What nobody awaits or catches fails the run it belongs to, and nothing else. */
function catchStrayFailures(print: (line: string) => void): () => Promise<void> {
  const onRejection = (reason: unknown) => {
    const invocation = currentInvocation();
    if (invocation === undefined) print(`Unhandled rejection: ${messageOf(reason)}`);
    else invocation.fail(reason);
  };
  // A listener that throws, for one: Node throws that again where nobody can catch it.
  const onException = (error: Error) => {
    const invocation = currentInvocation();
    if (invocation === undefined) throw error;
    invocation.fail(error);
  };
  process.on("unhandledRejection", onRejection).on("uncaughtException", onException);
  return async () => {
    process.off("unhandledRejection", onRejection).off("uncaughtException", onException);
  };
}
