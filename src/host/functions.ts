import type { App, FunctionEntry } from "./app";
import { findFunction } from "./app";
import type { Database, Transaction } from "./database";
import { WriteConflict } from "./database";
import { FunctionError, PlatformError } from "./errors";
import type { Caller, InvocationOptions, NewJob } from "./invocation";
import { Invocation, within } from "./invocation";
import { Permits } from "./permits";
import { toFunctionError } from "./thrown";
import { validateValue } from "./validate";

/** What the runtime draws on besides the database; all of it replaceable in tests. */
export interface RuntimeHooks {
  nowMs(): number;
  /** Uniform in [0, 1). */
  uniform(): number;
  sleep(ms: number): Promise<void>;
  print(line: string): void;
  /** Transactions that write under way at once; others wait before they begin. */
  readonly writersAtOnce: number;
}

export interface CallResult {
  /** JSON text of the returned value. */
  readonly valueJson: string;
  readonly logLines: readonly string[];
}

export interface CallOptions {
  /** Reads this commit instead of the newest. */
  readonly atTs?: number;
  /** Internal functions are not found. */
  readonly publicOnly?: boolean;
  /** For a run of a scheduled job: whether the job was canceled meanwhile. */
  readonly jobCanceled?: () => Promise<boolean>;
}

/** A response whose body is still to be read; the run ends when the body does. */
export interface HttpCall {
  readonly response: Response;
  readonly invocation: Invocation;
}

const CONFLICT_ATTEMPTS_MAX = 5;
const CONFLICT_BASE_MS = 100;
const CONFLICT_CAP_MS = 2_000;
const VALUE_CHARS_MAX = 16 * 1024 * 1024;
const DEPTH_MAX = 8;
/** Reported, not enforced: here it includes the database's time. */
const USER_MS_MAX = 1_000;
const NOT_ROUTED = { status: 404, headers: { "content-type": "text/plain; charset=utf-8" } };

/** Runs functions by name: one snapshot per query, one commit per mutation, nothing held by actions. */
export class Runtime {
  app: App;
  readonly database: Database;
  readonly hooks: RuntimeHooks;
  /** Told of jobs once the transaction that wrote them is committed. */
  onScheduled: (jobs: readonly NewJob[]) => void = () => undefined;
  readonly #writers: Permits;

  constructor(app: App, database: Database, hooks: RuntimeHooks) {
    this.app = app;
    this.database = database;
    this.hooks = hooks;
    this.#writers = new Permits(hooks.writersAtOnce);
  }

  /** Runs a function of whatever kind it is. */
  async any(
    name: string,
    args: unknown,
    caller: Caller,
    options: CallOptions = {},
  ): Promise<CallResult> {
    const { kind } = findFunction(this.app, name, options.publicOnly === true);
    return this[kind](name, args, caller, options);
  }

  async query(
    name: string,
    args: unknown,
    caller: Caller,
    options: CallOptions = {},
  ): Promise<CallResult> {
    const entry = this.#find(name, "query", options);
    const at = options.atTs === undefined ? {} : { atTs: options.atTs };
    const transaction = this.database.begin("query", at);
    const invocation = this.#invocation(entry, caller, { transaction });
    try {
      return await this.#run(entry, args, invocation);
    } finally {
      transaction.end();
    }
  }

  async mutation(
    name: string,
    args: unknown,
    caller: Caller,
    options: CallOptions = {},
  ): Promise<CallResult> {
    const entry = this.#find(name, "mutation", options);
    return this.retrying(() =>
      this.transact((transaction) => this.mutateIn(transaction, entry, args, caller)),
    );
  }

  async action(
    name: string,
    args: unknown,
    caller: Caller,
    options: CallOptions = {},
  ): Promise<CallResult> {
    const entry = this.#find(name, "action", options);
    const canceled = options.jobCanceled === undefined ? {} : { jobCanceled: options.jobCanceled };
    return this.#run(entry, args, this.#invocation(entry, caller, canceled));
  }

  /** Starts the HTTP action of a route, or answers as the platform does when there is none. */
  async http(
    request: Request,
    caller: Caller,
    onStart: (invocation: Invocation) => void,
  ): Promise<HttpCall> {
    const path = new URL(request.url).pathname;
    const invocation = new Invocation({
      ...this.#common(caller),
      kind: "httpAction",
      name: `${request.method} ${path}`,
      visibility: "public",
      transaction: null,
      depth: 0,
    });
    onStart(invocation);
    try {
      const router = this.app.router();
      if (router === null)
        return {
          invocation,
          response: new Response(
            "This Convex deployment does not have HTTP actions enabled.",
            NOT_ROUTED,
          ),
        };
      // Node parses no request without a method it knows, and the router serves HEAD by GET.
      const match = router.lookup(path, request.method);
      if (match === null)
        return { invocation, response: new Response("No matching routes found", NOT_ROUTED) };
      const running = within(invocation, async () => match[0].invokeHttpAction(request));
      return { invocation, response: await Promise.race([running, invocation.failure]) };
    } catch (error) {
      invocation.end();
      throw toFunctionError(error, this.app.stacks, invocation.logLines);
    }
  }

  /** Runs a mutation in a transaction that the caller commits. Jobs are announced after that. */
  async mutateIn(
    transaction: Transaction,
    entry: FunctionEntry,
    args: unknown,
    caller: Caller,
  ): Promise<CallResult & { readonly jobs: readonly NewJob[] }> {
    const invocation = this.#invocation(entry, caller, { transaction });
    const result = await this.#run(entry, args, invocation);
    return { ...result, jobs: invocation.scheduled };
  }

  /** Commits what `body` did, once; a conflict is thrown to the caller, who knows how to retry. */
  async transact<T extends { readonly jobs: readonly NewJob[] }>(
    body: (transaction: Transaction) => T | Promise<T>,
  ): Promise<T> {
    const giveBack = await this.#writers.take();
    const transaction = this.database.begin("mutation");
    try {
      const result = await body(transaction);
      await this.database.commit(transaction);
      if (result.jobs.length > 0) this.onScheduled(result.jobs);
      return result;
    } finally {
      transaction.end();
      giveBack();
    }
  }

  /** Runs again on a conflict, as often and as far apart as the platform does, then gives up. */
  async retrying<T>(body: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await body();
      } catch (error) {
        if (!(error instanceof WriteConflict)) throw error;
        if (attempt === CONFLICT_ATTEMPTS_MAX) throw conflictError(error.table);
        await this.hooks.sleep(
          conflictDelayMs(this.hooks, attempt, CONFLICT_BASE_MS, CONFLICT_CAP_MS),
        );
      }
    }
  }

  /** A query or mutation called by one: a mutation's writes are dropped if it throws. */
  async nested(parent: Invocation, udfType: string, name: string, args: unknown): Promise<string> {
    const { transaction, depth, caller } = parent.options;
    if (transaction === null) throw new Error("A nested call needs a transaction.");
    if (depth + 1 >= DEPTH_MAX)
      throw new Error(
        "Cross component call depth limit exceeded. Do you have an infinite loop in your app?",
      );
    const entry = findFunction(this.app, name, false);
    const wanted = udfType === "mutation" ? "mutation" : "query";
    if (entry.kind !== wanted)
      throw new Error(
        `Trying to execute ${entry.name} as ${wanted}, but it is defined as ${entry.kind}.`,
      );
    if (wanted === "mutation" && parent.options.kind !== "mutation")
      throw new Error(`Cannot call a mutation function from a ${parent.options.kind} function`);
    const inner =
      udfType === "snapshotQuery"
        ? transaction.staleReader()
        : wanted === "mutation"
          ? transaction.child()
          : transaction;
    const { nowMs } = parent.options;
    const invocation = this.#invocation(entry, caller, {
      transaction: inner,
      depth: depth + 1,
      nowMs,
    });
    try {
      const result = await this.#run(entry, args, invocation);
      if (wanted === "mutation") {
        transaction.commitChild(inner);
        parent.scheduled.push(...invocation.scheduled);
      }
      return result.valueJson;
    } finally {
      // A stale reader may hold an earlier snapshot of its own, which would stay open.
      if (udfType === "snapshotQuery") inner.end();
    }
  }

  async #run(entry: FunctionEntry, args: unknown, invocation: Invocation): Promise<CallResult> {
    const { logLines } = invocation;
    const startedMs = performance.now();
    try {
      const argsJson = JSON.stringify([args]);
      checkValue(entry.args, args, argsJson, "ArgumentValidationError");
      const call = within(invocation, async () =>
        invoke(this.app.resolve(entry), entry.kind, argsJson, invocation),
      );
      const valueJson = await Promise.race([call, invocation.failure]);
      checkValue(entry.returns, null, valueJson, "ReturnsValidationError");
      return { valueJson, logLines };
    } catch (error) {
      throw toFunctionError(error, this.app.stacks, logLines);
    } finally {
      invocation.end();
      const tookMs = Math.round(performance.now() - startedMs);
      if (invocation.deterministic && tookMs > USER_MS_MAX)
        this.hooks.print(
          `${entry.name} took ${tookMs} ms; Convex ends a ${entry.kind} after ${USER_MS_MAX} ms of its own time.`,
        );
    }
  }

  #find(name: string, kind: FunctionEntry["kind"], options: CallOptions): FunctionEntry {
    const entry = findFunction(this.app, name, options.publicOnly === true);
    if (entry.kind === kind) return entry;
    throw new FunctionError(
      `Trying to execute ${entry.name} as ${kind}, but it is defined as ${entry.kind}.`,
    );
  }

  #invocation(entry: FunctionEntry, caller: Caller, more: Partial<InvocationOptions>): Invocation {
    const { kind, name, visibility } = entry;
    return new Invocation({
      ...this.#common(caller),
      kind,
      name,
      visibility,
      transaction: null,
      depth: 0,
      ...more,
    });
  }

  #common(caller: Caller) {
    return { caller, nowMs: this.hooks.nowMs(), uniform: () => this.hooks.uniform() };
  }
}

async function invoke(
  exported: ReturnType<App["resolve"]>,
  kind: FunctionEntry["kind"],
  argsJson: string,
  invocation: Invocation,
): Promise<string> {
  switch (kind) {
    case "query":
      return exported.invokeQuery(argsJson);
    case "mutation":
      return exported.invokeMutation(argsJson);
    case "action":
      return exported.invokeAction(invocation.options.caller.request.requestId, argsJson);
  }
}

function checkValue(validator: unknown, value: unknown, json: string, label: string): void {
  if (json.length > VALUE_CHARS_MAX)
    throw new FunctionError(`${label}: the value is larger than 16 MiB.`);
  if (validator === null) return;
  const parsed: unknown = label === "ReturnsValidationError" ? JSON.parse(json) : value;
  const problem = validateValue(validator, parsed);
  if (problem !== null) throw new FunctionError(`${label}: ${problem}`);
}

/** Full jitter below a ceiling that doubles with each attempt; the first attempt is 1. */
export function conflictDelayMs(
  hooks: RuntimeHooks,
  attempt: number,
  baseMs: number,
  capMs: number,
): number {
  return hooks.uniform() * Math.min(capMs, baseMs * 2 ** Math.min(attempt - 1, 30));
}

function conflictError(table: string): PlatformError {
  return new PlatformError(
    503,
    "OptimisticConcurrencyControlFailure",
    `Documents read from or written to the "${table}" table changed while this mutation was being run and on every subsequent retry. Another call to this mutation changed the document it read. See https://docs.convex.dev/error#1`,
  );
}
