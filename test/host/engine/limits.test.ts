import { getConvexSize, jsonToConvex } from "convex/values";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Transaction } from "../../../src/host/database";
import { withDatabase } from "./harness";
import { anyValue } from "./programs";
import * as seam from "./seam";
import { convexToJson } from "convex/values";

async function withTransaction(body: (transaction: Transaction) => Promise<void>): Promise<void> {
  await withDatabase(async (database) => {
    const transaction = database.begin("mutation");
    await body(transaction);
    transaction.end();
  });
}

function nested(levels: number): unknown {
  return levels === 0 ? 1 : [nested(levels - 1)];
}

test.each<[string, seam.Fields, string]>([
  ["array", { a: Array(8_193).fill(0) }, "Array length is too long (8193 > maximum length 8192)"],
  [
    "object",
    { a: Object.fromEntries(Array.from({ length: 1_025 }, (_, i) => [`f${i}`, 0])) },
    "Object has too many fields (1025 > maximum number 1024)",
  ],
  [
    "nesting",
    { a: nested(16) },
    "Document is too nested (nested 17 levels deep > maximum nesting 16)",
  ],
  ["size", { a: "x".repeat(1 << 20) }, "Value is too large (1 MiB > maximum size 1 MiB)"],
  ["field name with a dollar", { a: { $x: 1 } }, "Field name $x starts with a '$'"],
  ["field name beyond ASCII", { a: { é: 1 } }, "Field name é has invalid character 'é'"],
  ["field name too long", { ["x".repeat(1_025)]: 1 }, "exceeds maximum field name length 1024."],
])("a document over the limit is refused: %s", async (_, value, words) => {
  await withTransaction(async (transaction) => {
    await expect(seam.insert(transaction, "items", value)).rejects.toThrow(words);
  });
});

test("a document at every limit is taken", async () => {
  await withTransaction(async (transaction) => {
    await seam.insert(transaction, "items", { a: Array(8_192).fill(0) });
    await seam.insert(transaction, "items", { a: nested(15) });
    const value = { a: "x".repeat((1 << 20) - 67) };
    const id = await seam.insert(transaction, "items", value);
    const stored = (await seam.get(transaction, id)) ?? {};
    expect(getConvexSize(jsonToConvex(stored as never))).toBe(1 << 20);
  });
});

test("documents are counted with the platform's size", async () => {
  await withDatabase(async (database) => {
    await fc.assert(
      fc.asyncProperty(anyValue, async (value) => {
        const writer = database.begin("mutation");
        const id = await seam.insert(writer, "items", { a: convexToJson(value), é: undefined });
        const { bytesWritten } = await seam.metrics(writer);
        const stored = jsonToConvex((await seam.get(writer, id)) as never);
        expect(bytesWritten?.used).toBe(getConvexSize(stored));
        expect((await seam.metrics(writer))["bytesRead"]?.used).toBe(getConvexSize(stored));
        writer.end();
      }),
      { numRuns: 100 },
    );
  });
});

test("metrics tell what a transaction and all under it used", async () => {
  await withTransaction(async (transaction) => {
    const id = await seam.insert(transaction, "items", { a: 1 });
    await seam.get(transaction, id);
    const kept = transaction.child();
    await seam.patch(kept, id, { a: 2 });
    kept.system.countScheduled(100);
    transaction.commitChild(kept);
    const dropped = transaction.child();
    await seam.insert(dropped, "items", { a: 3 });
    await seam.collect(dropped, seam.tableQuery("items"));
    dropped.system.countScheduled(100);
    expect(await seam.metrics(dropped)).toMatchObject({ documentsWritten: { used: 3 } });
    expect(await seam.metrics(transaction)).toMatchObject({
      // A get, the read of the patch, and the two documents that the dropped one saw.
      documentsRead: { used: 4, remaining: 32_000 - 4 },
      databaseQueries: { used: 3, remaining: 4_096 - 3 },
      documentsWritten: { used: 2, remaining: 16_000 - 2 },
      functionsScheduled: { used: 1, remaining: 999 },
      scheduledFunctionArgsBytes: { used: 100, remaining: 16 * 1_024 * 1_024 - 100 },
    });
  });
});

test("rows that a filter throws away count as read", async () => {
  await withTransaction(async (transaction) => {
    for (let i = 0; i < 5; i++) await seam.insert(transaction, "items", {});
    await seam.collect(transaction, seam.tableQuery("items", [{ filter: { $literal: false } }]));
    expect((await seam.metrics(transaction))["documentsRead"]?.used).toBe(5);
  });
});

test("system tables have no part in the budget", async () => {
  await withTransaction(async (transaction) => {
    const id = transaction.system.insert("_scheduled_functions", {});
    transaction.system.get(id);
    expect(await seam.metrics(transaction)).toMatchObject({
      documentsRead: { used: 0 },
      documentsWritten: { used: 0 },
    });
  });
});

async function repeat(times: number, work: () => Promise<unknown>): Promise<void> {
  for (let i = 0; i < times; i++) await work();
}

test("the budget ends where the platform's does", async () => {
  await withTransaction(async (transaction) => {
    const id = await seam.insert(transaction, "items", {});
    await repeat(4_096, () => seam.get(transaction, id));
    await expect(seam.get(transaction, id)).rejects.toThrow(
      "Too many reads in a single function execution (limit: 4096).",
    );
  });
  await withTransaction(async (transaction) => {
    await repeat(16_000, () => seam.insert(transaction, "items", {}));
    await expect(seam.insert(transaction, "items", {})).rejects.toThrow(
      "Too many writes in a single function execution (limit: 16000)",
    );
    await seam.collect(transaction, seam.tableQuery("items"));
    await seam.collect(transaction, seam.tableQuery("items", [{ limit: 15_999 }]));
    await expect(seam.collect(transaction, seam.tableQuery("items"))).rejects.toThrow(
      "Too many documents read in a single function execution (limit: 32000). Consider using smaller limits in your queries, paginating your queries, or using indexed queries with a selective index range expressions.",
    );
  });
  await withTransaction(async (transaction) => {
    const large = { filling: "x".repeat(1_000_000) };
    await repeat(16, () => seam.insert(transaction, "items", large));
    await expect(seam.insert(transaction, "items", large)).rejects.toThrow(
      "Too many bytes written in a single function execution (limit: 16 MiB)",
    );
    await expect(
      repeat(2, () => seam.collect(transaction, seam.tableQuery("items"))),
    ).rejects.toThrow(
      "Too many bytes read in a single function execution (limit: 16777216 bytes).",
    );
  });
  await withTransaction(async ({ system }) => {
    for (let i = 0; i < 1_000; i++) system.countScheduled(1);
    expect(() => {
      system.countScheduled(1);
    }).toThrow("Too many functions scheduled by this mutation (limit: 1000)");
  });
  await withTransaction(async ({ system }) => {
    expect(() => {
      system.countScheduled(16 * 1_024 * 1_024 + 1);
    }).toThrow(
      "Too large total size of the arguments of scheduled functions from this mutation (limit: 16777216 bytes)",
    );
  });
});
