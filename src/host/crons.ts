import { setTimeout as delay } from "node:timers/promises";
import { canonicalName } from "./app";
import type { FunctionEntry } from "./app";
import { nextRunMs } from "./cronTime";
import type { Schedule } from "./cronTime";
import { WriteConflict } from "./database";
import { FunctionError, messageOf } from "./errors";
import { conflictDelayMs } from "./functions";
import type { Runtime } from "./functions";
import { callerOf } from "./scheduler";
import { CRONS, readRows } from "./systemTables";
import type { Row } from "./systemTables";

interface CronSpec {
  /** The function. */
  readonly name: string;
  readonly args: readonly unknown[];
  readonly schedule: Schedule;
}

const CONFLICT_BASE_MS = 100;
const CONFLICT_CAP_MS = 15_000;
/** Longest sleep in one go; also how soon a changed system clock is noticed. */
const SLEEP_MS_MAX = 60_000;

/**
 * Runs the schedule of `crons.ts`. The time of the next run is stored, so a restart neither repeats
 * nor forgets one; runs that were due while the host was down are skipped but for the latest.
 */
export class Crons {
  readonly #runtime: Runtime;
  readonly #print: (line: string) => void;
  #stop = new AbortController();
  #loops: Promise<void>[] = [];

  constructor(runtime: Runtime, print: (line: string) => void) {
    this.#runtime = runtime;
    this.#print = print;
  }

  /** Brings the stored schedule in line with the code, then keeps it running. */
  async start(): Promise<void> {
    this.#stop = new AbortController();
    const specs = Object.entries(
      JSON.parse(this.#runtime.app.cronsJson()) as Record<string, CronSpec>,
    );
    for (const [name, spec] of specs)
      if (!this.#runtime.app.functions.has(canonicalName(spec.name)))
        throw new Error(`The cron "${name}" runs ${spec.name}, which does not exist.`);
    await this.#reconcile(new Map(specs));
    this.#loops = specs.map(([name, spec]) => this.#loop(name, spec));
  }

  async stop(graceMs: number): Promise<void> {
    this.#stop.abort();
    await Promise.race([
      Promise.allSettled(this.#loops),
      delay(graceMs, undefined, { ref: false }),
    ]);
  }

  async #reconcile(specs: ReadonlyMap<string, CronSpec>): Promise<void> {
    await this.#runtime.retrying(() =>
      this.#runtime.transact(async (transaction) => {
        const nowMs = this.#runtime.hooks.nowMs();
        const stored = new Map<string, Row>();
        for await (const row of readRows(transaction, { index: `${CRONS}.by_name`, range: [] }))
          stored.set(String(row["name"]), row);
        for (const [name, row] of stored) if (!specs.has(name)) transaction.system.remove(row._id);
        for (const [name, { schedule }] of specs) {
          const row = stored.get(name);
          const text = JSON.stringify(schedule);
          const fresh = () => ({
            name,
            schedule: text,
            nextTime: nextRunMs(name, schedule, nowMs, null),
          });
          if (row === undefined) transaction.system.insert(CRONS, fresh());
          else if (row["schedule"] !== text) transaction.system.patch(row._id, fresh());
        }
        return { jobs: [] };
      }),
    );
  }

  /** One after the other, so a cron never runs twice at a time. */
  async #loop(name: string, spec: CronSpec): Promise<void> {
    const entry = this.#runtime.app.functions.get(canonicalName(spec.name));
    while (entry !== undefined && !this.#stopping()) {
      try {
        const row = await this.#read(name);
        if (row === null) return;
        const waitMs = Number(row["nextTime"]) - this.#runtime.hooks.nowMs();
        if (waitMs > 0) await this.#sleep(Math.min(waitMs, SLEEP_MS_MAX));
        else await this.#run(name, spec, entry, row);
      } catch (error) {
        if (this.#stopping()) return;
        this.#print(`Cron "${name}": ${messageOf(error)}`);
        await this.#sleep(CONFLICT_CAP_MS);
      }
    }
  }

  async #run(name: string, spec: CronSpec, entry: FunctionEntry, row: Row): Promise<void> {
    const dueMs = Number(row["nextTime"]);
    const next = { nextTime: nextRunMs(name, spec.schedule, this.#runtime.hooks.nowMs(), dueMs) };
    const args = spec.args[0] ?? {};
    if (entry.kind !== "mutation") {
      // Noted before it starts: after a crash it is not started again.
      await this.#moveOn(row, next);
      await this.#runtime.action(entry.name, args, callerOf(null)).catch((error: unknown) => {
        this.#print(`Cron "${name}": ${messageOf(error)}`);
      });
      return;
    }
    for (let attempt = 1; !this.#stopping(); attempt++) {
      try {
        await this.#runtime.transact(async (transaction) => {
          const { jobs } = await this.#runtime.mutateIn(transaction, entry, args, callerOf(null));
          transaction.system.patch(row._id, next);
          return { jobs };
        });
        return;
      } catch (error) {
        if (error instanceof FunctionError) {
          this.#print(`Cron "${name}": ${error.message}`);
          await this.#moveOn(row, next);
          return;
        }
        if (!(error instanceof WriteConflict)) throw error;
        await this.#sleep(
          conflictDelayMs(this.#runtime.hooks, attempt, CONFLICT_BASE_MS, CONFLICT_CAP_MS),
        );
      }
    }
  }

  async #moveOn(row: Row, next: { readonly nextTime: number }): Promise<void> {
    await this.#runtime.retrying(() =>
      this.#runtime.transact((transaction) => {
        transaction.system.patch(row._id, next);
        return { jobs: [] };
      }),
    );
  }

  async #read(name: string): Promise<Row | null> {
    const transaction = this.#runtime.database.begin("query");
    try {
      const range = [{ type: "Eq", fieldPath: "name", value: name }];
      const read = readRows(transaction, { index: `${CRONS}.by_name`, range, limit: 1 });
      const first = await read.next();
      return first.done === true ? null : first.value;
    } finally {
      transaction.end();
    }
  }

  #stopping(): boolean {
    return this.#stop.signal.aborted;
  }

  async #sleep(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#stop.signal }).catch(() => undefined);
  }
}
