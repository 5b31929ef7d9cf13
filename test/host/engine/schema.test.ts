import { expect, test } from "vitest";
import { WriteConflict, type Database } from "../../../src/host/database";
import { indexPrefix } from "../../../src/host/catalog";
import { wholeIndex } from "../../../src/host/entries";
import { openDatabase } from "../../../src/host/engine";
import { Store } from "../../../src/host/store";
import { scratchDir, withDatabase } from "./harness";
import * as seam from "./seam";

const byA = seam.schemaOf({ items: { indexes: { by_a: ["a"] } } });
const byB = seam.schemaOf({ items: { indexes: { by_b: ["b.c", "a"] } } });
const none = seam.schemaOf({});

async function fill(database: Database, count: number): Promise<void> {
  for (let from = 0; from < count; from += 5_000) {
    const writer = database.begin("mutation");
    for (let i = from; i < Math.min(from + 5_000, count); i++) {
      await seam.insert(writer, "items", { a: i % 10, b: { c: -i } });
    }
    await database.commit(writer);
    writer.end();
  }
}

async function read(database: Database, query: seam.QueryJson): Promise<seam.Stored[]> {
  const reader = database.begin("query");
  try {
    return await seam.collect(reader, query);
  } finally {
    reader.end();
  }
}

test("an index is built over what is there, kept up, and gone when the schema drops it", async () => {
  await withDatabase(async (database) => {
    await fill(database, 6_000);
    await database.applySchema(byA);
    const threes = seam.indexQuery("items.by_a", [["Eq", "a", 3]]);
    expect(await read(database, threes)).toHaveLength(600);
    await database.applySchema(byB);
    const lowest = seam.indexQuery("items.by_b", [], { operators: [{ limit: 2 }] });
    expect(await read(database, lowest)).toMatchObject([
      { b: { c: -5_999 } },
      { b: { c: -5_998 } },
    ]);
    await expect(read(database, threes)).rejects.toThrow("Index items.by_a not found.");
    await fill(database, 10);
    // Back again it holds what was written while it was away.
    await database.applySchema(byA);
    expect(await read(database, threes)).toHaveLength(601);
  });
});

test("tables, indexes and validators are there again after a restart", async () => {
  const { dir, remove } = scratchDir();
  const typed = seam.schemaOf({
    items: {
      indexes: { by_a: ["a"] },
      documentType: {
        type: "object",
        value: { a: { fieldType: { type: "number" }, optional: false } },
      },
    },
  });
  let database = await openDatabase({ dir });
  await database.applySchema(typed);
  const writer = database.begin("mutation");
  const id = await seam.insert(writer, "items", { a: 1 });
  await seam.insert(writer, "loose", { any: "thing" });
  const { ts } = await database.commit(writer);
  writer.end();
  await database.close();

  database = await openDatabase({ dir });
  expect(database.latestTs()).toBe(ts);
  expect(await read(database, seam.indexQuery("items.by_a", [["Gte", "a", 1]]))).toMatchObject([
    { _id: id, a: 1 },
  ]);
  expect(await read(database, seam.tableQuery("loose"))).toMatchObject([{ any: "thing" }]);
  const next = database.begin("mutation");
  await expect(seam.insert(next, "items", { a: "no" })).rejects.toThrow(
    "does not match the schema",
  );
  const second = await seam.insert(next, "items", { a: 2 });
  expect((await seam.get(next, second))?._creationTime).toBeGreaterThan(
    (await seam.get(next, id))?._creationTime ?? Infinity,
  );
  expect((await database.commit(next)).ts).toBeGreaterThan(ts);
  next.end();
  await database.close();
  remove();
});

test("a schema that documents do not fit is refused and changes nothing", async () => {
  await withDatabase(async (database) => {
    await database.applySchema(byA);
    await fill(database, 3);
    const [first] = await read(database, seam.tableQuery("items"));
    const strict = seam.schemaOf({
      items: {
        documentType: {
          type: "object",
          value: { a: { fieldType: { type: "number" }, optional: false } },
        },
      },
    });
    await expect(database.applySchema(strict)).rejects.toThrow(
      /^Document with ID "[a-z0-9]{32}" in table "items" does not match the schema: Object contains extra field `b`/,
    );
    expect(await read(database, seam.indexQuery("items.by_a", [["Eq", "a", 0]]))).toEqual([first]);
    const writer = database.begin("mutation");
    await seam.insert(writer, "items", { anything: true });
    writer.end();
  });
});

test("a transaction planned against other indexes has to run again", async () => {
  await withDatabase(async (database) => {
    await database.applySchema(byA);
    const writer = database.begin("mutation");
    await seam.insert(writer, "items", { a: 1 });
    await database.applySchema(byB);
    await expect(database.commit(writer)).rejects.toThrow(WriteConflict);
    writer.end();
  });
});

test("commits wait while a schema is applied, and none is lost", async () => {
  await withDatabase(async (database) => {
    await fill(database, 6_000);
    const applying = database.applySchema(byA);
    const writer = database.begin("mutation");
    await seam.insert(writer, "others", {});
    const outcome = await Promise.allSettled([database.commit(writer), applying]);
    writer.end();
    expect(outcome[1].status).toBe("fulfilled");
    const others = await read(database, seam.tableQuery("others"));
    expect(others).toHaveLength(outcome[0].status === "fulfilled" ? 1 : 0);
    const fives = seam.indexQuery("items.by_a", [["Eq", "a", 5]]);
    expect(await read(database, fives)).toHaveLength(600);
  });
});

test("validation can be switched off, and a missing schema asks for nothing", async () => {
  await withDatabase(async (database) => {
    const strict = JSON.parse(
      seam.schemaOf({ items: { indexes: { by_a: ["a"] }, documentType: { type: "null" } } }),
    ) as seam.Fields;
    await database.applySchema(JSON.stringify({ ...strict, schemaValidation: false }));
    await fill(database, 1);
    expect(await read(database, seam.indexQuery("items.by_a"))).toHaveLength(1);
    for (const schema of [none, "null"]) {
      await database.applySchema(schema);
      await expect(read(database, seam.indexQuery("items.by_a"))).rejects.toThrow("not found");
      expect(await read(database, seam.tableQuery("items"))).toHaveLength(1);
    }
  });
});

test("entries of an index that was never finished are gone after the next start", async () => {
  const { dir, remove } = scratchDir();
  const number = 900;
  const leftovers = Array.from({ length: 6_000 }, (_, i) => `${indexPrefix(number)}${i}`);
  const opened = await openDatabase({ dir });
  await fill(opened, 1);
  await opened.close();

  let store = new Store(dir);
  let snapshot = store.openSnapshot();
  const catalog = JSON.parse(store.catalog(snapshot) ?? "") as seam.Fields;
  await store.write(
    leftovers.map((key) => [key, ""] as const),
    snapshot.ts + 1,
    JSON.stringify({ ...catalog, nextIndexNumber: number + 1, dropped: [number] }),
  );
  store.closeSnapshot(snapshot);
  await store.close();

  const again = await openDatabase({ dir });
  expect(await read(again, seam.tableQuery("items"))).toHaveLength(1);
  await again.close();

  store = new Store(dir);
  snapshot = store.openSnapshot();
  expect(store.keys(snapshot, wholeIndex(number))).toEqual([]);
  expect(JSON.parse(store.catalog(snapshot) ?? "")).toMatchObject({ dropped: [] });
  store.closeSnapshot(snapshot);
  await store.close();
  remove();
});
