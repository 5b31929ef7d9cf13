import { expect, test } from "vitest";
import type { Database } from "../../../src/host/database";
import { withDatabase } from "./harness";
import * as seam from "./seam";

const byA = seam.indexQuery("items.by_a");

async function withItems(
  count: number,
  body: (database: Database) => Promise<void>,
  fields: seam.Fields = {},
): Promise<void> {
  await withDatabase(async (database) => {
    await database.applySchema(seam.schemaOf({ items: { indexes: { by_a: ["a"] } } }));
    for (let a = 0; a < count; a++) {
      await write(database, async (writer) => {
        await seam.insert(writer, "items", { a, ...fields });
      });
    }
    await body(database);
  });
}

async function write(
  database: Database,
  body: (writer: ReturnType<Database["begin"]>) => Promise<void>,
): Promise<void> {
  const writer = database.begin("mutation");
  await body(writer);
  await database.commit(writer);
  writer.end();
}

async function readPage(
  database: Database,
  options: seam.Fields,
  query: seam.QueryJson = byA,
): Promise<seam.Page> {
  const reader = database.begin("query");
  try {
    return await seam.page(reader, query, options);
  } finally {
    reader.end();
  }
}

const as = (page: seam.Page) => page.page.map(({ a }) => a);

test("a full page is never the last one, as on the platform", async () => {
  await withItems(4, async (database) => {
    const first = await readPage(database, { pageSize: 4 });
    expect(first).toMatchObject({ isDone: false, pageStatus: null });
    const second = await readPage(database, { pageSize: 4, cursor: first.continueCursor });
    expect(second).toMatchObject({ page: [], isDone: true });
    // The end stays the end, even when rows are added.
    await write(database, async (writer) => {
      await seam.insert(writer, "items", { a: 9 });
    });
    const third = await readPage(database, { pageSize: 4, cursor: second.continueCursor });
    expect(third).toMatchObject({ page: [], isDone: true });
  });
});

test("between two cursors lies whatever is there by now", async () => {
  await withItems(6, async (database) => {
    const first = await readPage(database, { pageSize: 2 });
    const second = await readPage(database, { pageSize: 2, cursor: first.continueCursor });
    expect(as(second)).toEqual([2, 3]);
    await write(database, async (writer) => {
      await seam.insert(writer, "items", { a: 1.5 });
      await seam.insert(writer, "items", { a: 2.5 });
      await seam.insert(writer, "items", { a: 3.5 });
    });
    const again = await readPage(database, {
      pageSize: 1,
      cursor: first.continueCursor,
      endCursor: second.continueCursor,
    });
    expect(as(again)).toEqual([1.5, 2, 2.5, 3]);
    expect(again).toMatchObject({ isDone: false, continueCursor: second.continueCursor });
    const descending = seam.indexQuery("items.by_a", [], { order: "desc" });
    const last = await readPage(database, { pageSize: 2 }, descending);
    const rest = await readPage(database, { pageSize: 9, cursor: last.continueCursor }, descending);
    expect([as(last), as(rest)]).toEqual([
      [5, 4],
      [3.5, 3, 2.5, 2, 1.5, 1, 0],
    ]);
  });
});

test("a page can be split in the middle of what was read", async () => {
  await withItems(6, async (database) => {
    const whole = await readPage(database, { pageSize: 6 });
    const { splitCursor, continueCursor } = whole;
    const left = await readPage(database, { pageSize: 6, endCursor: splitCursor });
    const right = await readPage(database, {
      pageSize: 6,
      cursor: splitCursor,
      endCursor: continueCursor,
    });
    expect([as(left), as(right)]).toEqual([
      [0, 1, 2, 3],
      [4, 5],
    ]);
    expect((await readPage(database, { pageSize: 2 })).splitCursor).toBeNull();
  });
});

test("a page ends early when it has read as much as it was allowed", async () => {
  await withItems(8, async (database) => {
    const even = seam.indexQuery("items.by_a", [], {
      operators: [
        { filter: { $eq: [{ $mod: [{ $field: "a" }, { $literal: 2 }] }, { $literal: 1 }] } },
      ],
    });
    const byRows = await readPage(database, { pageSize: 8, maximumRowsRead: 5 }, even);
    expect(byRows).toMatchObject({ isDone: false, pageStatus: "SplitRequired" });
    expect(as(byRows)).toEqual([1, 3]);
    const rest = await readPage(database, { pageSize: 8, cursor: byRows.continueCursor }, even);
    expect(as(rest)).toEqual([5, 7]);
    const byBytes = await readPage(database, { pageSize: 8, maximumBytesRead: 1 });
    expect(as(byBytes)).toEqual([0]);
    expect(byBytes.pageStatus).toBe("SplitRequired");
    const nearly = await readPage(database, { pageSize: 4, maximumRowsRead: 5 });
    expect(nearly.pageStatus).toBe("SplitRecommended");
  });
});

test("a page that runs out of the transaction's budget ends before the row too many", async () => {
  await withItems(
    20,
    async (database) => {
      const page = await readPage(database, { pageSize: 100 });
      expect(page).toMatchObject({ isDone: false, pageStatus: "SplitRequired" });
      expect(as(page)).toHaveLength(16);
      const rest = await readPage(database, { pageSize: 100, cursor: page.continueCursor });
      expect(as(rest)).toEqual([16, 17, 18, 19]);
    },
    { filling: "x".repeat(1_000_000) },
  );
});

test("wrong requests are refused", async () => {
  await withItems(3, async (database) => {
    const { continueCursor } = await readPage(database, { pageSize: 1 });
    const other = seam.indexQuery("items.by_a", [["Gt", "a", 0]]);
    await expect(readPage(database, { cursor: continueCursor }, other)).rejects.toThrow(
      "InvalidCursor",
    );
    await expect(readPage(database, { cursor: "nonsense" })).rejects.toThrow("InvalidCursor");
    await expect(readPage(database, { pageSize: 0 })).rejects.toThrow("at least 1 document");
    await expect(readPage(database, { pageSize: 40_000 })).rejects.toThrow("too many items");
    await expect(readPage(database, { maximumRowsRead: 0 })).rejects.toThrow("greater than 0");
    const reader = database.begin("query");
    await seam.page(reader, byA);
    await expect(seam.page(reader, byA)).rejects.toThrow("ran multiple paginated queries");
    reader.end();
  });
});
