import { jsonToConvex } from "convex/values";
import { expect, test } from "vitest";
import { encodeId } from "../../../src/host/ids";
import { withDatabase } from "./harness";
import * as seam from "./seam";

const SCHEMA = seam.schemaOf({
  items: {
    indexes: { by_a: ["a"], by_a_b: ["a", "b"] },
    documentType: {
      type: "object",
      value: {
        a: { fieldType: { type: "any" }, optional: true },
        b: { fieldType: { type: "any" }, optional: true },
        ts: { fieldType: { type: "commitTs" }, optional: true },
        item: { fieldType: { type: "id", tableName: "items" }, optional: true },
      },
    },
  },
  others: {},
});
const all = seam.indexQuery("items.by_a");

test("a transaction sees its own writes in order, and others see them after the commit", async () => {
  await withDatabase(async (database) => {
    await database.applySchema(SCHEMA);
    const writer = database.begin("mutation");
    const ids = [];
    for (const a of [3, 1, 2]) ids.push(await seam.insert(writer, "items", { a }));
    await seam.patch(writer, ids[0] ?? "", { a: 0 });
    await seam.remove(writer, ids[1] ?? "");
    expect((await seam.collect(writer, all)).map(({ a }) => a)).toEqual([0, 2]);
    const before = database.begin("query");
    expect(await seam.collect(before, all)).toEqual([]);
    await database.commit(writer);
    writer.end();
    expect(await seam.collect(before, all)).toEqual([]);
    before.end();
    const after = database.begin("query");
    expect((await seam.collect(after, all)).map(({ a }) => a)).toEqual([0, 2]);
    expect(await seam.get(after, ids[1] ?? "")).toBeNull();
    after.end();
  });
});

test("a query that runs while its transaction writes gives what lies ahead as it is then", async () => {
  await withDatabase(async (database) => {
    await database.applySchema(SCHEMA);
    const setup = database.begin("mutation");
    const ids = [];
    for (const a of [1, 2, 3, 4]) ids.push(await seam.insert(setup, "items", { a }));
    await database.commit(setup);
    setup.end();
    const writer = database.begin("mutation");
    const { next } = seam.stream(writer, all);
    expect(await next()).toMatchObject({ a: 1 });
    await seam.remove(writer, ids[1] ?? "");
    await seam.patch(writer, ids[2] ?? "", { b: "new" });
    await seam.patch(writer, ids[0] ?? "", { a: 3.5 });
    expect(await next()).toMatchObject({ a: 3, b: "new" });
    expect(await next()).toMatchObject({ a: 3.5, _id: ids[0] });
    expect(await next()).toMatchObject({ a: 4 });
    expect(await next()).toBeNull();
    writer.end();
  });
});

test("a sub-transaction's writes stay when it is kept and go when it is forgotten", async () => {
  await withDatabase(async (database) => {
    await database.applySchema(SCHEMA);
    const outer = database.begin("mutation");
    const id = await seam.insert(outer, "items", { a: 1 });
    const kept = outer.child();
    await seam.patch(kept, id, { a: 2 });
    const inner = kept.child();
    await seam.insert(inner, "items", { a: 3 });
    kept.commitChild(inner);
    expect(await seam.get(outer, id)).toMatchObject({ a: 1 });
    outer.commitChild(kept);
    const dropped = outer.child();
    await seam.remove(dropped, id);
    expect(await seam.collect(dropped, all)).toHaveLength(1);
    expect((await seam.collect(outer, all)).map(({ a }) => a)).toEqual([2, 3]);
    await database.commit(outer);
    outer.end();
    const after = database.begin("query");
    expect((await seam.collect(after, all)).map(({ a }) => a)).toEqual([2, 3]);
    after.end();
  });
});

test("a sub-transaction can be kept once, by the transaction it came from", async () => {
  await withDatabase(async (database) => {
    const outer = database.begin("mutation");
    const child = outer.child();
    expect(() => {
      database.begin("mutation").commitChild(child);
    }).toThrow("belongs to another");
    outer.commitChild(child);
    expect(() => {
      outer.commitChild(child);
    }).toThrow("has ended");
    await expect(seam.insert(child, "items", {})).rejects.toThrow("has ended");
    await expect(database.commit(outer.child())).rejects.toThrow("Only a transaction");
  });
});

test("a stale reader sees the state the transaction began with, and none of its writes", async () => {
  await withDatabase(async (database) => {
    await database.applySchema(SCHEMA);
    const outer = database.begin("mutation");
    await seam.insert(outer, "items", { a: 1 });
    const reader = outer.staleReader();
    expect(await seam.collect(reader, all)).toEqual([]);
    await expect(seam.insert(reader, "items", {})).rejects.toThrow("A query can not write.");
    reader.end();
    expect(await seam.collect(outer, all)).toHaveLength(1);
    outer.end();
  });
});

test("a stale reader lags by as many batches as the injection says", async () => {
  let lag = 0;
  await withDatabase(
    async (database) => {
      await database.applySchema(SCHEMA);
      for (const a of [1, 2, 3]) {
        const writer = database.begin("mutation");
        await seam.insert(writer, "items", { a });
        await database.commit(writer);
        writer.end();
      }
      const outer = database.begin("mutation");
      for (lag = 0; lag < 3; lag++) {
        const reader = outer.staleReader();
        expect(await seam.collect(reader, all)).toHaveLength(3 - lag);
        reader.end();
      }
      outer.end();
    },
    { staleLagBatches: () => lag },
  );
});

test("commit timestamps are put in at the commit, in its order, in nanoseconds", async () => {
  await withDatabase(async (database) => {
    await database.applySchema(SCHEMA);
    const commits: number[] = [];
    for (const a of [1, 2]) {
      const writer = database.begin("mutation");
      await seam.insert(writer, "items", { a: { $commitTs: null }, ts: { $commitTs: null } });
      const id = await seam.insert(writer, "items", { a });
      await seam.patch(writer, id, { ts: { $commitTs: null } });
      expect(await seam.get(writer, id)).toMatchObject({ ts: { $commitTs: null } });
      const { ts } = await database.commit(writer);
      commits.push(ts);
      writer.end();
    }
    const reader = database.begin("query");
    const rows = await seam.collect(reader, all);
    const nanoseconds = commits.map((ts) => BigInt(ts) * 1_000n);
    expect(rows.map(({ ts }) => jsonToConvex(ts as never))).toEqual([
      ...nanoseconds,
      ...nanoseconds,
    ]);
    // The key in the index is that of the timestamp, not of the placeholder.
    expect(rows.slice(0, 2).map(({ a }) => jsonToConvex(a as never))).toEqual(nanoseconds);
    reader.end();
    expect(commits[1]).toBeGreaterThan(commits[0] ?? 0);
  });
});

test("creation times grow, even when the clock stands or goes back", async () => {
  let now = 1_000_000;
  await withDatabase(
    async (database) => {
      const times: number[] = [];
      for (const clock of [1_000_000, 1_000_000, 999_000, 1_000_005]) {
        now = clock;
        const writer = database.begin("mutation");
        const id = await seam.insert(writer, "items", {});
        times.push((await seam.get(writer, id))?._creationTime ?? 0);
        await database.commit(writer);
        writer.end();
      }
      expect(times).toEqual([...new Set(times)].sort((a, b) => a - b));
      expect(times[3]).toBe(1_000_005);
    },
    { nowMs: () => now },
  );
});

test("system tables are read through the system flag and written through `system` only", async () => {
  await withDatabase(async (database) => {
    await database.applySchema(SCHEMA);
    const writer = database.begin("mutation");
    const job = writer.system.insert("_scheduled_functions", { name: "a:b", state: "pending" });
    writer.system.patch(job, { state: "inProgress" });
    expect(writer.system.get(job)).toMatchObject({ name: "a:b", state: "inProgress" });
    const gone = writer.system.insert("_scheduled_functions", {});
    writer.system.remove(gone);
    expect(writer.system.get(gone)).toBeNull();
    await expect(seam.get(writer, job)).rejects.toThrow(
      "System tables can only be accessed with db.system.",
    );
    for (const write of [
      seam.insert(writer, "_scheduled_functions", {}),
      seam.patch(writer, job, {}),
      seam.replace(writer, job, {}),
      seam.remove(writer, job),
    ]) {
      await expect(write).rejects.toThrow("System tables can only be accessed with db.system.");
    }
    const id = await seam.insert(writer, "items", {});
    await expect(seam.get(writer, id, { isSystem: true })).rejects.toThrow(
      "User tables cannot be accessed with db.system.",
    );
    await database.commit(writer);
    writer.end();
    const reader = database.begin("query");
    expect(await seam.get(reader, job, { isSystem: true })).toMatchObject({ state: "inProgress" });
    expect(await seam.collect(reader, seam.tableQuery("_scheduled_functions"))).toHaveLength(1);
    reader.end();
  });
});

test("listeners hear the ids of each commit to their table, until they stop", async () => {
  await withDatabase(async (database) => {
    const heard: (readonly string[])[] = [];
    const stop = database.onCommit("items", (ids) => heard.push(ids));
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) {
      if (i === 2) stop();
      const writer = database.begin("mutation");
      ids.push(await seam.insert(writer, "items", {}));
      await seam.insert(writer, "others", {});
      await database.commit(writer);
      writer.end();
    }
    expect(heard).toEqual([[ids[0]], [ids[1]]]);
  });
});

test("ids are normalized by table", async () => {
  await withDatabase(async (database) => {
    await database.applySchema(SCHEMA);
    const writer = database.begin("mutation");
    const id = await seam.insert(writer, "items", {});
    const normalize = (table: string, idString: string) =>
      JSON.parse(
        writer.syscall("1.0/db/normalizeId", JSON.stringify({ table, idString })),
      ) as unknown;
    expect(normalize("items", id)).toEqual({ id });
    expect(normalize("others", id)).toEqual({ id: null });
    expect(normalize("unknown", id)).toEqual({ id: null });
    expect(normalize("items", "nonsense")).toEqual({ id: null });
    writer.end();
  });
});

test("wrong uses are refused in the platform's words", async () => {
  await withDatabase(async (database) => {
    await database.applySchema(SCHEMA);
    const writer = database.begin("mutation");
    const id = await seam.insert(writer, "items", { a: 1 });
    const otherId = await seam.insert(writer, "others", {});
    await seam.remove(writer, otherId);
    const unknownTable = encodeId(20_000, new Uint8Array(16));
    const attempts: [Promise<unknown>, string][] = [
      [
        seam.get(writer, "x"),
        "Invalid argument `id` for `db.get`: Unable to decode ID: Invalid ID length 1",
      ],
      [seam.get(writer, unknownTable), `Table for ID "${unknownTable}" not found`],
      [
        seam.get(writer, id, { table: "others" }),
        'Invalid argument `id` for `db.get`: expected to be an Id<"others">, got Id<"items"> instead.',
      ],
      [seam.patch(writer, otherId, {}), `Update on nonexistent document ID ${otherId}`],
      [seam.replace(writer, otherId, {}), `Replace on nonexistent document ID ${otherId}`],
      [seam.remove(writer, otherId), `Delete on nonexistent document ID ${otherId}`],
      [seam.patch(writer, id, { _id: otherId }), "Provided `_id` field value"],
      [seam.replace(writer, id, { _creationTime: 1 }), "Provided `_creationTime` field value 1"],
      [seam.insert(writer, "items", { _id: id }), "Field '_id' starts with an underscore"],
      [seam.insert(writer, "items", { _x: 1 }), "Field '_x' starts with an underscore"],
      [seam.patch(writer, id, { _x: 1 }), "Field '_x' starts with an underscore"],
      [seam.insert(writer, "no table", {}), 'Table name "no table" is invalid'],
      [
        seam.insert(writer, "items", { item: otherId }),
        'Failed to insert or update a document in table "items" because it does not match the schema: Found ID',
      ],
      [
        seam.patch(writer, id, { c: 1 }),
        "does not match the schema: Object contains extra field `c` that is not in the validator.",
      ],
      [
        writer.asyncSyscall("1.0/insert", '{"table":"items","value":[]}'),
        "Value must be an Object",
      ],
      [writer.asyncSyscall("1.0/storageGetUrl", "{}"), "Unknown async operation 1.0/storageGetUrl"],
      [seam.collect(writer, seam.indexQuery("items.by_x")), "Index items.by_x not found."],
      [
        seam.collect(writer, seam.indexQuery("items.by_a_b", [["Eq", "b", 1]])),
        "Tried to query index items.by_a_b but the query didn't use the index fields in order.\nIndex fields: [a, b, _creationTime]\nQuery fields: [b]\nFirst incorrect field: b",
      ],
      [
        seam.collect(writer, seam.indexQuery("items.by_a", [["Eq", "c", 1]])),
        'The index range included a comparison with "c", but items.by_a with fields [a, _creationTime] doesn\'t index this field.',
      ],
      [
        seam.collect(
          writer,
          seam.indexQuery("items.by_a_b", [
            ["Gt", "a", 1],
            ["Lt", "b", 1],
          ]),
        ),
        "Upper and lower bounds in `range` can only be applied to a single index field.",
      ],
      [
        seam.collect(
          writer,
          seam.indexQuery("items.by_a", [
            ["Gt", "a", 1],
            ["Gte", "a", 1],
          ]),
        ),
        'Already defined lower bound in index range. Can\'t add "a" >= 1.',
      ],
    ];
    for (const [attempt, words] of attempts) await expect(attempt).rejects.toThrow(words);
    const search = { source: { type: "Search" }, operators: [] };
    expect(() => seam.stream(writer, search)).toThrow("The embedded host has no search indexes");
    expect(() => writer.syscall("1.0/getSnapshotTs", "{}")).toThrow("Unknown operation");
    writer.end();
    await expect(seam.get(writer, id)).rejects.toThrow("The transaction has ended.");
    await expect(database.commit(writer)).rejects.toThrow("The transaction has ended.");
    // None of the failed writes has left anything behind.
    expect(database.latestTs()).toBeGreaterThan(0);
  });
});

test.each<[string, unknown, string]>([
  [
    "a string plus a number",
    { $add: [{ $literal: "a" }, { $literal: 1 }] },
    'Cannot add "a" (type String) and 1 (type Float64)',
  ],
  ["an integer by zero", { $div: [int(4), int(0)] }, "Cannot divide 4 by zero"],
  [
    "the largest integer plus one",
    { $add: [max(), int(1)] },
    "the result is out of range for Int64",
  ],
  ["a number as a boolean", { $literal: 1 }, "Cannot use value 1 (type Float64) as a Boolean"],
  ["minus a boolean", { $neg: { $literal: true } }, "Cannot negate true (type Boolean)"],
])("a filter can not calculate %s", async (_, filter, words) => {
  await withDatabase(async (database) => {
    const writer = database.begin("mutation");
    await seam.insert(writer, "items", {});
    const rows = seam.collect(writer, seam.tableQuery("items", [{ filter }]));
    await expect(rows).rejects.toThrow(words);
    writer.end();
  });
});

function int(value: number) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(BigInt(value));
  return { $literal: { $integer: bytes.toString("base64") } };
}

function max() {
  const bytes = Buffer.alloc(8, 0xff);
  bytes[7] = 0x7f;
  return { $literal: { $integer: bytes.toString("base64") } };
}

test("a filter calculates with numbers and with integers", async () => {
  await withDatabase(async (database) => {
    const writer = database.begin("mutation");
    await seam.insert(writer, "items", { n: 7 });
    const n = { $field: "n" };
    const holds: unknown[] = [
      { $eq: [{ $mod: [n, { $literal: 4 }] }, { $literal: 3 }] },
      { $eq: [{ $sub: [{ $mul: [n, n] }, { $neg: n }] }, { $literal: 56 }] },
      { $eq: [{ $div: [n, { $literal: 2 }] }, { $literal: 3.5 }] },
      { $eq: [{ $div: [int(7), int(2)] }, int(3)] },
      { $eq: [{ $mod: [int(-7), int(2)] }, int(-1)] },
      { $eq: [{ $neg: int(7) }, int(-7)] },
      { $eq: [{ $field: "no.such.field" }, { $literal: { $undefined: null } }] },
      { $lt: [{ $field: "none" }, { $literal: null }] },
      { $gt: [{ $literal: "" }, n] },
    ];
    for (const filter of holds) {
      expect(await seam.collect(writer, seam.tableQuery("items", [{ filter }]))).toHaveLength(1);
    }
    writer.end();
  });
});
