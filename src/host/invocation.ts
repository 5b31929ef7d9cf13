import { AsyncLocalStorage } from "node:async_hooks";
import type { Transaction } from "./database";
import { PlatformError } from "./errors";
import { SeededRandom } from "./random";

type FunctionKind = "query" | "mutation" | "action" | "httpAction";

/** Claims as `getUserIdentity` returns them. */
export type Claims = Readonly<Record<string, unknown>> & {
  readonly subject: string;
  readonly issuer: string;
  readonly tokenIdentifier: string;
};

export type Identity =
  | { readonly kind: "none" }
  | { readonly kind: "user"; readonly claims: Claims }
  /** The token was bad: an HTTP action still runs, and asking for the identity throws this. */
  | { readonly kind: "invalid"; readonly error: PlatformError }
  /** Calls anything; `actingAs` is the user that the functions see. */
  | { readonly kind: "admin"; readonly actingAs: Claims | null };

export interface RequestInfo {
  readonly requestId: string;
  readonly ip: string | null;
  readonly userAgent: string | null;
  readonly scheduledFunctionId: string | null;
}

/** On whose behalf a function runs; nested calls inherit it. */
export interface Caller {
  readonly identity: Identity;
  readonly request: RequestInfo;
}

/** A job written by this run, to be handed to the scheduler once it is committed. */
export interface NewJob {
  readonly id: string;
  readonly dueMs: number;
}

export interface InvocationOptions {
  readonly kind: FunctionKind;
  /** `path/module:export`; for an HTTP action its route. */
  readonly name: string;
  readonly visibility: "public" | "internal";
  readonly caller: Caller;
  readonly transaction: Transaction | null;
  /** Nested calls above this one. */
  readonly depth: number;
  readonly nowMs: number;
  /** Uniform in [0, 1): seeds what a query or mutation draws. */
  readonly uniform: () => number;
  /** True when the scheduled job that this belongs to was canceled while it ran. */
  readonly jobCanceled?: () => Promise<boolean>;
}

const LOG_LINES_MAX = 256;
const LOG_LINE_CHARS_MAX = 32_768;

/** One run of one function: what its system calls, clock, randomness and timers belong to. */
export class Invocation {
  readonly options: InvocationOptions;
  readonly logLines: string[] = [];
  readonly scheduled: NewJob[] = [];
  readonly #timers = new Map<number, NodeJS.Timeout>();
  /** Rejects when something that nobody awaits has failed: a dangling promise, a timer. */
  readonly failure: Promise<never>;
  ended = false;
  /** Nested mutations run one at a time, and nothing else touches the database meanwhile. */
  exclusive: Promise<void> = Promise.resolve();
  #fail: (error: unknown) => void = () => undefined;
  #random: SeededRandom | null = null;
  #over: AbortController | null = null;
  #timerIds = 0;

  constructor(options: InvocationOptions) {
    this.options = options;
    this.failure = new Promise<never>((_, reject) => {
      this.#fail = reject;
    });
    this.failure.catch(() => undefined);
  }

  /** Queries and mutations must give the same result when they are run again. */
  get deterministic(): boolean {
    return this.options.kind === "query" || this.options.kind === "mutation";
  }

  get random(): SeededRandom {
    this.#random ??= new SeededRandom(this.options.uniform);
    return this.#random;
  }

  /** Fires when the run ends; made at the first use, as most runs fetch nothing. */
  get over(): AbortSignal {
    this.#over ??= new AbortController();
    return this.#over.signal;
  }

  fail(error: unknown): void {
    if (!this.ended) this.#fail(error);
  }

  log(level: string, text: string): void {
    if (this.logLines.length >= LOG_LINES_MAX) return;
    this.logLines.push(`[${level}] ${text.slice(0, LOG_LINE_CHARS_MAX)}`);
  }

  setTimer(run: () => void, delayMs: number, repeat: boolean): number {
    const id = ++this.#timerIds;
    const guarded = () => {
      if (!repeat) this.#timers.delete(id);
      try {
        run();
      } catch (error) {
        this.fail(error);
      }
    };
    this.#timers.set(id, repeat ? setInterval(guarded, delayMs) : setTimeout(guarded, delayMs));
    return id;
  }

  clearTimer(id: number): void {
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
  }

  /** What still runs is cut off, and its later system calls are refused, as on the platform. */
  end(): void {
    if (this.ended) return;
    this.ended = true;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    this.#over?.abort(new Error("The function has ended."));
  }
}

const running = new AsyncLocalStorage<Invocation>();

/** The run that the calling code belongs to, if any. */
export function currentInvocation(): Invocation | undefined {
  return running.getStore();
}

/** Runs `body` as part of a run. */
export function within<T>(invocation: Invocation, body: () => T): T {
  return running.run(invocation, body);
}
