import path from "node:path";
import { convexTest } from "convex-test";
import { makeFunctionReference } from "convex/server";
import { beforeAll, expect, test } from "vitest";
import { afterPrefix, encodeValue } from "../../src/host/keys";
import { Backend, type BackendOptions } from "./engine/backend";
import type { Definition } from "./engine/app";
import { define } from "./engine/load";
import { seededRandom } from "./engine/random";
import { StoredDocument } from "./engine/tables";
import { Origin, Transaction, type Write } from "./engine/transaction";
import { loadPeers } from "./peers";
import * as bare from "./peers/bare";
import schema from "./peers/schema";

const AT_ONCE: BackendOptions = { transactionMs: 0, jitter: 0, schedulerMs: 0, seed: 1 };
const bareApp = define({ bare }, schema);

test("counts what the platform's own counter counts", async () => {
  const mock = convexTest(schema, {
    "./_generated/api.js": () => Promise.resolve({}),
    "./bare.js": () => Promise.resolve(bare),
  });
  const backend = new Backend(bareApp, AT_ONCE);
  const counted = await backend.within(async () => {
    for (const key of ["a", "b", "c"]) await backend.mutation("bare:seed", { key });
    return backend.mutation("bare:countedByPlatform", {});
  });
  for (const key of ["a", "b", "c"])
    await mock.mutation(makeFunctionReference<"mutation">("bare:seed"), { key });
  const expected: unknown = await mock.mutation(
    makeFunctionReference<"mutation">("bare:countedByPlatform"),
    {},
  );
  expect(usedOf(counted)).toEqual(usedOf(expected));
  expect(backend.calls.at(-1)?.usage.queries).toBe(3);
});

function usedOf(metrics: unknown): Record<string, number> {
  return Object.fromEntries(
    Object.entries(metrics as Record<string, { used: number }>).map(([name, { used }]) => [
      name,
      used,
    ]),
  );
}

test("bills index keys, and the document once more for a patch", async () => {
  const backend = new Backend(bareApp, AT_ONCE);
  await backend.within(async () => {
    await backend.mutation("bare:seed", { key: "a" });
    await backend.mutation("bare:readPatch", { key: "a" });
  });
  const usage = backend.calls.at(-1)?.usage;
  expect([usage?.documentsRead, usage?.documentsWritten]).toEqual([2, 1]);
  // A document of 81 bytes; its key under by_key: 20 + 9 + 34 + 3 written, 9 + 34 + 3 read.
  expect([usage?.bytesRead, usage?.bytesWritten]).toEqual([208, 147]);
});

test("depends on a range as far as it was walked, and on nothing read from a stale snapshot", () => {
  const backend = new Backend(bareApp, AT_ONCE);
  backend.fill("bare", [
    { key: "b", n: 0 },
    { key: "d", n: 0 },
  ]);
  const table = backend.app.tables.named("bare");
  const origin = new Origin(seededRandom(1));
  const walk = (steps: number, stale: boolean): Transaction => {
    const transaction = new Transaction(origin, 0);
    const interval = { lower: encodeValue("b"), upper: afterPrefix("") };
    const range = { table, index: table.index("by_key"), interval, descending: false };
    const scan = transaction.scan(range, stale);
    for (let step = 0; step < steps; step++) scan.next();
    return transaction;
  };
  const added = (key: string): Write => {
    const id = origin.newId(table);
    const value = { key, n: 0, _id: id, _creationTime: 1 };
    return { table, id, before: null, after: new StoredDocument(table, id, value) };
  };
  const [first, exhausted, stale] = [walk(1, false), walk(3, false), walk(3, true)];
  expect(first.conflict([added("a"), added("c"), added("z")])).toBeNull();
  expect(exhausted.conflict([added("a")])).toBeNull();
  expect(exhausted.conflict([added("c")])).toBe("/bare.by_key");
  expect(exhausted.conflict([added("z")])).toBe("/bare.by_key");
  expect(stale.conflict([added("c")])).toBeNull();
});

test("finds the conflict rate of independent arrivals, and loses no update", async () => {
  const perSecond = 4;
  const transactionMs = 15;
  const backend = new Backend(bareApp, { ...AT_ONCE, transactionMs, seed: 7 });
  let terminal = 0;
  await backend.within(async () => {
    await backend.mutation("bare:seed", { key: "a" });
    const arrivals: Promise<unknown>[] = [];
    for (let atMs = 0; atMs < 400_000;) {
      atMs += (-Math.log(1 - backend.random()) / perSecond) * 1_000;
      const due = backend.clock.sleep(atMs);
      arrivals.push(due.then(() => backend.mutation("bare:readPatch", { key: "a" })));
    }
    terminal = (await Promise.allSettled(arrivals)).filter(
      ({ status }) => status === "rejected",
    ).length;
  });
  const stats = backend.statsOf("bare:readPatch");
  const expected = 1 - Math.exp((-perSecond * transactionMs) / 1_000);
  expect(Math.abs(stats.conflicts / stats.attempts - expected)).toBeLessThan(0.015);
  expect(backend.documents("bare")[0]?.["n"]).toBe(stats.operations - terminal);
});

test("sees the commit of the moment in which a transaction began before it", async () => {
  const transactionMs = 15;
  const backend = new Backend(bareApp, { ...AT_ONCE, transactionMs });
  await backend.within(async () => {
    await backend.mutation("bare:seed", { key: "a" });
    // This one begins first in the very moment that the other commits in.
    const second = backend.clock
      .sleep(transactionMs)
      .then(() => backend.mutation("bare:readPatch", { key: "a" }));
    await Promise.all([backend.mutation("bare:readPatch", { key: "a" }), second]);
  });
  expect(backend.documents("bare")[0]?.["n"]).toBe(2);
  expect(backend.statsOf("bare:readPatch")).toMatchObject({ operations: 2, conflicts: 1 });
});

let peers: Definition;
beforeAll(async () => {
  peers = await loadPeers(path.resolve(import.meta.dirname, "../.."));
});

test("runs the components as they are measured elsewhere", async () => {
  const backend = new Backend(peers, AT_ONCE);
  await backend.within(async () => {
    for (let i = 0; i < 2; i++) await backend.mutation("limiter:limit", { name: "tb", key: "u1" });
  });
  const { usage } = backend.calls.at(-1) ?? {};
  expect([usage?.documentsRead, usage?.documentsWritten]).toEqual([2, 1]);
  expect(usage?.bytes).toBe(506);
});
