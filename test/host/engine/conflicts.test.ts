import { expect, test } from "vitest";
import { WriteConflict, type Database, type Transaction } from "../../../src/host/database";
import { withDatabase } from "./harness";
import * as seam from "./seam";

const SCHEMA = seam.schemaOf({ items: { indexes: { by_a: ["a"] } }, others: {} });
const all = seam.indexQuery("items.by_a");
const atA = (value: unknown) => seam.indexQuery("items.by_a", [["Eq", "a", value]]);

async function commit(
  database: Database,
  body: (transaction: Transaction) => Promise<unknown>,
): Promise<void> {
  const transaction = database.begin("mutation");
  await body(transaction);
  await database.commit(transaction);
  transaction.end();
}

interface Case {
  readonly name: string;
  /** What one transaction does, while `change` commits; ids are those of a = 1 to 5. */
  readonly reads: (transaction: Transaction, ids: readonly string[]) => Promise<unknown>;
  readonly change: (transaction: Transaction, ids: readonly string[]) => Promise<unknown>;
  readonly conflicts: boolean;
}

const insertAt = (a: number) => (transaction: Transaction) =>
  seam.insert(transaction, "items", { a });
const patchAt =
  (place: number, fields: seam.Fields) => (transaction: Transaction, ids: readonly string[]) =>
    seam.patch(transaction, ids[place] ?? "", fields);
const take =
  (rows: number, order: "asc" | "desc" = "asc") =>
  (transaction: Transaction) =>
    seam.collect(
      transaction,
      seam.indexQuery("items.by_a", [], { order, operators: [{ limit: rows }] }),
    );

const cases: Case[] = [
  {
    name: "an empty range and an insert into it",
    reads: (transaction) => seam.collect(transaction, atA(9)),
    change: insertAt(9),
    conflicts: true,
  },
  {
    name: "an empty range and an insert beside it",
    reads: (transaction) => seam.collect(transaction, atA(9)),
    change: insertAt(8),
    conflicts: false,
  },
  {
    name: "a whole table and any write to it",
    reads: (transaction) => seam.collect(transaction, seam.tableQuery("items")),
    change: patchAt(3, { b: 1 }),
    conflicts: true,
  },
  {
    name: "a whole table and a write to another",
    reads: (transaction) => seam.collect(transaction, seam.tableQuery("items")),
    change: (transaction) => seam.insert(transaction, "others", {}),
    conflicts: false,
  },
  {
    name: "take(2) and a change of the second",
    reads: take(2),
    change: patchAt(1, { b: 1 }),
    conflicts: true,
  },
  {
    name: "take(2) and a change of the third",
    reads: take(2),
    change: patchAt(2, { b: 1 }),
    conflicts: false,
  },
  {
    name: "take(2) and an insert before the second",
    reads: take(2),
    change: insertAt(1.5),
    conflicts: true,
  },
  {
    name: "take(2) and an insert behind it",
    reads: take(2),
    change: insertAt(2.5),
    conflicts: false,
  },
  {
    name: "take(6) of five and an insert behind all",
    reads: take(6),
    change: insertAt(9),
    conflicts: true,
  },
  { name: "take(0) and anything", reads: take(0), change: insertAt(0), conflicts: false },
  {
    name: "the last two and a change of the fourth",
    reads: take(2, "desc"),
    change: patchAt(3, { b: 1 }),
    conflicts: true,
  },
  {
    name: "the last two and a change of the third",
    reads: take(2, "desc"),
    change: patchAt(2, { b: 1 }),
    conflicts: false,
  },
  {
    name: "a range and a document that leaves it",
    reads: (transaction) => seam.collect(transaction, atA(2)),
    change: patchAt(1, { a: 70 }),
    conflicts: true,
  },
  {
    name: "a range and a document that enters it",
    reads: (transaction) => seam.collect(transaction, atA(70)),
    change: patchAt(1, { a: 70 }),
    conflicts: true,
  },
  {
    name: "a range and a document in it that changes elsewhere",
    reads: (transaction) => seam.collect(transaction, atA(2)),
    change: patchAt(1, { b: 1 }),
    conflicts: true,
  },
  {
    name: "a get and a delete",
    reads: (transaction, ids) => seam.get(transaction, ids[0] ?? ""),
    change: (transaction, ids) => seam.remove(transaction, ids[0] ?? ""),
    conflicts: true,
  },
  {
    name: "a get and a change of another document",
    reads: (transaction, ids) => seam.get(transaction, ids[0] ?? ""),
    change: patchAt(1, { a: 3 }),
    conflicts: false,
  },
  {
    name: "two writes to one document",
    reads: patchAt(0, { b: 1 }),
    change: patchAt(0, { c: 1 }),
    conflicts: true,
  },
  { name: "two inserts", reads: insertAt(1), change: insertAt(1), conflicts: false },
  {
    name: "a count and an insert",
    reads: (transaction) => transaction.asyncSyscall("1.0/count", '{"table":"items"}'),
    change: insertAt(1),
    conflicts: true,
  },
  {
    name: "a count and a write to another table",
    reads: (transaction) => transaction.asyncSyscall("1.0/count", '{"table":"items"}'),
    change: (transaction) => seam.insert(transaction, "others", {}),
    conflicts: false,
  },
  {
    name: "a filter that lets nothing pass and a change of what it saw",
    reads: (transaction) =>
      seam.collect(transaction, seam.tableQuery("items", [{ filter: { $literal: false } }])),
    change: patchAt(4, { b: 1 }),
    conflicts: true,
  },
  {
    name: "a page and a change behind it",
    reads: (transaction) => seam.page(transaction, all, { pageSize: 2 }),
    change: patchAt(2, { b: 1 }),
    conflicts: false,
  },
  {
    name: "a page and a change in it",
    reads: (transaction) => seam.page(transaction, all, { pageSize: 2 }),
    change: patchAt(1, { b: 1 }),
    conflicts: true,
  },
  {
    name: "a read in a sub-transaction that is dropped",
    reads: (transaction) => seam.collect(transaction.child(), atA(2)),
    change: patchAt(1, { b: 1 }),
    conflicts: true,
  },
  {
    name: "a read by a stale reader",
    reads: (transaction) => seam.collect(transaction.staleReader(), all),
    change: patchAt(1, { b: 1 }),
    conflicts: false,
  },
  {
    name: "a read of a table that does not exist yet",
    reads: (transaction) => seam.collect(transaction, seam.tableQuery("fresh")),
    change: (transaction) => seam.insert(transaction, "fresh", {}),
    conflicts: true,
  },
];

test.each(cases)("$name: conflict $conflicts", async ({ reads, change, conflicts }) => {
  await withDatabase(async (database) => {
    await database.applySchema(SCHEMA);
    const ids: string[] = [];
    await commit(database, async (transaction) => {
      for (const a of [1, 2, 3, 4, 5]) ids.push(await seam.insert(transaction, "items", { a }));
    });
    const reader = database.begin("mutation");
    await reads(reader, ids);
    // A write of its own, to a place nobody reads: what only reads is never in conflict.
    await seam.insert(reader, "others", {});
    await commit(database, (transaction) => change(transaction, ids));
    if (conflicts) await expect(database.commit(reader)).rejects.toThrow(WriteConflict);
    else await database.commit(reader);
    reader.end();
  });
});

test("a conflict names the table", async () => {
  await withDatabase(async (database) => {
    await database.applySchema(SCHEMA);
    const reader = database.begin("mutation");
    await seam.collect(reader, all);
    await seam.insert(reader, "others", {});
    await commit(database, insertAt(1));
    await expect(database.commit(reader)).rejects.toMatchObject({ table: "items" });
    reader.end();
  });
});

test("what only reads commits at the timestamp it saw, whatever has happened since", async () => {
  await withDatabase(async (database) => {
    await database.applySchema(SCHEMA);
    const reader = database.begin("mutation");
    await seam.collect(reader, all);
    await commit(database, insertAt(1));
    expect(await database.commit(reader)).toEqual({ ts: reader.snapshotTs });
    expect(reader.snapshotTs).toBeLessThan(database.latestTs());
    reader.end();
  });
});

test("a commit that is not on disk yet is in conflict too", async () => {
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  let holds = false;
  await withDatabase(
    async (database) => {
      await database.applySchema(SCHEMA);
      holds = true;
      const [first, second] = [database.begin("mutation"), database.begin("mutation")];
      for (const transaction of [first, second]) {
        await seam.collect(transaction, atA(1));
        await seam.insert(transaction, "items", { a: 1 });
      }
      const pending = database.commit(first);
      await expect(database.commit(second)).rejects.toThrow(WriteConflict);
      // And nobody sees it before it is.
      const onlooker = database.begin("query");
      expect(await seam.collect(onlooker, all)).toEqual([]);
      onlooker.end();
      release();
      await pending;
      first.end();
      second.end();
    },
    { holdFlush: () => (holds ? held : undefined) },
  );
});
