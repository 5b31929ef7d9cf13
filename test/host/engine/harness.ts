import { AsyncLocalStorage } from "node:async_hooks";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import { convexToJson, jsonToConvex, type Value } from "convex/values";
import { WriteConflict, type Database, type Transaction } from "../../../src/host/database";
import { openDatabase } from "../../../src/host/engine";
import type { Injection } from "../../../src/host/injection";

const SCRATCH = path.resolve(".output/tmp");

/** A directory for one test, and what removes it again. */
export function scratchDir(): { dir: string; remove: () => void } {
  mkdirSync(SCRATCH, { recursive: true });
  const dir = mkdtempSync(path.join(SCRATCH, "engine-"));
  return {
    dir,
    remove: () => {
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Opens a database in a scratch directory, hands it to the test and cleans up. */
export async function withDatabase(
  test: (database: Database, dir: string) => Promise<void>,
  injection: Injection = {},
): Promise<void> {
  const { dir, remove } = scratchDir();
  const database = await openDatabase({ dir, injection });
  try {
    await test(database, dir);
  } finally {
    await database.close();
    remove();
  }
}

/** What the functions' library finds as `Convex` while it runs against the engine. */
interface Running {
  readonly transaction: Transaction;
  readonly runNested: (name: string, args: Value) => Promise<Value>;
}

interface Invokable {
  invokeQuery?: (args: string) => Promise<string>;
  invokeMutation?: (args: string) => Promise<string>;
}

const running = new AsyncLocalStorage<Running>();

function current(): Running {
  const store = running.getStore();
  if (store === undefined) throw new Error("No function of the engine is running.");
  return store;
}

const convexGlobal = {
  syscall: (op: string, args: string) => current().transaction.syscall(op, args),
  asyncSyscall: async (op: string, args: string) => {
    const { transaction, runNested } = current();
    if (op !== "1.0/runUdf") return transaction.asyncSyscall(op, args);
    const call = JSON.parse(args) as { name: string; args: Parameters<typeof jsonToConvex>[0] };
    return JSON.stringify(convexToJson(await runNested(call.name, jsonToConvex(call.args))));
  },
};

/**
 * Runs functions made with `queryGeneric` and `mutationGeneric` on the engine, nested calls
 * included, without the function runtime.
 */
export class EngineFunctions {
  readonly #database: Database;
  readonly #functions: Readonly<Record<string, unknown>>;

  constructor(database: Database, functions: Readonly<Record<string, unknown>>) {
    this.#database = database;
    this.#functions = functions;
  }

  async query(name: string, args: Value): Promise<Value> {
    const transaction = this.#database.begin("query");
    try {
      return await this.#run(transaction, name, args);
    } finally {
      transaction.end();
    }
  }

  /** One attempt, without retries; the timestamp is that of the commit. */
  async mutation(name: string, args: Value): Promise<{ value: Value; ts: number }> {
    const transaction = this.#database.begin("mutation");
    try {
      const value = await this.#run(transaction, name, args);
      const { ts } = await this.#database.commit(transaction);
      return { value, ts };
    } finally {
      transaction.end();
    }
  }

  async #run(transaction: Transaction, name: string, args: Value): Promise<Value> {
    const invokable = this.#functions[name] as Invokable;
    const argsJson = JSON.stringify([convexToJson(args)]);
    const scope: Running = {
      transaction,
      runNested: async (nestedName, nestedArgs) => {
        const child = transaction.child();
        const value = await this.#run(child, nestedName, nestedArgs);
        transaction.commitChild(child);
        return value;
      },
    };
    const invoke = invokable.invokeMutation ?? invokable.invokeQuery;
    if (invoke === undefined) throw new Error(`${name} is neither a query nor a mutation.`);
    const json = await withConvexGlobal(() => running.run(scope, () => invoke(argsJson)));
    return jsonToConvex(JSON.parse(json) as Parameters<typeof jsonToConvex>[0]);
  }
}

const globals = globalThis as { Convex?: unknown };
let users = 0;
let previous: unknown;

// The official mock installs a global of the same name; ours is there only while a function runs.
async function withConvexGlobal<T>(run: () => Promise<T>): Promise<T> {
  if (users === 0) previous = globals.Convex;
  users += 1;
  globals.Convex = convexGlobal;
  try {
    return await run();
  } finally {
    users -= 1;
    if (users === 0) globals.Convex = previous;
  }
}

/** Runs until a mutation is not in conflict; returns how often it was. */
export async function untilCommitted<T>(attempt: () => Promise<T>): Promise<[T, number]> {
  for (let conflicts = 0; ; conflicts++) {
    try {
      return [await attempt(), conflicts];
    } catch (error) {
      if (!(error instanceof WriteConflict)) throw error;
    }
  }
}
