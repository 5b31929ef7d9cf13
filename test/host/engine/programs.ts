import {
  makeFunctionReference,
  mutationGeneric,
  queryGeneric,
  type GenericDataModel,
  type GenericDatabaseReader,
  type GenericMutationCtx,
  type GenericQueryCtx,
} from "convex/server";
import { ConvexError, type GenericId, type Value } from "convex/values";
import fc from "fast-check";

/** One bound on an indexed field. */
export interface Bound {
  readonly op: "eq" | "gt" | "gte" | "lt" | "lte";
  readonly value: Value | undefined;
}

export interface Read {
  readonly index: "by_creation_time" | "by_a" | "by_a_b";
  /** On the fields of the index in order: equalities, then at most one lower and one upper bound. */
  readonly bounds: readonly Bound[];
  readonly order: "asc" | "desc";
  readonly filter: "none" | "even" | "a equals" | "negated";
  readonly filterValue: Value;
  readonly how: "collect" | "first" | "take";
  readonly rows: number;
}

export type Fields = Readonly<Record<string, Value | undefined>>;
type Given = Record<string, Value>;

/** A step of a random program; documents are named by the order in which they were inserted. */
export type Step =
  | { readonly kind: "insert"; readonly fields: Fields }
  | { readonly kind: "patch"; readonly document: number; readonly fields: Fields }
  | { readonly kind: "replace"; readonly document: number; readonly fields: Fields }
  | { readonly kind: "delete"; readonly document: number }
  | { readonly kind: "get"; readonly document: number }
  | { readonly kind: "read"; readonly read: Read }
  | { readonly kind: "nested"; readonly steps: readonly Step[]; readonly fails: boolean };

const strings = ["", "a", "a\u0000", "a\u0000b", "b", "é", "￿", "😀"];
const scalar: fc.Arbitrary<Value> = fc.constantFrom<Value[]>(
  null,
  true,
  false,
  0,
  -0,
  1,
  -1.5,
  1e300,
  Infinity,
  -Infinity,
  NaN,
  0n,
  -1n,
  2n ** 63n - 1n,
  -(2n ** 63n),
  ...strings,
);

/** Values of all kinds, nested a little, with plenty of equal ones. */
export const anyValue: fc.Arbitrary<Value> = fc.oneof(
  { weight: 6, arbitrary: scalar },
  fc.uint8Array({ maxLength: 3 }).map((bytes) => new Uint8Array(bytes).buffer),
  fc.array(scalar, { maxLength: 3 }),
  fc.dictionary(fc.constantFrom("x", "y", "z"), scalar, { maxKeys: 3, noNullPrototype: true }),
);

// Few values for the indexed fields, so that ranges hold several documents.
const indexed = fc.oneof<fc.Arbitrary<Value>[]>(
  fc.integer({ min: 0, max: 2 }),
  fc.integer({ min: 0, max: 2 }),
  anyValue,
);
const maybe = (value: fc.Arbitrary<Value>) => fc.option(value, { nil: undefined, freq: 6 });
const fields: fc.Arbitrary<Fields> = fc.record({
  a: maybe(indexed),
  b: maybe(indexed),
  n: fc.integer({ min: 0, max: 9 }),
});

const boundOn = (op: fc.Arbitrary<Bound["op"]>): fc.Arbitrary<Bound> =>
  fc.record({ op, value: maybe(indexed) });
const tail: fc.Arbitrary<Bound[]> = fc.oneof(
  fc.constant<Bound[]>([]),
  fc.tuple(boundOn(fc.constantFrom("gt", "gte"))),
  fc.tuple(boundOn(fc.constantFrom("lt", "lte"))),
  fc.tuple(boundOn(fc.constantFrom("gt", "gte")), boundOn(fc.constantFrom("lt", "lte"))),
);
const equality = boundOn(fc.constant("eq" as const));

const range: fc.Arbitrary<Pick<Read, "index" | "bounds">> = fc.oneof(
  fc.constant({ index: "by_creation_time" as const, bounds: [] }),
  fc.record({ index: fc.constant("by_a" as const), bounds: fc.oneof(tail, fc.tuple(equality)) }),
  fc.record({
    index: fc.constant("by_a_b" as const),
    bounds: fc.oneof(
      tail,
      fc.tuple(equality, tail).map(([first, rest]) => [first, ...rest]),
      fc.tuple(equality, equality),
    ),
  }),
);

export const readArbitrary: fc.Arbitrary<Read> = fc
  .record({
    range,
    order: fc.constantFrom("asc" as const, "desc" as const),
    filter: fc.constantFrom(
      "none" as const,
      "even" as const,
      "a equals" as const,
      "negated" as const,
    ),
    filterValue: indexed,
    how: fc.constantFrom("collect" as const, "first" as const, "take" as const),
    rows: fc.integer({ min: 0, max: 4 }),
  })
  .map(({ range: { index, bounds }, ...rest }) => ({ index, bounds, ...rest }));

const document = fc.nat({ max: 30 });
const flatStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("insert" as const), fields }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("patch" as const), document, fields }) },
  fc.record({ kind: fc.constant("replace" as const), document, fields }),
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("delete" as const), document }) },
  fc.record({ kind: fc.constant("get" as const), document }),
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("read" as const), read: readArbitrary }) },
);
const stepsAt = (depth: number): fc.Arbitrary<Step[]> =>
  fc.array(
    depth === 0
      ? flatStep
      : fc.oneof(
          { weight: 6, arbitrary: flatStep },
          fc.record({
            kind: fc.constant("nested" as const),
            steps: stepsAt(depth - 1),
            fails: fc.boolean(),
          }),
        ),
    { maxLength: depth === 0 ? 5 : 10, size: "max" },
  );

/** The documents a history begins with. */
export const firstStepsArbitrary: fc.Arbitrary<Step[]> = fc.array(
  fc.record({ kind: fc.constant("insert" as const), fields }),
  { minLength: 4, maxLength: 14, size: "max" },
);

/** A mutation: its steps, and whether it throws at the end. */
export const mutationArbitrary = fc.record({ steps: stepsAt(2), fails: fc.boolean() });

/** Runs programs on whatever implements Convex; remembers ids, and hides them in what it reports. */
export class ProgramRunner {
  readonly ids: GenericId<string>[] = [];
  readonly #pending = new Map<string, readonly Step[]>();
  #nextKey = 0;

  /** What a runtime has to register, and under which names. */
  readonly functions = {
    "programs:mutate": mutationGeneric({
      handler: async (ctx: Ctx, { key, fails }: { key: string; fails: boolean }) => {
        const out = await this.#runSteps(ctx, this.#pending.get(key) ?? []);
        if (fails) throw new ConvexError("the program fails");
        return out;
      },
    }),
    "programs:page": queryGeneric({
      handler: async ({ db }: ReadCtx, args: PageArgs) => {
        const [step] = this.#pending.get(args.key) ?? [];
        if (step?.kind !== "read") throw new Error("Only reads have pages.");
        const { numItems, cursor, endCursor } = args;
        const page = await this.#ordered(db, step.read).paginate({ numItems, cursor, endCursor });
        return { ...page, page: page.page.map((row) => this.#show(row)) };
      },
    }),
    "programs:wipe": mutationGeneric({
      handler: async ({ db }: Ctx) => {
        for (const row of await db.query("items").collect()) await db.delete(idOf(row));
      },
    }),
    "programs:state": queryGeneric({
      handler: async ({ db }: ReadCtx) => {
        const rows = await db.query("items").collect();
        return rows.map((row) => this.#show(row as Row | null));
      },
    }),
  };

  /** Makes steps known under a key that goes through the arguments. */
  register(steps: readonly Step[]): string {
    const key = String(this.#nextKey++);
    this.#pending.set(key, steps);
    return key;
  }

  async #runSteps(ctx: Ctx, steps: readonly Step[]): Promise<Value[]> {
    const out: Value[] = [];
    for (const step of steps) {
      try {
        out.push(await this.#runStep(ctx, step));
      } catch {
        // Which errors there are must agree; their words are tested elsewhere.
        out.push("error");
      }
    }
    return out;
  }

  async #runStep(ctx: Ctx, step: Step): Promise<Value> {
    const { db } = ctx;
    switch (step.kind) {
      case "insert":
        this.ids.push(await db.insert("items", step.fields as Given));
        return this.ids.length - 1;
      case "patch":
        await db.patch(this.#id(step.document), step.fields as Given);
        return "patched";
      case "replace":
        await db.replace(this.#id(step.document), step.fields as Given);
        return "replaced";
      case "delete":
        await db.delete(this.#id(step.document));
        return "deleted";
      case "get": {
        const row: Row | null = await db.get(this.#id(step.document));
        return this.#show(row);
      }
      case "read":
        return this.#read(db, step.read);
      case "nested": {
        const { steps, fails } = step;
        return ctx.runMutation(nestedMutation, { key: this.register(steps), fails });
      }
    }
  }

  #id(document: number): GenericId<string> {
    const id = this.ids[document % this.ids.length];
    if (id === undefined) throw new Error("There is no such document yet.");
    return id;
  }

  async #read(db: GenericDatabaseReader<GenericDataModel>, read: Read): Promise<Value> {
    const query = this.#ordered(db, read);
    const rows =
      read.how === "collect"
        ? await query.collect()
        : read.how === "take"
          ? await query.take(read.rows)
          : [await query.first()];
    return rows.map((row) => this.#show(row));
  }

  #ordered(db: GenericDatabaseReader<GenericDataModel>, read: Read) {
    const names = { by_creation_time: [], by_a: ["a"], by_a_b: ["a", "b"] }[read.index];
    const ranged = db.query("items").withIndex(read.index, (builder) => {
      let range = builder as unknown as Record<
        Bound["op"],
        (name: string, value: unknown) => typeof range
      >;
      let place = 0;
      for (const { op, value } of read.bounds) {
        range = range[op](names[place] ?? "", value);
        if (op === "eq") place += 1;
      }
      return range as never;
    });
    const ordered = ranged.order(read.order);
    switch (read.filter) {
      case "none":
        return ordered;
      case "even":
        return ordered.filter((q) => q.eq(q.mod(q.field("n") as never, 2 as never), 0));
      case "a equals":
        return ordered.filter((q) =>
          q.or(q.eq(q.field("a"), read.filterValue), q.gt(q.field("n"), 6)),
        );
      case "negated":
        return ordered.filter((q) =>
          q.not(q.and(q.neq(q.field("b"), read.filterValue), q.lte(q.field("n"), 4))),
        );
    }
  }

  /** A document without what differs between runtimes: its id and the time it was made. */
  #show(row: Row | null): Value {
    if (row === null) return null;
    const { _id, _creationTime, ...rest } = row;
    const place = this.ids.indexOf(_id as GenericId<string>);
    return { ...rest, place, hasTime: typeof _creationTime === "number" };
  }
}

const nestedMutation = makeFunctionReference<"mutation", { key: string; fails: boolean }, Value>(
  "programs:mutate",
);

type Ctx = GenericMutationCtx<GenericDataModel>;
type ReadCtx = GenericQueryCtx<GenericDataModel>;
type Row = Record<string, Value>;

function idOf(row: unknown): GenericId<string> {
  return (row as { _id: GenericId<string> })._id;
}

type PageArgs = {
  readonly key: string;
  readonly numItems: number;
  readonly cursor: string | null;
  readonly endCursor: string | null;
};
