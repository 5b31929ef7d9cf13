/** The app's guards on the embedded host, where transactions overlap and conflict. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import type { Value } from "convex/values";
import type { Permit } from "../../../convex/model/permit";
import { Environment } from "../../../src/host/env";
import { type Host, startHost } from "../../../src/host/index";
import type { ProviderId } from "../../../src/providers/table";

export type { Permit };
export type Outcome = "success" | "failure" | "neutral" | "infrastructure";
export type Admitted =
  | { readonly ok: true; readonly permit: Permit }
  | { readonly ok: false; readonly code: string; readonly retryAfterMs: number };

export interface Status {
  readonly provider: string;
  readonly state: string;
  readonly reason: string | null;
  readonly failureCount: number;
  readonly generation: number;
  readonly callCount: number;
  readonly retryCount: number;
  readonly cooldownUntil: number | null;
}

export interface Guarded {
  readonly dataDir: string;
  run<T>(name: string, args?: Readonly<Record<string, unknown>>): Promise<T>;
  /** Sets knobs as an operator does, while everything runs. */
  setKnobs(knobs: Readonly<Record<string, string | null>>): Promise<void>;
  /** Moves the deployment's clock ahead; otherwise it goes on by itself. */
  skip(ms: number): void;
  admit(provider: ProviderId): Promise<Admitted>;
  settle(permit: Permit, outcome: Outcome, attempts?: number): Promise<boolean>;
  status(provider: ProviderId): Promise<Status>;
  inFlight(provider: ProviderId): Promise<number>;
  /** Ends the host; its directory stays, so that another one can be started on it. */
  stop(): Promise<void>;
  close(): Promise<void>;
}

interface Options {
  readonly dataDir?: string;
  /** Longest wait before each database operation, in milliseconds; the mean is half of it. */
  readonly latencyMs?: number;
  /** Batches of commits that what is read stale lies back at most. */
  readonly staleLag?: number;
  readonly knobs?: Readonly<Record<string, string>>;
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

export async function startGuarded(options: Options = {}): Promise<Guarded> {
  const { latencyMs = 3, staleLag = 0, knobs = {} } = options;
  mkdirSync(".output/tmp", { recursive: true });
  const dataDir = options.dataDir ?? mkdtempSync(path.resolve(".output/tmp/guards-"));
  const none = { names: [], processEnvironment: {}, projectDir: null };
  const environment = await Environment.load({ ...none, dataDir });
  let aheadMs = 0;
  const host = await startHost({
    functionsDir: "convex",
    dataDir,
    environment,
    env: knobs,
    injection: {
      nowMs: () => Date.now() + aheadMs,
      // All that come at once overlap, as on the platform's larger classes.
      writersAtOnce: 256,
      databaseLatency: () => (latencyMs === 0 ? undefined : sleep(Math.random() * latencyMs)),
      staleLagBatches: () => Math.floor(Math.random() * (staleLag + 1)),
    },
  });
  return {
    ...callsOf(host),
    dataDir,
    setKnobs: async (changes) => {
      const list = Object.entries(changes).map(([name, value]) => ({ name, value }));
      await environment.update(list);
    },
    skip: (ms) => {
      aheadMs += ms;
    },
    stop: () => host.close(),
    close: async () => {
      await host.close();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

/** What an action does with an admission that is lost to contention: it tries once more. */
const ADMISSION_RETRIES = 1;

/**
 * Tries again what the platform gave up on, as actions do with admissions, and the scheduler, which
 * is handed what they cannot settle, for ever with settlements.
 */
export async function lostAtMost<T>(times: number, work: () => Promise<T>): Promise<T> {
  for (let lost = 0; ; lost++) {
    try {
      return await work();
    } catch (error) {
      if (lost >= times || !isLost(error)) throw error;
      await sleep(Math.random() * 50);
    }
  }
}

/** What its caller is told then: nothing was asked, and nobody is to blame but us. */
function lost(error: unknown): Admitted {
  if (!isLost(error)) throw error;
  return { ok: false, code: LOST, retryAfterMs: 1_000 };
}

/** In place of a code: an admission that contention took, which is neither granted nor refused. */
export const LOST = "lost to contention";

const isLost = (error: unknown) => String(error).includes("changed while this mutation");

function callsOf(host: Host) {
  const run = async <T>(name: string, args: Readonly<Record<string, unknown>> = {}): Promise<T> =>
    (await host.run(name, args as Record<string, Value>)) as T;
  return {
    run,
    admit: async (provider: ProviderId) => {
      const admit = () => run<Admitted>("outbound:admit", { provider });
      return await lostAtMost(ADMISSION_RETRIES, admit).catch(lost);
    },
    settle: async (permit: Permit, outcome: Outcome, attempts = 1) => {
      const args = { permit, outcome, attempts, latencyMs: 5 };
      const settle = () => run<{ released: boolean }>("outbound:settle", args);
      return (await lostAtMost(Infinity, settle)).released;
    },
    status: async (provider: ProviderId) => {
      const all = await run<Status[]>("circuitBreaker:listStatuses");
      const found = all.find((one) => one.provider === provider);
      if (found === undefined) throw new Error(`no status of ${provider}`);
      return found;
    },
    inFlight: async (provider: ProviderId) =>
      (await run<unknown[]>("bulkhead:listInFlightByProvider", { provider })).length,
  };
}

/** As many at once; what is thrown is a failure that its caller would see. */
export const together = <T>(count: number, work: (i: number) => Promise<T>): Promise<T[]> =>
  Promise.all(Array.from({ length: count }, (_, i) => work(i)));

export const permitsOf = (verdicts: readonly Admitted[]): Permit[] =>
  verdicts.flatMap((verdict) => (verdict.ok ? [verdict.permit] : []));

/** A permit, from a provider that must have one to give. */
export async function permitOf(guarded: Guarded, provider: ProviderId): Promise<Permit> {
  const verdict = await guarded.admit(provider);
  if (!verdict.ok) throw new Error(JSON.stringify(verdict));
  return verdict.permit;
}
