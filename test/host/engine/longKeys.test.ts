import fc from "fast-check";
import { expect, test } from "vitest";
import { withDatabase } from "./harness";
import * as seam from "./seam";

// The store takes keys of 1,978 bytes; these begin alike far beyond that.
const long = fc
  .tuple(
    fc.constantFrom("x".repeat(1_800), "x".repeat(1_890), "x".repeat(1_960), "x".repeat(2_500)),
    fc.string({ unit: fc.constantFrom("a", "b", "\u0000", "é"), maxLength: 3 }),
  )
  .map(([head, end]) => head + end);
const value = fc.oneof({ weight: 5, arbitrary: long }, fc.constantFrom("", "x", "y"));

test("keys longer than the store takes are found and sorted all the same", async () => {
  await withDatabase(async (database) => {
    await database.applySchema(seam.schemaOf({ items: { indexes: { by_a_b: ["a", "b"] } } }));
    let group = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(value, { minLength: 1, maxLength: 40, size: "max" }),
        fc.array(value, { maxLength: 5 }),
        fc.tuple(value, value),
        fc.constantFrom("asc" as const, "desc" as const),
        async (stored, own, [from, to], order) => {
          group += 1;
          const writer = database.begin("mutation");
          for (const b of stored) await seam.insert(writer, "items", { a: group, b });
          await database.commit(writer);
          writer.end();
          const reader = database.begin("mutation");
          for (const b of own) await seam.insert(reader, "items", { a: group, b });
          const query = seam.indexQuery(
            "items.by_a_b",
            [
              ["Eq", "a", group],
              ["Gte", "b", from],
              ["Lt", "b", to],
            ],
            { order },
          );
          const found = (await seam.collect(reader, query)).map(({ b }) => b as string);
          const expected = [...stored, ...own]
            .map((text) => Buffer.from(text))
            .filter(
              (text) => Buffer.from(from).compare(text) <= 0 && text.compare(Buffer.from(to)) < 0,
            )
            .sort((a, b) => a.compare(b))
            .map(String);
          expect(found).toEqual(order === "asc" ? expected : expected.reverse());
          reader.end();
        },
      ),
      { numRuns: 40 },
    );
  });
});

test("a range of long keys is read in stretches and in pages", async () => {
  await withDatabase(async (database) => {
    await database.applySchema(seam.schemaOf({ items: { indexes: { by_a: ["a"] } } }));
    const head = "x".repeat(2_000);
    const names = Array.from(
      { length: 60 },
      (_, i) => `${head}${String((i * 37) % 60).padStart(2, "0")}`,
    );
    const writer = database.begin("mutation");
    for (const a of [...names, "a", "z"]) await seam.insert(writer, "items", { a });
    await database.commit(writer);
    writer.end();
    const expected = ["a", ...names.toSorted(), "z"];
    for (const order of ["asc", "desc"] as const) {
      const query = seam.indexQuery("items.by_a", [], { order });
      const found: unknown[] = [];
      let cursor: string | null = null;
      for (let isDone = false; !isDone;) {
        const reader = database.begin("query");
        const page = await seam.page(reader, query, { cursor, pageSize: 7 });
        reader.end();
        found.push(...page.page.map(({ a }) => a));
        ({ isDone, continueCursor: cursor } = page);
      }
      expect(found).toEqual(order === "asc" ? expected : expected.toReversed());
    }
  });
});

test("a long key is replaced and removed like any other", async () => {
  await withDatabase(async (database) => {
    await database.applySchema(seam.schemaOf({ items: { indexes: { by_a: ["a"] } } }));
    const head = "x".repeat(3_000);
    const writer = database.begin("mutation");
    const id = await seam.insert(writer, "items", { a: `${head}1` });
    const other = await seam.insert(writer, "items", { a: `${head}2` });
    await database.commit(writer);
    writer.end();
    const changer = database.begin("mutation");
    await seam.patch(changer, id, { a: `${head}3` });
    await seam.remove(changer, other);
    await database.commit(changer);
    changer.end();
    const reader = database.begin("query");
    const rows = await seam.collect(reader, seam.indexQuery("items.by_a"));
    expect(rows.map(({ a }) => a)).toEqual([`${head}3`]);
    reader.end();
  });
});
