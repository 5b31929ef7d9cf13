/** Rows of any table, made from the schema: whoever adds a table or a field has it in every test. */
import type { Value } from "convex/values";
import schema from "../../convex/schema";
import type { Backend, Tables } from "./backend";

/** How a validator looks from inside, as far as rows are made of it. */
type Shape = { readonly isOptional: "required" | "optional" } & (
  | { readonly kind: "string" | "float64" | "boolean" | "null" | "bytes" }
  | { readonly kind: "literal"; readonly value: Value }
  | { readonly kind: "id"; readonly tableName: Tables }
  | { readonly kind: "array"; readonly element: Shape }
  | { readonly kind: "record"; readonly value: Shape }
  | { readonly kind: "object"; readonly fields: Readonly<Record<string, Shape>> }
  | { readonly kind: "union"; readonly members: readonly Shape[] }
);

/** What fields hold, named by their path, such as `toolJobs.toolName`. */
export interface Filling {
  readonly text: (path: string) => string;
  readonly number: (path: string) => number;
}

export const TABLE_NAMES = Object.keys(schema.tables) as Tables[];

const shapeOf = (table: Tables): Shape => schema.tables[table].validator as unknown as Shape;

/** Every table with as many rows as its widest union has members, so that each of them occurs. */
export async function fillAll(t: Backend, filling: Filling): Promise<void> {
  for (const table of TABLE_NAMES)
    for (let variant = 0; variant < width(shapeOf(table)); variant++)
      await insertRow(t, table, { filling, variant });
}

interface Making {
  readonly filling: Filling;
  /** Which member of each union is taken. */
  readonly variant: number;
  /** Whether another row refers to this one: it then refers to nothing that it need not. */
  readonly referred?: boolean;
}

/** Inserts one row, and what it refers to. */
export async function insertRow(t: Backend, table: Tables, making: Making): Promise<string> {
  const row = await valueOf(t, shapeOf(table), { referred: false, ...making, path: table });
  // A row of a table that is only known by name has no type of its own.
  return await t.run((ctx) => ctx.db.insert(table, row as never));
}

async function valueOf(
  t: Backend,
  shape: Shape,
  making: Required<Making> & { readonly path: string },
): Promise<Value | undefined> {
  const { filling, path, referred, variant } = making;
  switch (shape.kind) {
    case "string":
      return filling.text(path);
    case "float64":
      return filling.number(path);
    case "boolean":
      return variant % 2 === 0;
    case "null":
      return null;
    case "bytes":
      return new ArrayBuffer(0);
    case "literal":
      return shape.value;
    case "id":
      // Nothing is scheduled for a row that nobody works on.
      if (!TABLE_NAMES.includes(shape.tableName)) return undefined;
      if (referred && shape.isOptional === "optional") return undefined;
      return await insertRow(t, shape.tableName, { ...making, referred: true });
    case "array": {
      const element = await valueOf(t, shape.element, making);
      return element === undefined ? [] : [element];
    }
    case "record":
      return {};
    case "union": {
      const member = shape.members[variant % shape.members.length];
      return member === undefined ? undefined : await valueOf(t, member, making);
    }
    case "object": {
      const fields: Record<string, Value> = {};
      for (const [name, field] of Object.entries(shape.fields)) {
        const value = await valueOf(t, field, { ...making, path: `${path}.${name}` });
        if (value !== undefined) fields[name] = value;
      }
      return fields;
    }
  }
}

/** Members of the widest union within a shape; 1 where there is none. */
function width(shape: Shape): number {
  switch (shape.kind) {
    case "array":
      return width(shape.element);
    case "record":
      return width(shape.value);
    case "object":
      return Math.max(1, ...Object.values(shape.fields).map(width));
    case "union":
      return Math.max(shape.members.length, ...shape.members.map(width));
    case "boolean":
    case "bytes":
    case "float64":
    case "id":
    case "literal":
    case "null":
    case "string":
      return 1;
  }
}
