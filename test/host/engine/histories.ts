import { mutationGeneric, type GenericDataModel, type GenericMutationCtx } from "convex/server";
import type { GenericId } from "convex/values";

import fc from "fast-check";

/**
 * Transactions whose writes depend on what they read, so that a history that equals no serial one
 * leaves traces: registers under unique keys, summed, copied, counted, taken in order.
 */
export type Operation =
  | { readonly kind: "add"; readonly key: number; readonly by: number }
  | { readonly kind: "copySum"; readonly from: number; readonly to: number; readonly key: number }
  | { readonly kind: "insertIfMissing"; readonly key: number }
  | { readonly kind: "removeLowest"; readonly order: "asc" | "desc" }
  | { readonly kind: "countInto"; readonly key: number }
  | {
      readonly kind: "readRange";
      readonly from: number;
      readonly to: number;
      readonly rows: number;
    }
  | { readonly kind: "swapGroups"; readonly key: number; readonly other: number };

export interface Entry {
  readonly key: number;
  readonly value: number;
  readonly group: number;
}

const KEYS = 8;
const key = fc.nat({ max: KEYS - 1 });
const kind = <K extends string>(name: K) => fc.constant(name);

export const operationArbitrary: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({ kind: kind("add"), key, by: fc.integer({ min: 1, max: 3 }) }),
  fc.record({ kind: kind("copySum"), from: key, to: key, key }),
  fc.record({ kind: kind("insertIfMissing"), key }),
  fc.record({
    kind: kind("removeLowest"),
    order: fc.constantFrom("asc" as const, "desc" as const),
  }),
  fc.record({ kind: kind("countInto"), key }),
  fc.record({ kind: kind("readRange"), from: key, to: key, rows: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ kind: kind("swapGroups"), key, other: key }),
);

/** The table the operations work on, with the indexes they read. */
export const registersSchema = JSON.stringify({
  schemaValidation: true,
  tables: [
    {
      tableName: "registers",
      indexes: [
        { indexDescriptor: "by_key", fields: ["key"] },
        { indexDescriptor: "by_group", fields: ["group", "key"] },
      ],
      documentType: { type: "any" },
    },
  ],
});

type Ctx = GenericMutationCtx<GenericDataModel>;
type Db = Ctx["db"];

export const functions = {
  run: mutationGeneric({
    handler: async ({ db }: Ctx, { operations }: { operations: Operation[] }) => {
      const out: (number | null)[] = [];
      for (const operation of operations) out.push(...(await apply(db, operation)));
      return out;
    },
  }),
  /** Leaves no registers, for the next history on the same database. */
  wipe: mutationGeneric({
    handler: async ({ db }: Ctx) => {
      for (const { _id } of (await db.query("registers").collect()) as unknown[] as Row[])
        await db.delete(_id);
    },
  }),
  state: mutationGeneric({
    handler: async ({ db }: Ctx) =>
      ((await db.query("registers").withIndex("by_key").collect()) as unknown[] as Row[]).map(
        ({ key: name, value, group }) => [name, value, group],
      ),
  }),
};

async function apply(db: Db, operation: Operation): Promise<(number | null)[]> {
  switch (operation.kind) {
    case "add": {
      const row = await find(db, operation.key);
      await set(db, operation.key, (row?.value ?? 0) + operation.by);
      return [row?.value ?? null];
    }
    case "copySum": {
      const rows = await db
        .query("registers")
        .withIndex("by_key", (q) => q.gte("key", operation.from).lte("key", operation.to))
        .collect();
      const sum = rows.reduce((total, row) => total + (row["value"] as number), rows.length);
      await set(db, operation.key, sum % 1_000);
      return [sum];
    }
    case "insertIfMissing": {
      if ((await find(db, operation.key)) !== null) return [0];
      await set(db, operation.key, 100 + operation.key);
      return [1];
    }
    case "removeLowest": {
      const lowest = db.query("registers").withIndex("by_key").order(operation.order);
      const row = (await lowest.first()) as Row | null;
      if (row !== null) await db.delete(row._id);
      return [row?.key ?? null];
    }
    case "countInto": {
      const count = (await db.query("registers").collect()).length;
      await set(db, operation.key, count);
      return [count];
    }
    case "readRange": {
      const rows = await db
        .query("registers")
        .withIndex("by_key", (q) => q.gt("key", operation.from))
        .filter((q) => q.gte(q.field("value"), operation.to))
        .take(operation.rows);
      return rows.map((row) => row["key"] as number);
    }
    case "swapGroups": {
      const inGroup = await db
        .query("registers")
        .withIndex("by_group", (q) => q.eq("group", operation.key % 2))
        .collect();
      const row = await find(db, operation.other);
      if (row !== null) await db.patch(row._id, { group: (row.group + inGroup.length) % 2 });
      return inGroup.map((member) => member["key"] as number);
    }
  }
}

type Row = Entry & { readonly _id: GenericId<string> };

async function find(db: Db, name: number): Promise<Row | null> {
  const row = await db
    .query("registers")
    .withIndex("by_key", (q) => q.eq("key", name))
    .unique();
  return row as Row | null;
}

async function set(db: Db, name: number, value: number): Promise<void> {
  const row = await find(db, name);
  if (row === null) await db.insert("registers", { key: name, value, group: name % 2 });
  else await db.patch(row._id, { value });
}
