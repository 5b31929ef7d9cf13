import { AsyncLocalStorage } from "node:async_hooks";
import { jsonToConvex, type JSONValue } from "convex/values";
import { isObject, type Json, type JsonObject } from "../../../src/host/json";
import { decodeId } from "../../../src/host/ids";
import type { RegisteredFunction } from "./app";
import { readPage, startQuery, type Results } from "./queries";
import type { Table } from "./tables";
import type { Transaction } from "./transaction";

type Args = Readonly<Record<string, Json | undefined>>;

/** One running function: what its system calls act on. */
export interface Frame {
  readonly fn: RegisteredFunction;
  /** Null in an action. */
  readonly transaction: Transaction | null;
  /** Whether it reads what is committed and nothing depends on it. */
  readonly stale: boolean;
  readonly host: FrameHost;
  readonly results: Map<number, Results>;
}

/** What a running function asks of the backend around it. */
export interface FrameHost {
  /** Runs a function inside the transaction of the frame. */
  nested(frame: Frame, fn: RegisteredFunction, args: Json, stale: boolean): Promise<string>;
  /** Runs a function for an action, in a transaction of its own. */
  call(fn: RegisteredFunction, args: Json): Promise<string>;
  /** Schedules a function at `atMs`; returns the job's id. */
  schedule(frame: Frame, fn: RegisteredFunction, args: Json, atMs: number): string;
  cancel(frame: Frame, jobId: string): void;
}

export const frames = new AsyncLocalStorage<Frame>();

const MILLISECONDS_PER_SECOND = 1_000;

/** The global that functions' library talks to, for whichever frame calls. */
export const convexGlobal = {
  syscall(op: string, argsJson: string): string {
    return syncCall(current(), op, JSON.parse(argsJson) as Args);
  },
  asyncSyscall(op: string, argsJson: string): Promise<string> {
    return asyncCall(current(), op, JSON.parse(argsJson) as Args);
  },
  jsSyscall(op: string): never {
    throw new Error(`There is no operation ${op} here.`);
  },
};

function current(): Frame {
  const frame = frames.getStore();
  if (frame === undefined) throw new Error("No function is running.");
  return frame;
}

function syncCall(frame: Frame, op: string, args: Args): string {
  switch (op) {
    case "1.0/queryStream": {
      const { tables } = frame.fn.component;
      const queryId = frame.results.size;
      const query = args["query"] ?? null;
      const options = { stale: frame.stale };
      frame.results.set(queryId, startQuery(transactionOf(frame), tables, query, options));
      return JSON.stringify({ queryId });
    }
    case "1.0/queryCleanup":
      return "null";
    case "1.0/db/normalizeId": {
      const id = text(args, "idString");
      const decoded = decodeId(id);
      const table = frame.fn.component.tables.find(text(args, "table"));
      const fits = "tableNumber" in decoded && decoded.tableNumber === table?.number;
      return JSON.stringify({ id: fits ? id : null });
    }
    default:
      throw new Error(`Unknown operation ${op}`);
  }
}

async function asyncCall(frame: Frame, op: string, args: Args): Promise<string> {
  if (op.startsWith("1.0/actions/")) return actionCall(frame, op, args);
  switch (op) {
    case "1.0/queryStreamNext": {
      const document = frame.results.get(Number(args["queryId"]))?.next();
      return document === null || document === undefined
        ? '{"value":null,"done":true}'
        : `{"value":${document.text},"done":false}`;
    }
    case "1.0/queryPage":
      return readPage(transactionOf(frame), frame.fn.component.tables, args, frame.stale);
    case "1.0/runUdf": {
      const fn = frame.fn.component.resolve(args);
      const stale = frame.stale || args["udfType"] === "snapshotQuery";
      return frame.host.nested(frame, fn, args["args"] ?? {}, stale);
    }
    case "1.0/createFunctionHandle": {
      const { component } = frame.fn;
      return JSON.stringify(component.handleOf(component.resolve(args)));
    }
    case "1.0/schedule":
      return schedule(frame, args);
    case "1.0/cancel_job":
      frame.host.cancel(frame, text(args, "id"));
      return "null";
    case "1.0/getUserIdentity":
      return "null";
    case "1.0/getFunctionMetadata": {
      const { component, kind, path } = frame.fn;
      return JSON.stringify({ name: path, componentPath: component.path, type: kind });
    }
    case "1.0/getTransactionMetrics":
      return JSON.stringify(metrics(transactionOf(frame)));
    default:
      return databaseCall(frame, op, args);
  }
}

function databaseCall(frame: Frame, op: string, args: Args): string {
  const transaction = transactionOf(frame);
  switch (op) {
    case "1.0/get": {
      const id = text(args, "id");
      return transaction.get(tableOf(frame, args), id, frame.stale)?.text ?? "null";
    }
    case "1.0/insert": {
      const table = frame.fn.component.tables.named(text(args, "table"));
      return JSON.stringify({ _id: transaction.insert(table, fields(args)) });
    }
    case "1.0/shallowMerge":
      transaction.patch(tableOf(frame, args), text(args, "id"), fields(args));
      return "null";
    case "1.0/replace":
      transaction.replace(tableOf(frame, args), text(args, "id"), fields(args));
      return "null";
    case "1.0/remove":
      transaction.remove(tableOf(frame, args), text(args, "id"));
      return "null";
    default:
      throw new Error(`Unknown async operation ${op}`);
  }
}

async function actionCall(frame: Frame, op: string, args: Args): Promise<string> {
  switch (op) {
    case "1.0/actions/query":
    case "1.0/actions/mutation":
    case "1.0/actions/action":
      return frame.host.call(frame.fn.component.resolve(args), args["args"] ?? {});
    case "1.0/actions/schedule":
      return schedule(frame, args);
    case "1.0/actions/cancel_job":
      frame.host.cancel(frame, text(args, "id"));
      return "null";
    default:
      throw new Error(`Unknown async operation ${op}`);
  }
}

function schedule(frame: Frame, args: Args): string {
  const fn = frame.fn.component.resolve(args);
  const atMs = Number(args["ts"]) * MILLISECONDS_PER_SECOND;
  return JSON.stringify(frame.host.schedule(frame, fn, args["args"] ?? {}, atMs));
}

function transactionOf({ transaction, fn }: Frame): Transaction {
  if (transaction === null) throw new Error(`${fn.label} is an action and has no database.`);
  return transaction;
}

function tableOf(frame: Frame, args: Args): Table {
  const { tables } = frame.fn.component;
  const { table } = args;
  if (typeof table === "string") return tables.named(table);
  const id = text(args, "id");
  const decoded = decodeId(id);
  const named = "tableNumber" in decoded ? tables.numbered(decoded.tableNumber) : undefined;
  if (named === undefined) throw new Error(`${id} is the id of no table here.`);
  return named;
}

function fields(args: Args): JsonObject {
  const { value } = args;
  if (isObject(value)) return value;
  throw new Error("A document must be an object.");
}

function text(args: Args, name: string): string {
  const value = args[name];
  if (typeof value === "string") return value;
  throw new Error(`The argument ${name} must be a string.`);
}

/** In the shape of `ctx.meta.getTransactionMetrics()`; what remains is not said. */
function metrics({ usage }: Transaction): Record<string, { used: number; remaining: number }> {
  const used = (amount: number) => ({ used: amount, remaining: 0 });
  return {
    bytesRead: used(usage.documentBytesRead),
    bytesWritten: used(usage.documentBytesWritten),
    databaseQueries: used(usage.queries),
    documentsRead: used(usage.documentsRead),
    documentsWritten: used(usage.writeOperations),
    functionsScheduled: used(usage.scheduled),
    scheduledFunctionArgsBytes: used(0),
  };
}

const CONVEX_ERROR = Symbol.for("ConvexError");

/** What a failed function's caller sees: its message, and the data of a ConvexError. */
export function crossing(thrown: unknown): Error {
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const error = new Error(message, { cause: thrown });
  if (typeof thrown !== "object" || thrown === null || !("data" in thrown)) return error;
  const { data } = thrown;
  // The library replaces the value by its JSON text on the way out of the outermost handler.
  if (CONVEX_ERROR in thrown && typeof data === "string")
    return Object.assign(error, { data: JSON.parse(data) as unknown });
  return Object.assign(error, { data });
}

/** The value that a function returned. */
export function resultOf(json: string): unknown {
  return jsonToConvex(JSON.parse(json) as JSONValue);
}
