import { AsyncLocalStorage, AsyncResource } from "node:async_hooks";
import { types } from "node:util";
import vm from "node:vm";
import { consoleFor } from "./console";
import type { Invocation } from "./invocation";

/** How the sandbox reaches the run that the calling code belongs to. */
export interface SandboxHost {
  current(): Invocation | undefined;
  nowMs(): number;
  environment(name: string): string | undefined;
  /** The `Convex` global that the functions' library calls. */
  readonly convex: object;
  fetch(
    invocation: Invocation,
    input: string | URL | Request,
    init?: RequestInit,
  ): Promise<Response>;
  print(line: string): void;
}

/** What of the host is the same object in the sandbox. Anything not named here does not exist there. */
const SHARED = {
  URL,
  URLSearchParams,
  DOMException,
  Event,
  EventTarget,
  structuredClone,
  AbortController,
  AbortSignal,
  AsyncLocalStorage,
  AsyncResource,
  ReadableStream,
  ReadableStreamBYOBReader,
  ReadableStreamDefaultReader,
  TransformStream,
  WritableStream,
  WritableStreamDefaultWriter,
  atob,
  btoa,
  TextEncoder,
  TextDecoder,
  TextDecoderStream,
  TextEncoderStream,
  Blob,
  File,
  Headers,
  FormData,
  Request,
  Response,
  Performance,
  PerformanceEntry,
  PerformanceMark,
  PerformanceMeasure,
} as const;

/** A fresh global object with what Convex's default runtime has, and nothing of Node. */
export function createSandbox(host: SandboxHost): vm.Context {
  const context = vm.createContext({}, { codeGeneration: { strings: true, wasm: true } });
  const realm = vm.runInContext("globalThis", context) as Realm;
  Object.assign(realm, SHARED, { self: realm, Convex: host.convex });
  const hide = (name: string, value: unknown) =>
    Object.defineProperty(realm, name, { value, configurable: true, writable: true });
  hide("console", consoleFor(host));
  realm["process"] = { env: environmentByName(host) };
  realm["performance"] = performanceFor(host);
  Object.assign(realm, timersFor(host));
  realm["fetch"] = async (input: string | URL | Request, init?: RequestInit) => {
    const invocation = forActionsOnly(host, "fetch()");
    return host.fetch(invocation, input, init);
  };
  installCrypto(realm, host);
  installClock(realm, host);
  acceptBothRealms(realm);
  return context;
}

type Realm = Record<string, unknown>;
type Constructor = abstract new (...args: never) => unknown;

const ACTIONS_ONLY =
  "in queries and mutations. Please consider using an action. See https://docs.convex.dev/functions/actions for more details.";

function forActionsOnly(host: SandboxHost, what: string): Invocation {
  const invocation = host.current();
  if (invocation === undefined) throw new Error(`Can't use ${what} at import time.`);
  if (invocation.deterministic) throw new Error(`Can't use ${what} ${ACTIONS_ONLY}`);
  if (invocation.ended) throw new Error(`Can't use ${what}: the function has ended.`);
  return invocation;
}

/** `process.env` answers a name and lists nothing: no keys, and `in` is false. */
function environmentByName(host: SandboxHost): object {
  return new Proxy(
    {},
    {
      get: (target, name, receiver): unknown =>
        typeof name === "string" ? host.environment(name) : Reflect.get(target, name, receiver),
    },
  );
}

function performanceFor(host: SandboxHost): object {
  const originMs = host.nowMs();
  // A query's clock stands still; everything else of the interface is the host's own.
  const now = () => {
    const invocation = host.current();
    if (invocation?.deterministic === true) return invocation.options.nowMs - originMs;
    return performance.now();
  };
  return new Proxy(performance, {
    get: (target, name): unknown => {
      if (name === "now") return now;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
}

function timersFor(host: SandboxHost): Record<string, unknown> {
  const start =
    (name: string, repeat: boolean) =>
    (handler: unknown, delayMs?: unknown, ...args: unknown[]): number => {
      const invocation = forActionsOnly(host, name);
      if (typeof handler !== "function") throw new TypeError(`${name} needs a function.`);
      const run = handler as (...args: unknown[]) => void;
      const delay = Math.max(0, Number(delayMs) || 0);
      return invocation.setTimer(
        () => {
          run(...args);
        },
        delay,
        repeat,
      );
    };
  const stop = (id: unknown) => {
    if (typeof id === "number") host.current()?.clearTimer(id);
  };
  return {
    setTimeout: start("setTimeout", false),
    setInterval: start("setInterval", true),
    clearTimeout: stop,
    clearInterval: stop,
  };
}

/** Operations that draw randomness which no seed controls. */
const RANDOM_OPERATIONS = new Set(["generateKey"]);
const RANDOM_ALGORITHMS: Readonly<Record<string, readonly string[]>> = {
  sign: ["ECDSA", "RSA-PSS"],
  encrypt: ["RSA-OAEP"],
};
const SUBTLE_METHODS = [
  "encrypt",
  "decrypt",
  "sign",
  "verify",
  "digest",
  "generateKey",
  "deriveKey",
  "deriveBits",
  "importKey",
  "exportKey",
] as const;

function installCrypto(realm: Realm, host: SandboxHost): void {
  // Its methods are defined below, from one list.
  // eslint-disable-next-line @typescript-eslint/no-extraneous-class -- the platform has it as a global
  class SubtleCrypto {}
  class Crypto {
    get subtle(): SubtleCrypto {
      return subtle;
    }
    getRandomValues<T extends ArrayBufferView>(view: T): T {
      const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
      const invocation = host.current();
      if (invocation?.deterministic === true) bytes.set(invocation.random.bytes(bytes.length));
      else crypto.getRandomValues(bytes);
      return view;
    }
    randomUUID(): string {
      const invocation = host.current();
      return invocation?.deterministic === true ? invocation.random.uuid() : crypto.randomUUID();
    }
  }
  const subtle = new SubtleCrypto();
  for (const method of SUBTLE_METHODS) {
    const call = crypto.subtle[method].bind(crypto.subtle) as (
      ...args: unknown[]
    ) => Promise<unknown>;
    const wrapped = async (...args: unknown[]) => {
      refuseUnseeded(host, method, args[0]);
      return call(...args.map(toHostBytes));
    };
    Object.defineProperty(SubtleCrypto.prototype, method, { value: wrapped, enumerable: true });
  }
  for (const name of ["wrapKey", "unwrapKey"]) {
    const value = async () => {
      throw new Error(
        `Not implemented: ${name} for SubtleCrypto. Consider calling an action defined in Node.js instead (https://docs.convex.dev/functions/actions).`,
      );
    };
    Object.defineProperty(SubtleCrypto.prototype, name, { value, enumerable: true });
  }
  const hidden = { enumerable: false, configurable: true };
  Object.defineProperty(realm, "Crypto", { value: Crypto, ...hidden });
  Object.defineProperty(realm, "SubtleCrypto", { value: SubtleCrypto, ...hidden });
  Object.defineProperty(realm, "crypto", {
    value: new Crypto(),
    enumerable: true,
    configurable: true,
  });
}

function refuseUnseeded(host: SandboxHost, method: string, algorithm: unknown): void {
  if (host.current()?.deterministic !== true) return;
  const name =
    typeof algorithm === "string" ? algorithm : (algorithm as { name?: unknown } | null)?.name;
  const random =
    RANDOM_OPERATIONS.has(method) ||
    (RANDOM_ALGORITHMS[method] ?? []).includes(String(name).toUpperCase());
  if (random) throw new Error("Can't use cryptographic randomness in queries and mutations.");
}

/** Node's Web Crypto knows only buffers of its own realm, also inside an algorithm's parameters. */
function toHostBytes(value: unknown): unknown {
  if (types.isAnyArrayBuffer(value)) return new Uint8Array(value).slice();
  if (ArrayBuffer.isView(value))
    return new Uint8Array(value.buffer, value.byteOffset, value.byteLength).slice();
  if (typeof value !== "object" || value === null || types.isCryptoKey(value)) return value;
  if (Array.isArray(value)) return Array.from(value as unknown[]);
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, toHostBytes(part)]));
}

function installClock(realm: Realm, host: SandboxHost): void {
  const nowMs = () => {
    const invocation = host.current();
    return invocation?.deterministic === true ? invocation.options.nowMs : host.nowMs();
  };
  const original = realm["Date"] as DateConstructor;
  original.now = nowMs;
  const patched = new Proxy(original, {
    construct: (target, args: unknown[], newTarget): Date =>
      Reflect.construct(target, args.length === 0 ? [nowMs()] : args, newTarget) as Date,
    apply: (target) => new target(nowMs()).toString(),
  });
  original.prototype.constructor = patched;
  Object.defineProperty(realm, "Date", { value: patched, configurable: true, writable: true });
  (realm["Math"] as Math).random = () => {
    const invocation = host.current();
    return invocation?.deterministic === true ? invocation.random.next() : Math.random();
  };
}

const TWINS = [
  "Object",
  "Function",
  "Array",
  "Promise",
  "Error",
  "TypeError",
  "RangeError",
  "SyntaxError",
  "ReferenceError",
  "EvalError",
  "URIError",
  "AggregateError",
  "ArrayBuffer",
  "SharedArrayBuffer",
  "DataView",
  "Map",
  "Set",
  "WeakMap",
  "WeakSet",
  "Date",
  "RegExp",
  "Int8Array",
  "Uint8Array",
  "Uint8ClampedArray",
  "Int16Array",
  "Uint16Array",
  "Int32Array",
  "Uint32Array",
  "Float32Array",
  "Float64Array",
  "BigInt64Array",
  "BigUint64Array",
] as const;

/**
 * What host objects hand in (bytes, errors, promises, parsed JSON) was made by the host's
 * constructors; the sandbox's own constructors recognise it too. Subclasses stay strict.
 */
function acceptBothRealms(realm: Realm): void {
  const ordinary = Function.prototype[Symbol.hasInstance];
  for (const name of TWINS) {
    const own = realm[name] as Constructor;
    const twin = (globalThis as unknown as Realm)[name] as Constructor;
    Object.defineProperty(own, Symbol.hasInstance, {
      configurable: true,
      value(this: unknown, value: unknown): boolean {
        if (ordinary.call(this as () => void, value)) return true;
        return this === own && ordinary.call(twin as unknown as () => void, value);
      },
    });
  }
}
