import { validateValue } from "../../../src/host/validate";
import { Tables } from "./tables";

export type FunctionKind = "query" | "mutation" | "action";

/** What one file of functions exports. */
export type Module = Readonly<Record<string, unknown>>;

/** The code of an app or a component: its files by path without ending, and what it uses. */
export interface Definition {
  readonly modules: ReadonlyMap<string, Module>;
  readonly schemaJson: string;
  readonly children: Readonly<Record<string, Definition>>;
}

export interface RegisteredFunction {
  readonly component: Component;
  /** `file:export`, as references name it. */
  readonly path: string;
  /** With the path of its component, for tables of figures. */
  readonly label: string;
  readonly kind: FunctionKind;
  invoke(argsJson: string): Promise<string>;
  /** Throws where the arguments are not what the function declares. */
  checkArgs(args: unknown): void;
  readonly argNames: ReadonlySet<string>;
}

/** How a system call names a function. */
export interface Address {
  readonly name?: string;
  readonly reference?: string;
  readonly functionHandle?: string;
}

const HANDLE_PREFIX = "function://";
const CHILD_PREFIX = "_reference/childComponent/";

/** One installed component with tables of its own; the app itself is the one without a path. */
export class Component {
  readonly path: string;
  readonly tables: Tables;
  readonly #root: Component;
  readonly #definition: Definition;
  readonly #children = new Map<string, Component>();
  readonly #functions = new Map<string, RegisteredFunction>();

  constructor(definition: Definition, path = "", root?: Component) {
    this.path = path;
    this.tables = new Tables(path, definition.schemaJson);
    this.#definition = definition;
    this.#root = root ?? this;
    for (const [name, child] of Object.entries(definition.children)) {
      const childPath = path === "" ? name : `${path}/${name}`;
      this.#children.set(name, new Component(child, childPath, this.#root));
    }
  }

  /** Every function that this component has under a name, or that a reference leads to. */
  resolve({ name, reference, functionHandle }: Address): RegisteredFunction {
    if (functionHandle !== undefined) return this.#root.#byHandle(functionHandle);
    if (name !== undefined) {
      return name.startsWith(HANDLE_PREFIX) ? this.#root.#byHandle(name) : this.function(name);
    }
    if (reference?.startsWith(CHILD_PREFIX) === true) {
      const [child = "", ...rest] = reference.slice(CHILD_PREFIX.length).split("/");
      const exported = rest.pop() ?? "";
      return this.#child(child).function(`${rest.join("/")}:${exported}`);
    }
    throw new Error(`There is no function at ${JSON.stringify({ name, reference })}.`);
  }

  function(path: string): RegisteredFunction {
    const known = this.#functions.get(path);
    if (known !== undefined) return known;
    const [file = "", exported = "default"] = path.split(":");
    const code = this.#definition.modules.get(file)?.[exported];
    const registered = register(this, path, code);
    this.#functions.set(path, registered);
    return registered;
  }

  has(path: string): boolean {
    const [file = "", exported = "default"] = path.split(":");
    return this.#definition.modules.get(file)?.[exported] !== undefined;
  }

  /** Whether a function takes an argument of that name. */
  accepts(path: string, argName: string): boolean {
    return this.has(path) && this.function(path).argNames.has(argName);
  }

  module(file: string): Module | undefined {
    return this.#definition.modules.get(file);
  }

  handleOf({ component, path }: RegisteredFunction): string {
    return `${HANDLE_PREFIX}${component.path};${path}`;
  }

  find(path: string): Component {
    return path === ""
      ? this.#root
      : path.split("/").reduce<Component>((at, name) => at.#child(name), this.#root);
  }

  *all(): Generator<Component> {
    yield this;
    for (const child of this.#children.values()) yield* child.all();
  }

  #byHandle(handle: string): RegisteredFunction {
    const [componentPath = "", path = ""] = handle.slice(HANDLE_PREFIX.length).split(";");
    return this.find(componentPath).function(path);
  }

  #child(name: string): Component {
    const child = this.#children.get(name);
    if (child === undefined) throw new Error(`${this.path || "The app"} uses no ${name}.`);
    return child;
  }
}

type Invoke = (argsJson: string) => Promise<string>;
type InvokeAction = (requestId: string, argsJson: string) => Promise<string>;

/** What `query`, `mutation` and `action` leave on the functions they register. */
interface Registration {
  readonly isQuery?: boolean;
  readonly isMutation?: boolean;
  readonly isAction?: boolean;
  readonly invokeQuery?: Invoke;
  readonly invokeMutation?: Invoke;
  readonly invokeAction?: InvokeAction;
  readonly exportArgs?: () => string;
}

const isRegistration = (code: unknown): code is Registration => typeof code === "function";

const REQUEST_ID = "benchmark";

function register(component: Component, path: string, code: unknown): RegisteredFunction {
  if (!isRegistration(code)) throw new Error(`${component.path}/${path} is no function.`);
  const { invokeQuery, invokeMutation, invokeAction } = code;
  const label = component.path === "" ? path : `${component.path}/${path}`;
  const argsValidator: unknown = JSON.parse(code.exportArgs?.() ?? '{"type":"any"}');
  const checkArgs = (args: unknown): void => {
    const problem = validateValue(argsValidator, args);
    if (problem !== null) throw new Error(`${label} was called wrongly: ${problem}`);
  };
  const argNames = new Set(fieldsOf(argsValidator));
  const base = { component, path, label, checkArgs, argNames };
  if (code.isQuery === true && invokeQuery !== undefined)
    return { ...base, kind: "query", invoke: invokeQuery };
  if (code.isMutation === true && invokeMutation !== undefined)
    return { ...base, kind: "mutation", invoke: invokeMutation };
  if (code.isAction === true && invokeAction !== undefined)
    return { ...base, kind: "action", invoke: (argsJson) => invokeAction(REQUEST_ID, argsJson) };
  throw new Error(`${label} is neither a query nor a mutation nor an action.`);
}

/** The fields of an object's validator in its exported form. */
function fieldsOf(validator: unknown): string[] {
  if (typeof validator !== "object" || validator === null || !("value" in validator)) return [];
  const { value } = validator;
  return typeof value === "object" && value !== null ? Object.keys(value) : [];
}
