import { createHash } from "node:crypto";
import { env } from "../../../src/config/env";
import type { Clock } from "./clock";
import type { Random } from "./random";
import { convexGlobal } from "./syscalls";

const UUID_BYTES = 16;

/** What functions find outside themselves while they run in simulated time. */
export interface World {
  readonly clock: Clock;
  readonly random: Random;
  /** The app's variables, over those of the process. */
  readonly variables: Readonly<Record<string, string>>;
  fetch(url: string, init: RequestInit | undefined): Promise<Response>;
}

/**
 * Puts simulated time, seeded randomness, a silent console and a world without a network in place
 * of the process's own. Returns what undoes it.
 */
export function enterWorld(world: World): () => void {
  const undo: (() => void)[] = [];
  const replace = (owner: object, name: string, value: unknown): void => {
    const before = Object.getOwnPropertyDescriptor(owner, name);
    Object.defineProperty(owner, name, { value, configurable: true, writable: true });
    undo.push(() => {
      if (before === undefined) Reflect.deleteProperty(owner, name);
      else Object.defineProperty(owner, name, before);
    });
  };
  const { clock, random } = world;
  const nowMs = (): number => Math.floor(clock.nowMs);
  replace(globalThis, "Date", simulatedDate(nowMs));
  replace(Math, "random", random);
  replace(performance, "now", () => clock.nowMs);
  const timers = timersOf(clock);
  for (const [name, timer] of Object.entries(timers)) replace(globalThis, name, timer);
  replace(AbortSignal, "timeout", (delayMs: number) => {
    const controller = new AbortController();
    clock.at(clock.nowMs + delayMs, () => {
      controller.abort(new DOMException("The operation timed out.", "TimeoutError"));
    });
    return controller.signal;
  });
  replace(globalThis, "fetch", (input: string | URL | Request, init?: RequestInit) =>
    world.fetch(input instanceof Request ? input.url : String(input), init),
  );
  replace(globalThis, "console", silentConsole());
  replace(globalThis, "Convex", convexGlobal);
  replaceCrypto(replace, random);
  undo.push(setVariables(world.variables));
  return () => {
    for (const restore of undo.reverse()) restore();
  };
}

function setVariables(variables: World["variables"]): () => void {
  const before = Object.keys(variables).map((name) => [name, env[name]] as const);
  const set = (name: string, value: string | undefined): void => {
    if (value === undefined) Reflect.deleteProperty(env, name);
    else Reflect.set(env, name, value);
  };
  for (const [name, value] of Object.entries(variables)) set(name, value);
  return () => {
    for (const [name, value] of before) set(name, value);
  };
}

type Replace = (owner: object, name: string, value: unknown) => void;

function replaceCrypto(replace: Replace, random: Random): void {
  const fill = (bytes: Uint8Array): void => {
    for (let i = 0; i < bytes.length; i++) bytes[i] = Math.floor(random() * 256);
  };
  replace(crypto, "getRandomValues", <T extends ArrayBufferView>(view: T): T => {
    fill(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
    return view;
  });
  replace(crypto, "randomUUID", () => {
    const bytes = Buffer.alloc(UUID_BYTES);
    fill(bytes);
    return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  });
  // The real one answers from another thread, and no event of simulated time would wait for that.
  replace(crypto.subtle, "digest", async (algorithm: unknown, data: ArrayBuffer | Uint8Array) => {
    const name = typeof algorithm === "string" ? algorithm : "SHA-256";
    const hash = createHash(name.replace("-", "").toLowerCase());
    const digest = hash.update(new Uint8Array(data)).digest();
    return digest.buffer.slice(digest.byteOffset, digest.byteOffset + digest.byteLength);
  });
}

function simulatedDate(nowMs: () => number): DateConstructor {
  return new Proxy(Date, {
    construct: (target, args: unknown[], newTarget): Date =>
      Reflect.construct(target, args.length === 0 ? [nowMs()] : args, newTarget) as Date,
    get: (target, name, receiver): unknown =>
      name === "now" ? nowMs : Reflect.get(target, name, receiver),
  });
}

function timersOf(clock: Clock): Record<string, unknown> {
  const stopped = new Set<number>();
  let timers = 0;
  const stop = (timer: number | undefined): void => {
    if (timer !== undefined) stopped.add(timer);
  };
  return {
    setTimeout: (work: (...args: unknown[]) => void, delayMs = 0, ...args: unknown[]): number => {
      timers += 1;
      const timer = timers;
      clock.at(clock.nowMs + delayMs, () => {
        if (!stopped.delete(timer)) work(...args);
      });
      return timer;
    },
    clearTimeout: stop,
    setInterval: (): never => {
      throw new Error("No function of a benchmark may start an interval.");
    },
    clearInterval: stop,
  };
}

function silentConsole(): Record<string, () => void> {
  const silence = (): void => undefined;
  return Object.fromEntries(
    ["log", "info", "debug", "warn", "error", "trace", "time", "timeEnd", "group", "groupEnd"].map(
      (name) => [name, silence],
    ),
  );
}
