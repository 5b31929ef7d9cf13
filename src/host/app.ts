import type vm from "node:vm";
import type { AppBundle } from "./bundle";
import { FunctionError, UserMistake } from "./errors";
import type { Exports, ModuleLoader } from "./modules";
import { ModuleSet, StackMapper } from "./modules";
import { createSandbox } from "./sandbox";
import type { SandboxHost } from "./sandbox";
import { consoleFor } from "./console";
import { describeThrown } from "./thrown";

/** What the functions' library attaches to a registered function. */
export interface RegisteredFunction {
  readonly isQuery?: boolean;
  readonly isMutation?: boolean;
  readonly isAction?: boolean;
  readonly isHttp?: boolean;
  readonly isPublic?: boolean;
  readonly isInternal?: boolean;
  exportArgs(): string;
  exportReturns(): string;
  invokeQuery(args: string): Promise<string>;
  invokeMutation(args: string): Promise<string>;
  invokeAction(requestId: string, args: string): Promise<string>;
  invokeHttpAction(request: Request): Promise<Response>;
}

export interface FunctionEntry {
  /** `path/module:export`. */
  readonly name: string;
  readonly file: string;
  readonly exportName: string;
  readonly environment: "isolate" | "node";
  readonly kind: "query" | "mutation" | "action";
  readonly visibility: "public" | "internal";
  /** Validators as JSON; a function without a returns validator has null. */
  readonly args: unknown;
  readonly returns: unknown;
}

export interface Router {
  lookup(path: string, method: string): readonly [RegisteredFunction, string, string] | null;
}

export interface AppOptions {
  readonly functionsDir: string;
  readonly host: SandboxHost;
  /** All variables, for `"use node"` modules, which may list them. */
  readonly environment: () => Readonly<Record<string, string>>;
  /** `call` gives each call a fresh global object as the platform does; `shared` is faster. */
  readonly isolation: "shared" | "call";
}

const NODE_SCOPE = ["Convex", "console", "process"] as const;

/** The functions directory, compiled, evaluated and listed. */
export class App {
  readonly functions: ReadonlyMap<string, FunctionEntry>;
  readonly stacks = new StackMapper();
  readonly #bundle: AppBundle;
  readonly #options: AppOptions;
  readonly #isolate: ModuleSet;
  readonly #shared: ModuleLoader;
  readonly #node: ModuleLoader;

  constructor(bundle: AppBundle, options: AppOptions) {
    this.#bundle = bundle;
    this.#options = options;
    this.stacks.add("isolate", bundle.isolate);
    this.stacks.add("node", bundle.node);
    this.#isolate = new ModuleSet(bundle.isolate, "isolate");
    this.#shared = this.#freshLoader();
    this.#node = new ModuleSet(bundle.node, "node", NODE_SCOPE).loader(null, options.functionsDir, {
      Convex: options.host.convex,
      console: { ...console, ...consoleFor(options.host) },
      process: processWith(options.environment),
    });
    this.functions = this.#analyze();
    this.#refuseComponents();
  }

  /** The export to call, in a global object of its own where calls are isolated. */
  resolve(entry: FunctionEntry): RegisteredFunction {
    const loader = entry.environment === "node" ? this.#node : this.#loaderForCall();
    return loader.load(entry.file)[entry.exportName] as RegisteredFunction;
  }

  /** Null when the app has no `http.ts`. */
  router(): Router | null {
    if (!this.#bundle.entries.isolate.includes("http.js")) return null;
    return (this.#loaderForCall().load("http.js")["default"] as Router | undefined) ?? null;
  }

  schemaJson(): string | null {
    if (!this.#bundle.special.schema) return null;
    const schema = this.#load("schema.js")["default"] as { export(): string } | undefined;
    if (schema === undefined) throw new UserMistake("schema.ts has no default export.");
    return schema.export();
  }

  cronsJson(): string {
    if (!this.#bundle.entries.isolate.includes("crons.js")) return "{}";
    const crons = this.#load("crons.js")["default"] as { export(): string } | undefined;
    if (crons === undefined) throw new UserMistake("crons.ts has no default export.");
    return crons.export();
  }

  /** Evaluated anew each time, since it reads variables that may have changed. */
  authConfig(): unknown {
    if (!this.#bundle.special.auth) return { providers: [] };
    return this.#freshLoader().load("auth.config.js")["default"];
  }

  #loaderForCall(): ModuleLoader {
    return this.#options.isolation === "shared" ? this.#shared : this.#freshLoader();
  }

  #freshLoader(): ModuleLoader {
    const context: vm.Context = createSandbox(this.#options.host);
    return this.#isolate.loader(context, this.#options.functionsDir);
  }

  /** Evaluates a module; what it throws while it loads names the file. */
  #load(file: string, loader = this.#shared): Exports {
    try {
      return loader.load(file);
    } catch (error) {
      const text = describeThrown(error, this.stacks);
      throw new UserMistake(`${file} failed to load: ${text.trimEnd()}`);
    }
  }

  #analyze(): Map<string, FunctionEntry> {
    const functions = new Map<string, FunctionEntry>();
    for (const environment of ["isolate", "node"] as const)
      for (const file of this.#bundle.entries[environment]) {
        const loader = environment === "node" ? this.#node : this.#shared;
        for (const [exportName, value] of Object.entries(this.#load(file, loader))) {
          const entry = entryOf(value, { file, exportName, environment });
          if (entry !== null) functions.set(entry.name, entry);
        }
      }
    return functions;
  }

  #refuseComponents(): void {
    if (!this.#bundle.special.config) return;
    const definition = this.#load("convex.config.js")["default"] as { export?: () => string };
    const exported = definition.export?.() as unknown;
    const parsed = (typeof exported === "string" ? JSON.parse(exported) : exported) as {
      childComponents?: unknown[];
    } | null;
    if ((parsed?.childComponents?.length ?? 0) > 0)
      throw new UserMistake("convex.config.ts installs components, which this host does not run.");
  }
}

function entryOf(
  value: unknown,
  place: Pick<FunctionEntry, "file" | "exportName" | "environment">,
): FunctionEntry | null {
  if (typeof value !== "function") return null;
  const exported = value as unknown as RegisteredFunction;
  const kind =
    exported.isQuery === true
      ? "query"
      : exported.isMutation === true
        ? "mutation"
        : exported.isAction === true
          ? "action"
          : null;
  if (kind === null) return null;
  const name = `${place.file.replace(/\.js$/, "")}:${place.exportName}`;
  if (place.environment === "node" && kind !== "action")
    throw new UserMistake(`${name} is a ${kind} in a "use node" file; only actions run on Node.`);
  return {
    ...place,
    name,
    kind,
    visibility: exported.isPublic === true ? "public" : "internal",
    args: JSON.parse(exported.exportArgs()) as unknown,
    returns: JSON.parse(exported.exportReturns()) as unknown,
  };
}

/** The host's own `process`, but with the deployment's variables in place of the machine's. */
function processWith(environment: () => Readonly<Record<string, string>>): object {
  const variables = liveVariables(environment);
  return new Proxy(process, {
    get: (target, name): unknown => {
      if (name === "env") return variables;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
}

/** Modules keep what they read as `process.env` once, and variables change while they live. */
function liveVariables(environment: () => Readonly<Record<string, string>>): object {
  const valueOf = (name: string | symbol): string | undefined =>
    typeof name === "string" ? environment()[name] : undefined;
  return new Proxy(
    {},
    {
      get: (_, name) => valueOf(name),
      has: (_, name) => valueOf(name) !== undefined,
      ownKeys: () => Object.keys(environment()),
      getOwnPropertyDescriptor: (_, name) => {
        const value = valueOf(name);
        return value === undefined ? undefined : { value, enumerable: true, configurable: true };
      },
    },
  );
}

/** `mod`, `mod:fn`, `mod.js:fn` and `dir/mod:fn` in one spelling. */
export function canonicalName(name: string): string {
  const [module = "", exportName = "default"] = name.split(":");
  return `${module.replace(/\.js$/, "").replace(/^\//, "")}:${exportName}`;
}

/** The entry of a name, or a failure in the platform's words. */
export function findFunction(app: App, name: string, publicOnly: boolean): FunctionEntry {
  const canonical = canonicalName(name);
  const entry = app.functions.get(canonical);
  if (entry === undefined || (publicOnly && entry.visibility === "internal")) {
    const what = publicOnly ? "public function" : "function";
    const hint = publicOnly ? "" : " Did you forget to run `npx convex dev`?";
    throw new FunctionError(`Could not find ${what} for '${canonical}'.${hint}`);
  }
  return entry;
}
