import { convexTest } from "convex-test";
import { defineSchema, defineTable, makeFunctionReference } from "convex/server";
import { convexToJson, v, type Value } from "convex/values";
import fc from "fast-check";
import { expect } from "vitest";
import type { Database } from "../../../src/host/database";
import { EngineFunctions, withDatabase } from "./harness";
import {
  firstStepsArbitrary,
  mutationArbitrary,
  ProgramRunner,
  readArbitrary,
  type Read,
  type Step,
} from "./programs";

const schema = defineSchema({
  items: defineTable({
    a: v.optional(v.any()),
    b: v.optional(v.any()),
    n: v.number(),
  })
    .index("by_a", ["a"])
    .index("by_a_b", ["a", "b"]),
});

/** The export of a schema is not in its public type. */
function schemaJson(definition: unknown): string {
  return (definition as { export(): string }).export();
}

interface Side {
  readonly runner: ProgramRunner;
  mutate(steps: readonly Step[], fails: boolean): Promise<Value>;
  query(name: string, args: Record<string, Value>): Promise<Value>;
}

function mockSide(): Side {
  const runner = new ProgramRunner();
  const byFile: Record<string, unknown> = {};
  for (const [name, registered] of Object.entries(runner.functions)) {
    byFile[name.split(":")[1] ?? ""] = registered;
  }
  const mock = convexTest(schema, {
    "./_generated/api.js": () => Promise.resolve({}),
    "./programs.js": () => Promise.resolve(byFile),
  });
  const mutate = makeFunctionReference<"mutation", Record<string, Value>, Value>("programs:mutate");
  return {
    runner,
    mutate: (steps, fails) =>
      mock.mutation(mutate, { key: runner.register(steps), fails }).catch(() => "failed"),
    query: (name, args) =>
      mock.query(makeFunctionReference<"query", Record<string, Value>, Value>(name), args),
  };
}

/** Programs begin on an empty table of a database that they share. */
async function engineSide(database: Database): Promise<Side> {
  const runner = new ProgramRunner();
  const functions = new EngineFunctions(database, runner.functions);
  await functions.mutation("programs:wipe", {});
  return {
    runner,
    mutate: (steps, fails) =>
      functions.mutation("programs:mutate", { key: runner.register(steps), fails }).then(
        ({ value }) => value,
        () => "failed",
      ),
    query: (name, args) => functions.query(name, args),
  };
}

const json = (value: Value) => JSON.stringify(convexToJson(value));

/** All pages of a read, each with the cursor that ended it. */
async function pages(side: Side, read: Read, numItems: number): Promise<Value[]> {
  const out: Value[] = [];
  const key = side.runner.register([{ kind: "read", read }]);
  let cursor: string | null = null;
  for (;;) {
    const result = (await side.query("programs:page", {
      key,
      numItems,
      cursor,
      endCursor: null,
    })) as { page: Value[]; isDone: boolean; continueCursor: string };
    // The mock sees the end with the last row, the platform one (empty) page later.
    if (result.page.length > 0) out.push(result.page);
    const again = (await side.query("programs:page", {
      key,
      numItems,
      cursor,
      endCursor: result.continueCursor,
    })) as { page: Value[] };
    expect(json(again.page)).toBe(json(result.page));
    if (result.isDone) return out;
    cursor = result.continueCursor;
  }
}

/** Runs random programs on the official mock and on the engine: they must agree on everything. */
export async function agreeWithMock(numRuns: number): Promise<void> {
  await withDatabase(async (database) => {
    await database.applySchema(schemaJson(schema));
    await fc.assert(
      fc.asyncProperty(
        firstStepsArbitrary,
        fc.array(mutationArbitrary, { minLength: 1, maxLength: 4, size: "max" }),
        fc.array(readArbitrary, { maxLength: 4, size: "max" }),
        fc.integer({ min: 1, max: 4 }),
        async (first, mutations, reads, numItems) => {
          const mock = mockSide();
          const engine = await engineSide(database);
          for (const { steps, fails } of [{ steps: first, fails: false }, ...mutations]) {
            const expected = await mock.mutate(steps, fails);
            expect(json(await engine.mutate(steps, fails))).toBe(json(expected));
          }
          const state = await mock.query("programs:state", {});
          expect(json(await engine.query("programs:state", {}))).toBe(json(state));
          for (const read of reads) {
            const expected = await pages(mock, read, numItems);
            expect(json(await pages(engine, read, numItems))).toBe(json(expected));
          }
        },
      ),
      { numRuns },
    );
  });
}
