import { canonicalName, findFunction } from "./app";
import type { Runtime } from "./functions";
import type { Identity, Invocation, NewJob } from "./invocation";
import { currentInvocation } from "./invocation";
import type { Transaction } from "./database";

/** Names under which scheduled functions are listed carry the module's extension. */
const listedName = (name: string) => name.replace(":", ".js:");

const FIVE_YEARS_MS = 5 * 366 * 24 * 3_600 * 1_000;
const HANDLE_PREFIX = "function://;";

const WRITES = new Set(["1.0/insert", "1.0/shallowMerge", "1.0/replace", "1.0/remove"]);
const DATABASE = new Set([
  ...WRITES,
  "1.0/get",
  "1.0/queryStreamNext",
  "1.0/queryPage",
  "1.0/count",
  "1.0/getTransactionMetrics",
]);

type Args = Readonly<Record<string, unknown>>;
type Handler = (runtime: Runtime, invocation: Invocation, args: Args) => Promise<unknown>;

/** Operations whose argument and result are JSON values; those of the database pass as text. */
const COMMON: Readonly<Record<string, Handler>> = {
  "1.0/createFunctionHandle": async (runtime, _, args) =>
    HANDLE_PREFIX + findFunction(runtime.app, targetOf(args), false).name,
  "1.0/getUserIdentity": async (_, invocation) => identityFor(invocation.options.caller.identity),
  "1.0/getFunctionMetadata": async (_, invocation) => ({
    name: invocation.options.name,
    componentPath: "",
  }),
  "1.0/getDeploymentMetadata": async () => ({ name: "local", region: null, class: "s16" }),
  "1.0/getRequestMetadata": async (_, invocation) => {
    if (invocation.options.kind === "query")
      throw new Error("Cannot get request metadata in a query");
    return { ...invocation.options.caller.request, authToken: null };
  },
};

const IN_TRANSACTIONS: Readonly<Record<string, Handler>> = {
  ...COMMON,
  "1.0/runUdf": async (runtime, invocation, args) => {
    const run = invocation.exclusive.then(() =>
      runtime.nested(invocation, String(args["udfType"]), targetOf(args), args["args"]),
    );
    invocation.exclusive = run.then(nothing, nothing);
    return new RawJson(await run);
  },
  "1.0/schedule": async (runtime, invocation, args) => {
    const { transaction, kind } = invocation.options;
    if (transaction === null || kind !== "mutation") throw unknown("1.0/schedule");
    const job = writeJob(runtime, transaction, {
      args,
      nowMs: invocation.options.nowMs,
      canceled: false,
    });
    invocation.scheduled.push(job);
    return job.id;
  },
  "1.0/cancel_job": async (runtime, invocation, args) => {
    const { transaction, kind } = invocation.options;
    if (transaction === null || kind !== "mutation") throw unknown("1.0/cancel_job");
    cancelJob(transaction, String(args["id"]), runtime.hooks.nowMs());
    return null;
  },
  // Delivered on the platform's enterprise plan only; elsewhere it is accepted and dropped.
  "1.0/auditLog": async () => null,
};

const IN_ACTIONS: Readonly<Record<string, Handler>> = {
  ...COMMON,
  "1.0/actions/query": async (runtime, invocation, args) =>
    new RawJson(
      (await runtime.query(targetOf(args), args["args"], invocation.options.caller)).valueJson,
    ),
  "1.0/actions/mutation": async (runtime, invocation, args) =>
    new RawJson(
      (await runtime.mutation(targetOf(args), args["args"], invocation.options.caller)).valueJson,
    ),
  "1.0/actions/action": async (runtime, invocation, args) =>
    new RawJson(
      (await runtime.action(targetOf(args), args["args"], invocation.options.caller)).valueJson,
    ),
  "1.0/actions/schedule": async (runtime, invocation, args) => {
    const canceled = (await invocation.options.jobCanceled?.()) ?? false;
    const nowMs = runtime.hooks.nowMs();
    const { jobs } = await runtime.retrying(() =>
      runtime.transact((transaction) => ({
        jobs: [writeJob(runtime, transaction, { args, nowMs, canceled })],
      })),
    );
    return jobs[0]?.id;
  },
  "1.0/actions/cancel_job": async (runtime, _, args) => {
    await runtime.retrying(() =>
      runtime.transact((transaction) => {
        cancelJob(transaction, String(args["id"]), runtime.hooks.nowMs());
        return { jobs: [] };
      }),
    );
    return null;
  },
};

/** The `Convex` global of the functions' library, for whichever run calls it. */
export function convexGlobal(runtime: () => Runtime): object {
  return {
    syscall: (op: string, argsJson: string): string => {
      const { transaction } = running(op).options;
      if (transaction === null) throw new Error(`Unknown operation ${op}`);
      return transaction.syscall(op, argsJson);
    },
    asyncSyscall: async (op: string, argsJson: string): Promise<string> => {
      const invocation = running(op);
      try {
        return await perform(runtime(), invocation, op, argsJson);
      } catch (error) {
        throw withData(error);
      }
    },
    jsSyscall: (op: string): never => {
      throw new Error(`${op} is not supported: this host has no file storage.`);
    },
  };
}

function running(op: string): Invocation {
  const invocation = currentInvocation();
  if (invocation === undefined) throw new Error(`Can't use ${op} at import time.`);
  if (invocation.ended) throw new Error(`${op} was called after its function had ended.`);
  return invocation;
}

async function perform(
  runtime: Runtime,
  invocation: Invocation,
  op: string,
  argsJson: string,
): Promise<string> {
  const { transaction, kind } = invocation.options;
  if (transaction !== null && DATABASE.has(op)) {
    if (kind === "query" && WRITES.has(op)) throw unknown(op);
    await invocation.exclusive;
    return transaction.asyncSyscall(op, argsJson);
  }
  if (op.startsWith("1.0/storage")) throw new Error("This host has no file storage.");
  const handler = (transaction === null ? IN_ACTIONS : IN_TRANSACTIONS)[op];
  if (handler === undefined) throw unknown(op);
  const result = await handler(runtime, invocation, JSON.parse(argsJson) as Args);
  return result instanceof RawJson ? result.text : JSON.stringify(result);
}

/** A value that is JSON text already. */
class RawJson {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

const nothing = () => undefined;
const unknown = (op: string) => new Error(`Unknown async operation ${op}`);

/** The library turns `data`, a JSON value, into a ConvexError on the caller's side. */
function withData(error: unknown): Error {
  if (!(error instanceof Error)) return new Error(String(error));
  if (!("dataJson" in error) || typeof error.dataJson !== "string") return error;
  return Object.assign(new Error(error.message), { data: JSON.parse(error.dataJson) as unknown });
}

function targetOf(args: Args): string {
  const { name, reference, functionHandle } = args;
  if (typeof functionHandle === "string") {
    if (!functionHandle.startsWith(HANDLE_PREFIX))
      throw new Error(`Invalid function handle ${functionHandle}`);
    return functionHandle.slice(HANDLE_PREFIX.length);
  }
  if (typeof name === "string") return canonicalName(name);
  throw new Error(`This host does not run components: ${String(reference)} cannot be called.`);
}

function identityFor(identity: Identity): unknown {
  switch (identity.kind) {
    case "none":
      return null;
    case "user":
      return identity.claims;
    case "admin":
      return identity.actingAs;
    case "invalid":
      throw identity.error;
  }
}

interface JobRequest {
  readonly args: Args;
  readonly nowMs: number;
  /** Scheduled by a run whose own job was canceled: recorded, and never run. */
  readonly canceled: boolean;
}

function writeJob(
  runtime: Runtime,
  transaction: Transaction,
  { args, nowMs, canceled }: JobRequest,
): NewJob {
  const entry = findFunction(runtime.app, targetOf(args), false);
  if (entry.kind === "query") throw new Error("Only mutations and actions can be scheduled.");
  const dueMs = Number(args["ts"]) * 1_000;
  if (!(Math.abs(dueMs - nowMs) <= FIVE_YEARS_MS))
    throw new Error(
      `${String(args["ts"])} is more than 5 years in the ${dueMs > nowMs ? "future" : "past"}`,
    );
  const jobArgs = [args["args"] ?? {}];
  transaction.system.countScheduled(Buffer.byteLength(JSON.stringify(jobArgs)));
  const id = transaction.system.insert("_scheduled_functions", {
    name: listedName(entry.name),
    args: jobArgs,
    scheduledTime: dueMs,
    state: { kind: canceled ? "canceled" : "pending" },
    ...(canceled ? { completedTime: nowMs } : {}),
  });
  return { id, dueMs };
}

/** A pending job never runs; one in progress runs on, and what it schedules is born canceled. */
function cancelJob(transaction: Transaction, id: string, nowMs: number): void {
  const job = transaction.system.get(id);
  const state = (job?.["state"] as { kind?: string } | undefined)?.kind;
  if (state === "pending" || state === "inProgress")
    transaction.system.patch(id, { state: { kind: "canceled" }, completedTime: nowMs });
}
