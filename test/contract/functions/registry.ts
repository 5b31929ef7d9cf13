/** What `convex/` registers, found by looking, with what each function says of itself. */
import { convexTest } from "convex-test";
import { makeFunctionReference } from "convex/server";
import type { Backend, Caller } from "../../edge/backend";
import schema from "../../../convex/schema";

type Kind = "query" | "mutation" | "action";

/** A validator as the platform is told of it. */
export interface Validator {
  readonly type: string;
  readonly value?: unknown;
}

export interface Field {
  readonly fieldType: Validator;
  readonly optional: boolean;
}

export interface Registered {
  readonly kind: Kind;
  readonly isPublic: boolean;
  readonly args: Readonly<Record<string, Field>>;
  /** Null where a function does not say what it returns. */
  readonly returns: Validator | null;
}

/** The fields that the builders of `convex/server` leave on a function. */
interface Exported {
  readonly isQuery?: boolean;
  readonly isMutation?: boolean;
  readonly isAction?: boolean;
  readonly isPublic?: boolean;
  readonly exportArgs?: () => string;
  readonly exportReturns?: () => string;
}

const modules = import.meta.glob<Record<string, unknown>>(
  ["/convex/**/*.ts", "!/convex/**/*.*.ts", "!/convex/_generated/**"],
  { eager: true },
);

/** Every registered function by name, such as `toolCache:get`. */
export const FUNCTIONS: ReadonlyMap<string, Registered> = new Map(
  Object.entries(modules).flatMap(([path, exports]) =>
    Object.entries(exports).flatMap(([name, value]) => {
      const found = registered(Object(value) as Exported);
      const file = path.replace("/convex/", "").replace(".ts", "");
      return found === null ? [] : [[`${file}:${name}`, found] as const];
    }),
  ),
);

function registered(exported: Exported): Registered | null {
  const { exportArgs, exportReturns, isAction, isMutation, isPublic, isQuery } = exported;
  const kind =
    isQuery === true
      ? "query"
      : isMutation === true
        ? "mutation"
        : isAction === true
          ? "action"
          : null;
  if (kind === null) return null;
  const args = JSON.parse(exportArgs?.() ?? "null") as Validator | null;
  return {
    kind,
    isPublic: isPublic === true,
    args: (args?.value ?? {}) as Record<string, Field>,
    returns: JSON.parse(exportReturns?.() ?? "null") as Validator | null,
  };
}

const lazy = import.meta.glob(["/convex/**/*.{ts,js}", "!/convex/**/*.test.ts"]);

/** A backend in which no function is stood in for by another. */
export const whole = (): Backend => convexTest({ schema, modules: lazy });

export type Args = Readonly<Record<string, unknown>>;

/** Calls a function by its name, as the platform's command line does. */
export async function call<Result = unknown>(
  t: Backend | Caller,
  name: string,
  args: Args = {},
): Promise<Result> {
  const ref = { ...args };
  switch (FUNCTIONS.get(name)?.kind) {
    case "query":
      return (await t.query(makeFunctionReference<"query">(name), ref)) as Result;
    case "mutation":
      return (await t.mutation(makeFunctionReference<"mutation">(name), ref)) as Result;
    case "action":
      return (await t.action(makeFunctionReference<"action">(name), ref)) as Result;
    case undefined:
      throw new Error(`there is no function ${name}`);
  }
}

/** Everything that is stored, scheduled functions included. */
export async function dump(t: Backend): Promise<unknown> {
  return await t.run(async (ctx) => {
    const tables = Object.keys(schema.tables) as (keyof (typeof schema)["tables"])[];
    const rows = await Promise.all(tables.map((table) => ctx.db.query(table).collect()));
    return [rows, await ctx.db.system.query("_scheduled_functions").collect()];
  });
}

/** Arguments that each break the contract in one way: a field missing, of another type, or unknown. */
export function wrongArgs(name: string, good: Args): (readonly [string, Args])[] {
  const fields = Object.entries(FUNCTIONS.get(name)?.args ?? {});
  const missing = fields
    .filter(([, { optional }]) => !optional)
    .map(([field]) => {
      const rest = Object.entries(good).filter(([other]) => other !== field);
      return [`without ${field}`, Object.fromEntries(rest)] as const;
    });
  const mistyped = fields
    .filter(([, { fieldType }]) => fieldType.type !== "any")
    .map(([field, { fieldType }]) => {
      const wrong = ["number", "bigint"].includes(fieldType.type) ? "7" : WRONG;
      return [`with another ${field}`, { ...good, [field]: wrong }] as const;
    });
  return [...missing, ...mistyped, ["with a field too many", { ...good, unknownField: 1 }]];
}

/** Fits no validator of ours but that of anything. */
const WRONG = { neither: ["this", "nor", "that"] };
