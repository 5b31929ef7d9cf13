import { readdir, readFile, stat } from "node:fs/promises";
import path from "node:path";
import * as esbuild from "esbuild";
import { UserMistake } from "./errors";

/** A compiled file: an entry point of the functions directory, or a chunk that several share. */
export interface BundledModule {
  /** Posix path below the functions directory, such as `chatHttp.js` or `_deps/ABC.js`. */
  readonly path: string;
  /** CommonJS text; imports are `require` calls with paths relative to this file. */
  readonly source: string;
  readonly sourceMap: string;
}

export interface AppBundle {
  /** Runs in the sandbox. */
  readonly isolate: readonly BundledModule[];
  /** `"use node"` files; runs on Node itself. */
  readonly node: readonly BundledModule[];
  /** Paths of the modules that hold functions, by where they run. */
  readonly entries: { readonly isolate: readonly string[]; readonly node: readonly string[] };
  readonly special: { readonly schema: boolean; readonly auth: boolean; readonly config: boolean };
}

const ENTRY = /\.(?:[cm]?js|[cm]?ts|[jt]sx)$/;
const OUT = "out";

/** Compiles the functions directory as the Convex command line does, with its options. */
export async function bundleApp(functionsDir: string): Promise<AppBundle> {
  const dir = path.resolve(functionsDir);
  const found = await entryPoints(dir);
  const special = {
    schema: await exists(path.join(dir, "schema.ts")),
    auth: await exists(path.join(dir, "auth.config.ts")),
    config: await exists(path.join(dir, "convex.config.ts")),
  };
  const extras = [
    ...(special.schema ? ["schema.ts"] : []),
    ...(special.auth ? ["auth.config.ts"] : []),
    ...(special.config ? ["convex.config.ts"] : []),
  ];
  const [isolate, node] = await Promise.all([
    build(dir, [...found.isolate, ...extras], "browser"),
    build(dir, found.node, "node"),
  ]);
  const compiled = (files: readonly string[]) => files.map((file) => file.replace(ENTRY, ".js"));
  const entries = { isolate: compiled(found.isolate), node: compiled(found.node) };
  return { isolate, node, entries, special };
}

/** Ends the compiler's own process; the next compilation starts it again. */
export async function stopBundler(): Promise<void> {
  await esbuild.stop();
}

/** The same choice of files as the command line's: names with two dots and `_generated` are not functions. */
async function entryPoints(dir: string): Promise<{ isolate: string[]; node: string[] }> {
  const isolate: string[] = [];
  const node: string[] = [];
  for (const file of await listFiles(dir, "")) {
    const base = path.posix.basename(file);
    const skipped =
      !ENTRY.test(file) ||
      file.startsWith("_generated/") ||
      base === "schema.ts" ||
      base.startsWith(".") ||
      base.startsWith("#") ||
      base.split(".").length > 2 ||
      file.includes(" ");
    if (skipped) continue;
    const text = await readFile(path.join(dir, file), "utf8");
    if (!/^\s{0,100}(?:import|export)/m.test(text)) continue;
    if (isUseNode(text)) node.push(file);
    else isolate.push(file);
  }
  return { isolate, node };
}

async function listFiles(dir: string, below: string): Promise<string[]> {
  const files: string[] = [];
  const rows = await readdir(path.join(dir, below), { withFileTypes: true }).catch(() => {
    throw new UserMistake(`The functions directory ${dir} cannot be read.`);
  });
  for (const row of rows.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const file = path.posix.join(below, row.name);
    if (row.isDirectory()) files.push(...(await listFiles(dir, file)));
    else if (row.isFile()) files.push(file);
  }
  return files;
}

/** A directive counts only before the first statement; comments may stand before it. */
function isUseNode(text: string): boolean {
  const code = text.replace(/^(?:\s|\/\/[^\n]*(?:\n|$)|\/\*[\s\S]*?\*\/)+/, "");
  return /^(?:"use node"|'use node')/.test(code);
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}

async function build(
  dir: string,
  files: readonly string[],
  platform: "browser" | "node",
): Promise<BundledModule[]> {
  if (files.length === 0) return [];
  const result = await esbuild
    .build({
      absWorkingDir: path.dirname(dir),
      entryPoints: files.map((file) => path.join(dir, file)),
      bundle: true,
      platform,
      format: "esm",
      target: "esnext",
      jsx: "automatic",
      outdir: OUT,
      outbase: dir,
      conditions: ["convex", "module"],
      plugins: platform === "browser" ? [asyncHooksShim] : [],
      external: platform === "node" ? await externalPackages(path.dirname(dir)) : [],
      write: false,
      sourcemap: "inline",
      sourcesContent: false,
      splitting: true,
      chunkNames: "_deps/[hash]",
      treeShaking: true,
      minifySyntax: true,
      minifyIdentifiers: true,
      keepNames: true,
      define: { "process.env.NODE_ENV": '"production"' },
      logLevel: "silent",
    })
    .catch(explainFailure);
  const out = path.join(path.dirname(dir), OUT);
  return Promise.all(
    result.outputFiles.map((file) =>
      toCommonJs(path.relative(out, file.path).split(path.sep).join("/"), file.text),
    ),
  );
}

/**
 * Packages that Node actions load from node_modules instead of bringing along: what `convex.json`
 * names for the platform, by name. `*` names none here, where packages for modules alone exist too.
 */
async function externalPackages(projectDir: string): Promise<string[]> {
  const text = await readFile(path.join(projectDir, "convex.json"), "utf8").catch(() => "{}");
  const config = parseJson(text);
  const names = Array.isArray(config?.node?.externalPackages) ? config.node.externalPackages : [];
  return names.filter((name): name is string => typeof name === "string" && name !== "*");
}

interface ConvexConfig {
  readonly node?: { readonly externalPackages?: readonly unknown[] };
}

function parseJson(text: string): ConvexConfig | null {
  try {
    return JSON.parse(text) as ConvexConfig | null;
  } catch {
    throw new UserMistake("convex.json is not JSON.");
  }
}

/** The default runtime has the class as a global instead of a module. */
const asyncHooksShim: esbuild.Plugin = {
  name: "async-hooks-shim",
  setup(context) {
    context.onResolve({ filter: /^(?:node:)?async_hooks$/ }, (args) => ({
      path: args.path,
      namespace: "async-hooks-shim",
    }));
    context.onLoad({ filter: /.*/, namespace: "async-hooks-shim" }, () => ({
      contents:
        "export const { AsyncLocalStorage, AsyncResource } = globalThis;" +
        "export default { AsyncLocalStorage, AsyncResource };",
      loader: "js",
    }));
  },
};

/**
 * Node links ES modules in a context only behind a flag, so each output file becomes a CommonJS
 * function. Splitting needs ES modules, hence the second pass.
 */
async function toCommonJs(file: string, source: string): Promise<BundledModule> {
  const result = await esbuild.transform(source, {
    format: "cjs",
    loader: "js",
    sourcemap: "external",
    sourcefile: file,
    sourcesContent: false,
    define: { "import.meta.url": "__importMetaUrl" },
    logLevel: "silent",
  });
  return { path: file, source: result.code, sourceMap: result.map };
}

function explainFailure(error: unknown): never {
  const failure = error as Partial<esbuild.BuildFailure>;
  const first = failure.errors?.[0];
  if (first === undefined) throw error;
  const at = first.location;
  const where = at === null ? "" : `${at.file}:${at.line}:${at.column}: `;
  const hint = first.notes.some((note) => note.text.includes("bundle for node"))
    ? ' Node APIs need a file of their own that starts with "use node".'
    : "";
  throw new UserMistake(`${where}${first.text}${hint}`);
}
