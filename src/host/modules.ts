import { createRequire, SourceMap } from "node:module";
import type { SourceMapPayload } from "node:module";
import path from "node:path";
import vm from "node:vm";
import type { BundledModule } from "./bundle";

export type Exports = Readonly<Record<string, unknown>>;

/** Names that a compiled file sees besides the globals of the place where it runs. */
type Scope = Readonly<Record<string, unknown>>;

/** Compiled files of one kind, ready to be evaluated in any context. */
export class ModuleSet {
  readonly #scripts = new Map<string, vm.Script>();
  readonly #scopeNames: readonly string[];

  constructor(
    modules: readonly BundledModule[],
    kind: "isolate" | "node",
    scopeNames: readonly string[] = [],
  ) {
    this.#scopeNames = scopeNames;
    const parameters = ["exports", "require", "module", "__importMetaUrl", ...scopeNames];
    for (const module of modules) {
      // The header has a line of its own, so that positions are those of the source map.
      const text = `(function (${parameters.join(", ")}) {\n${module.source}\n})`;
      this.#scripts.set(
        module.path,
        new vm.Script(text, { filename: stackName(kind, module.path), lineOffset: -1 }),
      );
    }
  }

  /** A loader that evaluates each file once, in `context` or in the host's own realm. */
  loader(context: vm.Context | null, functionsDir: string, scope: Scope = {}): ModuleLoader {
    const evaluate = (file: string, require: (name: string) => unknown) => {
      const script = this.#scripts.get(file);
      if (script === undefined) throw new Error(`There is no module ${file}.`);
      const run = (context === null ? script.runInThisContext() : script.runInContext(context)) as (
        ...args: unknown[]
      ) => void;
      const module = { exports: {} as Exports };
      const values = this.#scopeNames.map((name) => scope[name]);
      return {
        module,
        run: () => {
          run(
            module.exports,
            require,
            module,
            `file://${path.join(functionsDir, file)}`,
            ...values,
          );
        },
      };
    };
    return new ModuleLoader(
      evaluate,
      context === null ? createRequire(path.join(functionsDir, "_")) : null,
    );
  }
}

interface Evaluation {
  readonly module: { readonly exports: Exports };
  readonly run: () => void;
}

export class ModuleLoader {
  readonly #loaded = new Map<string, { readonly exports: Exports }>();
  readonly #evaluate: (file: string, require: (name: string) => unknown) => Evaluation;
  readonly #outside: ((name: string) => unknown) | null;

  constructor(
    evaluate: (file: string, require: (name: string) => unknown) => Evaluation,
    outside: ((name: string) => unknown) | null,
  ) {
    this.#evaluate = evaluate;
    this.#outside = outside;
  }

  /** Exports of a file, evaluated at the first call. */
  load(file: string): Exports {
    const known = this.#loaded.get(file);
    if (known !== undefined) return known.exports;
    const { module, run } = this.#evaluate(file, (name) => this.#require(file, name));
    // Noted before it runs, as a cycle of imports asks for it again.
    this.#loaded.set(file, module);
    try {
      run();
    } catch (error) {
      this.#loaded.delete(file);
      throw error;
    }
    return module.exports;
  }

  #require(from: string, name: string): unknown {
    if (name.startsWith(".")) return this.load(path.posix.join(path.posix.dirname(from), name));
    if (this.#outside !== null) return this.#outside(name);
    throw new Error(`Could not resolve "${name}" in the default runtime.`);
  }
}

const stackName = (kind: string, file: string) => `convex-${kind}:/${file}`;
const FRAME = /\(?(convex-(?:isolate|node):\/[^\s:)]+):(\d+):(\d+)\)?/;

/** Rewrites positions in stacks from compiled files to the source. */
export class StackMapper {
  readonly #texts = new Map<string, string>();
  readonly #maps = new Map<string, SourceMap>();

  add(kind: "isolate" | "node", modules: readonly BundledModule[]): void {
    for (const module of modules) this.#texts.set(stackName(kind, module.path), module.sourceMap);
  }

  /** The frames of user code in a stack, mapped, one per line; frames of the host are left out. */
  frames(stack: string): string[] {
    const lines: string[] = [];
    for (const line of stack.split("\n")) {
      const match = FRAME.exec(line);
      if (match === null) continue;
      const [, file = "", row = "1", column = "1"] = match;
      const name = /^\s*at (?:async )?([^\s(]+) \(/.exec(line)?.[1];
      const place = this.#position(file, Number(row), Number(column));
      lines.push(name === undefined ? `    at ${place}` : `    at ${name} (${place})`);
    }
    return lines;
  }

  #position(file: string, row: number, column: number): string {
    const entry = this.#map(file)?.findEntry(row - 1, column - 1);
    if (entry === undefined || !("originalSource" in entry)) return `${file}:${row}:${column}`;
    const source = entry.originalSource.replace(/^(?:\.\.?\/)+/, "");
    return `${source}:${entry.originalLine + 1}:${entry.originalColumn + 1}`;
  }

  #map(file: string): SourceMap | undefined {
    const known = this.#maps.get(file);
    if (known !== undefined) return known;
    const text = this.#texts.get(file);
    if (text === undefined) return undefined;
    const map = new SourceMap(JSON.parse(text) as SourceMapPayload);
    this.#maps.set(file, map);
    return map;
  }
}
