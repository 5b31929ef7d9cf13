import { mkdir, rm } from "node:fs/promises";
import path from "node:path";
import type { Io, Main } from "./main";
import { environmentOf } from "./nodes/child";
import { tryCommand } from "./nodes/commands";
import { type Binary, binaryOf, copyOf, NotHad, removeCopy, versionIn } from "./nodes/place";
import {
  type CommandName,
  exitCodeOf,
  type Options,
  readOptions,
  type Result,
  type Row,
  standsFor,
  tableOf,
  USAGE,
} from "./nodes/plan";
import { mistakeIn, UsageError } from "./usage";

const EXIT_UNUSABLE = 2;
const EXIT_INTERRUPTED = 130;

/** `npm run test:nodes`: the two commands of a newcomer on every Node that Ballast promises. */
export const main: Main = async (argv, io) => {
  let options: Options;
  try {
    options = readOptions(argv);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    io.printError(mistakeIn(error, "test:nodes"));
    return EXIT_UNUSABLE;
  }
  if (options.help) {
    for (const line of USAGE) io.print(line);
    return 0;
  }
  const stopping = new AbortController();
  void io.stopped.then(() => {
    stopping.abort();
  });
  const cacheDir = path.join(io.projectDir, ".output", "nodes");
  await mkdir(cacheDir, { recursive: true });
  const rows: Row[] = [];
  for (const node of options.nodes) {
    rows.push(await tryNode(node, { io, options, cacheDir, stopped: stopping.signal }));
    if (stopping.signal.aborted) return EXIT_INTERRUPTED;
  }
  io.print("");
  for (const line of tableOf(rows)) io.print(line);
  return exitCodeOf(rows);
};

interface Trying {
  readonly io: Pick<Io, "print" | "processEnvironment" | "projectDir">;
  readonly options: Options;
  readonly cacheDir: string;
  readonly stopped: AbortSignal;
}

/** Runs the commands on one Node, in a copy that is gone afterwards. */
async function tryNode(node: string, trying: Trying): Promise<Row> {
  const { io, options, cacheDir, stopped } = trying;
  const binary = await had(node, trying).catch((error: unknown) => {
    if (!(error instanceof NotHad)) throw error;
    return error.message;
  });
  if (typeof binary === "string") {
    io.print(`Node ${node}: NOT RUN, ${binary}`);
    const results = options.commands.map((name): [CommandName, Result] => [
      name,
      { kind: "not_run", why: binary },
    ]);
    return { node, version: null, results: Object.fromEntries(results) };
  }
  const results: Partial<Record<CommandName, Result>> = {};
  const environment = environmentOf(io.processEnvironment, binary.dir);
  const dir = await copyOf(io.projectDir);
  try {
    for (const name of options.commands) {
      if (stopped.aborted) break;
      const logFile = path.join(cacheDir, `node-${node}-${name}.log`);
      await rm(logFile, { force: true });
      io.print(`Node ${node} (${binary.version}): npm ${name}…`);
      results[name] = await tryCommand(name, { dir, environment, logFile, stopped });
    }
  } finally {
    await removeCopy(dir);
  }
  return { node, version: binary.version, results };
}

/** This process's own Node where it is one of these, so that the one people use is among them. */
async function had(node: string, { io, cacheDir, stopped }: Trying): Promise<Binary> {
  const environment = io.processEnvironment;
  if (!standsFor(process.version, node))
    return await binaryOf({ node, cacheDir, environment, stopped });
  const dir = path.dirname(process.execPath);
  const logFile = path.join(cacheDir, `node-${node}.log`);
  return { dir, version: await versionIn(dir, { environment, logFile, stopped }) };
}
