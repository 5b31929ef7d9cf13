import { setImmediate as turn } from "node:timers/promises";
import type { Value } from "convex/values";
import fc from "fast-check";
import { expect } from "vitest";
import { seededRandom } from "../../../scripts/bench/engine/random";
import type { Database } from "../../../src/host/database";
import { EngineFunctions, untilCommitted, withDatabase } from "./harness";
import { functions, operationArbitrary, registersSchema, type Operation } from "./histories";

interface Committed {
  readonly ts: number;
  /** Breaks ties: what only read shares the timestamp of the commit it saw. */
  readonly order: number;
  readonly operations: readonly Operation[];
  readonly value: Value;
}

interface History {
  readonly committed: readonly Committed[];
  readonly final: Value;
  readonly conflicts: number;
}

let random: () => number = () => 0;

/** Waits some turns before each operation, so that transactions interleave. */
async function randomLatency(): Promise<void> {
  for (let turns = Math.floor(random() * 4); turns > 0; turns--) await turn();
}

/** Runs each client's transactions one after the other, and all clients at once. */
async function runConcurrently(
  runner: EngineFunctions,
  clients: readonly (readonly Operation[])[][],
): Promise<History> {
  await runner.mutation("wipe", {});
  const committed: Committed[] = [];
  let conflicts = 0;
  await Promise.all(
    clients.map(async (transactions) => {
      for (const operations of transactions) {
        const [result, failed] = await untilCommitted(() =>
          runner.mutation("run", { operations: [...operations] }),
        );
        conflicts += failed;
        committed.push({ ...result, operations, order: committed.length });
      }
    }),
  );
  const { value: final } = await runner.mutation("state", {});
  return { committed, final, conflicts };
}

/** The same transactions one at a time; their results, then the state they leave. */
async function replay(runner: EngineFunctions, committed: readonly Committed[]): Promise<Value[]> {
  await runner.mutation("wipe", {});
  const values: Value[] = [];
  for (const { operations } of committed) {
    values.push((await runner.mutation("run", { operations: [...operations] })).value);
  }
  values.push((await runner.mutation("state", {})).value);
  return values;
}

const client = fc.array(fc.array(operationArbitrary, { minLength: 1, maxLength: 3 }), {
  minLength: 2,
  maxLength: 6,
  size: "max",
});

/**
 * Runs random transactions concurrently and again one at a time in the order of their commits: both
 * must give the same results and leave the same state. A history that does not is printed with its
 * seed.
 */
export async function equalsCommitOrder(numRuns: number): Promise<void> {
  let conflicts = 0;
  const overlapping = async (database: Database) => {
    await database.applySchema(registersSchema);
    const concurrent = new EngineFunctions(database, functions);
    await withDatabase(async (other) => {
      await other.applySchema(registersSchema);
      const serial = new EngineFunctions(other, functions);
      await fc.assert(
        fc.asyncProperty(
          fc.array(client, { minLength: 3, maxLength: 6, size: "max" }),
          fc.nat(),
          async (clients, seed) => {
            random = seededRandom(seed);
            const history = await runConcurrently(concurrent, clients);
            conflicts += history.conflicts;
            const inOrder = [...history.committed].sort((a, b) => a.ts - b.ts || a.order - b.order);
            const expected = await replay(serial, inOrder);
            expect([...inOrder.map(({ value }) => value), history.final]).toEqual(expected);
          },
        ),
        { numRuns },
      );
    });
  };
  await withDatabase(overlapping, { databaseLatency: randomLatency });
  // Without conflicts the histories would not have overlapped, and the test would show nothing.
  expect(conflicts).toBeGreaterThan(numRuns);
}
