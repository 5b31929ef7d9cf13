import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import path from "node:path";
import { pathToFileURL } from "node:url";
import * as esbuild from "esbuild";
import type { Definition, Module } from "./app";

interface Schema {
  export(): string;
}

/** A definition from modules in memory: the benchmark's own small apps. */
export function define(
  modules: Readonly<Record<string, Module>>,
  schema: object,
  children: Readonly<Record<string, Definition>> = {},
): Definition {
  return { modules: new Map(Object.entries(modules)), schemaJson: exported(schema), children };
}

/** A component as its package ships it. */
export async function loadComponent(
  packageDir: string,
  children: Readonly<Record<string, Definition>> = {},
): Promise<Definition> {
  const dir = path.join(packageDir, "dist", "component");
  const modules = new Map<string, Module>();
  for (const file of await filesUnder(dir, ".js")) {
    if (file.startsWith("_generated") || file === "convex.config" || file === "crons") continue;
    modules.set(file, await load(path.join(dir, `${file}.js`)));
  }
  return { modules, schemaJson: schemaOf(modules), children };
}

/**
 * The functions of a directory, compiled as they are now. Files that need Node's own APIs are left
 * out: they are actions that talk to services.
 */
export async function loadFunctions(projectDir: string, functionsDir: string): Promise<Definition> {
  const files: string[] = [];
  for (const file of await filesUnder(functionsDir, ".ts")) {
    if (/(^_generated|\.test$|\.config$|\.d$)/.test(file)) continue;
    const source = await readFile(path.join(functionsDir, `${file}.ts`), "utf8");
    if (!/^\s*["']use node["']/.test(source)) files.push(file);
  }
  const outdir = path.join(projectDir, "node_modules", ".cache", "ballast", `bench-${process.pid}`);
  await mkdir(outdir, { recursive: true });
  try {
    await esbuild.build({
      entryPoints: files.map((file) => path.join(functionsDir, `${file}.ts`)),
      outdir,
      outbase: functionsDir,
      outExtension: { ".js": ".mjs" },
      absWorkingDir: projectDir,
      bundle: true,
      splitting: true,
      platform: "node",
      format: "esm",
      target: "node20",
      packages: "external",
      logLevel: "error",
    });
    const modules = new Map<string, Module>();
    for (const file of files) modules.set(file, await load(path.join(outdir, `${file}.mjs`)));
    return { modules, schemaJson: schemaOf(modules), children: {} };
  } finally {
    await rm(outdir, { recursive: true, force: true });
  }
}

async function load(file: string): Promise<Module> {
  return (await import(pathToFileURL(file).href)) as Module;
}

function schemaOf(modules: ReadonlyMap<string, Module>): string {
  const schema = modules.get("schema")?.["default"];
  if (typeof schema !== "object" || schema === null) throw new Error("There is no schema.");
  return exported(schema);
}

function exported(schema: object): string {
  if (!isSchema(schema)) throw new Error("A schema is made by defineSchema.");
  return schema.export();
}

const isSchema = (schema: object): schema is Schema =>
  "export" in schema && typeof schema.export === "function";

/** Files with an ending, as paths without it. */
async function filesUnder(dir: string, ending: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true });
  return entries
    .filter((file) => file.endsWith(ending))
    .map((file) => file.slice(0, -ending.length).split(path.sep).join("/"))
    .sort();
}
