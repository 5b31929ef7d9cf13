import { watch } from "node:fs";
import { rm } from "node:fs/promises";
import path from "node:path";
import { ConvexHttpClient } from "convex/browser";
import { makeFunctionReference } from "convex/server";
import { convexToJson, jsonToConvex } from "convex/values";
import type { JSONValue, Value } from "convex/values";
import { stopBundler } from "./bundle";
import { readDeployment } from "./deployment";
import { Environment } from "./env";
import { UserMistake, messageOf } from "./errors";
import { readFlags } from "./flags";
import type { Flags } from "./flags";
import { startHost } from "./index";
import type { Host, Started, Surroundings } from "./index";
import { holderOf } from "./lock";

/** What the host does not know: the app that it serves. */
export interface HostApp {
  /** Instance name; also begins the admin key. */
  readonly name: string;
  readonly projectDir: string;
  /** Below the project. */
  readonly functionsDir: string;
  /** Directories whose changes also reload the functions with `--watch`. */
  readonly watchDirs: readonly string[];
  /** Variables taken from the process environment. */
  readonly environmentNames: readonly string[];
  /** Called when the ports are open and before functions load. */
  surroundings(
    started: Started,
    dataDir: string,
  ): Promise<Surroundings & { readonly notes: readonly string[] }>;
  /** What a person reads once it runs. */
  banner(started: Started, dataDir: string, notes: readonly string[]): Promise<readonly string[]>;
}

export interface CliIo {
  print(line: string): void;
  printError(line: string): void;
  readonly processEnvironment: Readonly<Record<string, string | undefined>>;
  /** Resolves when the process is asked to end. */
  readonly stopped: Promise<void>;
}

const RELOAD_QUIET_MS = 150;
const USAGE =
  "Usage: start [--port n] [--site-port n] [--data-dir dir] [--trusted-proxy address] [--watch] | run <function> [json] | reset";

/** The command line of a host; returns the exit code. What a person did wrong is one line. */
export async function runHost(argv: readonly string[], io: CliIo, app: HostApp): Promise<number> {
  try {
    const [command = "start", ...rest] = argv;
    const flags = readFlags(rest, app.projectDir);
    if (command === "start") return await start(flags, io, app);
    if (command === "run") return await run(flags, io);
    if (command === "reset") return await reset(flags, io);
    throw new UserMistake(USAGE);
  } catch (error) {
    if (!(error instanceof UserMistake)) throw error;
    io.printError(error.message);
    return 1;
  }
}

async function start(flags: Flags, io: CliIo, app: HostApp): Promise<number> {
  if (flags.rest.length > 0) throw new UserMistake(USAGE);
  // Listened for from the beginning: a signal during the start ends it cleanly too.
  const { stopped } = io;
  const { projectDir, environmentNames: names } = app;
  const { processEnvironment } = io;
  const environment = await Environment.load({
    names,
    processEnvironment,
    projectDir,
    dataDir: flags.dataDir,
  });
  let around: Awaited<ReturnType<HostApp["surroundings"]>> | undefined;
  const host = await startHost({
    functionsDir: path.join(projectDir, app.functionsDir),
    dataDir: flags.dataDir,
    port: flags.port,
    sitePort: flags.sitePort,
    trustedProxies: flags.trustedProxies,
    environment,
    instanceName: app.name,
    print: (line) => {
      io.print(line);
    },
    prepare: async (started) => {
      around = await app.surroundings(started, flags.dataDir);
      return around;
    },
  });
  const started = { ...host, environment };
  for (const line of await app.banner(started, flags.dataDir, around?.notes ?? [])) io.print(line);
  const unwatch = flags.watch ? watchFunctions(host, app, io) : () => undefined;
  // Nothing is compiled any more, so the compiler's process can go.
  if (!flags.watch) await stopBundler();
  await stopped;
  unwatch();
  await host.close();
  return 0;
}

/** Reloads once the files have been quiet for a moment; an error leaves the running code. */
function watchFunctions(host: Host, app: HostApp, io: CliIo): () => void {
  let timer: NodeJS.Timeout | undefined;
  const reload = async () => {
    try {
      await host.reload();
      io.print("Functions reloaded.");
    } catch (error) {
      io.printError(`Not reloaded: ${messageOf(error)}`);
    }
  };
  const watchers = [app.functionsDir, ...app.watchDirs].map((dir) =>
    watch(path.join(app.projectDir, dir), { recursive: true }, () => {
      clearTimeout(timer);
      timer = setTimeout(() => void reload(), RELOAD_QUIET_MS);
    }),
  );
  return () => {
    clearTimeout(timer);
    for (const watcher of watchers) watcher.close();
  };
}

/** Runs a function on the host that serves the data directory. */
async function run(flags: Flags, io: CliIo): Promise<number> {
  const [name, argsText = "{}", ...more] = flags.rest;
  if (name === undefined || more.length > 0) throw new UserMistake(USAGE);
  const deployment = await readDeployment(flags.dataDir);
  if (deployment === null || (await holderOf(flags.dataDir)) === null)
    throw new UserMistake(`No host runs on ${flags.dataDir}; start one with npm start.`);
  const client = new ConvexHttpClient(deployment.cloudUrl) as ConvexHttpClient & {
    setAdminAuth(key: string): void;
    function(reference: unknown, componentPath: undefined, args: Value): Promise<Value>;
  };
  client.setAdminAuth(deployment.adminKey);
  try {
    const args = jsonToConvex(JSON.parse(argsText) as JSONValue);
    const value = await client.function(makeFunctionReference(name), undefined, args);
    io.print(JSON.stringify(convexToJson(value), null, 2));
    return 0;
  } catch (error) {
    throw new UserMistake(messageOf(error).trim());
  }
}

async function reset(flags: Flags, io: CliIo): Promise<number> {
  const pid = await holderOf(flags.dataDir);
  if (pid !== null)
    throw new UserMistake(`Process ${pid} is using ${flags.dataDir}; stop it first.`);
  await rm(flags.dataDir, { recursive: true, force: true });
  io.print(`Removed ${flags.dataDir}.`);
  return 0;
}
