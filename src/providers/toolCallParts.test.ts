import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { TOOL_CALLS_MAX, ToolCallParts } from "./toolCallParts";

const NAMES = ["search", "search_web", "get_current_time"];

/** The calls that come of deltas, each a list of parts. */
function callsOf(deltas: readonly (readonly unknown[])[], names: readonly string[] | null = NAMES) {
  const parts = new ToolCallParts(names);
  const said = deltas.flatMap((delta) => parts.push(delta));
  said.push(...parts.finish());
  return { calls: parts.whole(), said };
}

const fn = (fields: object, more: object = {}) => ({ ...more, function: fields });
const whole = (deltas: readonly (readonly unknown[])[]) =>
  callsOf(deltas).calls.map(({ argumentsText, id, name }) => [id, name, argumentsText]);

describe("parts of one call", () => {
  const ID = { id: "a", function: {} };
  const NAME = fn({ name: "search_web" });
  const FIRST = fn({ arguments: '{"query":' });
  const SECOND = fn({ arguments: '"x"}' });

  test.each([
    [
      "as OpenAI sends them",
      [fn({ name: "search_web", arguments: "" }, { id: "a" }), FIRST, SECOND],
    ],
    ["the arguments first", [FIRST, SECOND, NAME, ID]],
    ["the name between the arguments", [FIRST, NAME, SECOND, ID]],
    ["the id last", [NAME, FIRST, SECOND, ID]],
    ["the name in pieces", [fn({ name: "sea" }), FIRST, fn({ name: "rch_web" }), SECOND, ID]],
    [
      "id and name repeated",
      [
        { ...FIRST, id: "a", function: { ...FIRST.function, name: "search_web" } },
        { ...SECOND, id: "a", function: { ...SECOND.function, name: "search_web" } },
      ],
    ],
    [
      "the arguments an object",
      [fn({ name: "search_web", arguments: { query: "x" } }, { id: "a" })],
    ],
    [
      "without a function around them",
      [{ id: "a", name: "search_web", arguments: '{"query":"x"}' }],
    ],
    [
      "the whole repeated at the end",
      [NAME, FIRST, SECOND, fn({ name: "search_web", arguments: '{"query":"x"}' }, { id: "a" })],
    ],
  ])("are put together, %s", (_, parts) => {
    for (const index of [{ index: 0 }, { index: "0" }, {}])
      expect(whole(parts.map((part) => [{ ...index, ...part }]))).toEqual([
        ["a", "search_web", '{"query":"x"}'],
      ]);
  });

  test("are told once: the start before the arguments, which are whole together", () => {
    const { said } = callsOf([[FIRST], [NAME], [SECOND], [ID]]);
    expect(said).toEqual([
      { kind: "tool_call_start", index: 0, id: "call_0", name: "search_web" },
      { kind: "tool_call_delta", index: 0, id: "call_0", argumentsText: '{"query":' },
      { kind: "tool_call_delta", index: 0, id: "call_0", argumentsText: '"x"}' },
    ]);
  });

  test("a name that another one continues is told when nothing can follow", () => {
    const { said } = callsOf([[fn({ name: "search", arguments: "{}" }, { index: 0 })]]);
    expect(said.map(({ kind }) => kind)).toEqual(["tool_call_start", "tool_call_delta"]);
    const parts = new ToolCallParts(NAMES);
    expect(parts.push([fn({ name: "search", arguments: "{}" }, { index: 0 })])).toEqual([]);
    // The next call says that this one is over.
    expect(parts.push([fn({ name: "get_current_time" }, { index: 1 })])).toMatchObject([
      { kind: "tool_call_start", index: 1, name: "get_current_time" },
    ]);
    expect(parts.finish()).toMatchObject([
      { kind: "tool_call_start", index: 0, name: "search" },
      {},
    ]);
  });

  test("are put together where only later ones have an index", () => {
    const name = { index: 0, id: "a", function: { name: "search_web" } };
    const other = { index: 1, function: { name: "search_web", arguments: '{"query":"y"}' } };
    expect(whole([[FIRST], [name], [other], [{ index: 0, ...SECOND }]])).toEqual([
      ["a", "search_web", '{"query":"x"}'],
      ["call_1", "search_web", '{"query":"y"}'],
    ]);
  });

  test("that were lost are not taken for none: a call does not run without its arguments", () => {
    const deltas = [[{ index: 1, ...FIRST }], [{ index: 0, ...NAME }]];
    expect(callsOf(deltas).calls).toMatchObject([
      { name: "unknown", arguments: null },
      { name: "search_web", arguments: null },
    ]);
    expect(callsOf([[{ index: 0, ...NAME }]]).calls).toMatchObject([{ arguments: {} }]);
  });

  test("without a name are no call", () => {
    expect(callsOf([[fn({ arguments: "{}" }, { index: 0, id: "a" })]])).toEqual({
      calls: [],
      said: [],
    });
  });

  test("fields of the provider's own go along, within a bound", () => {
    const extra_content = { google: { thought_signature: "opaque" } };
    const { calls } = callsOf([[{ ...NAME, index: 0, extra_content }]]);
    expect(calls[0]?.extra).toEqual({ extra_content });
    const inFunction = { index: 0, function: { name: "search_web", thought_signature: "opaque" } };
    expect(callsOf([[inFunction]]).calls[0]?.extra).toEqual({
      function: { thought_signature: "opaque" },
    });
    const large = Array.from({ length: 3 }, (_, i) => ({
      ...NAME,
      index: 0,
      [`x${i}`]: "y".repeat(30_000),
    }));
    expect(callsOf([large]).calls[0]).not.toHaveProperty("extra");
  });

  test("are read in time that grows with their text alone", () => {
    const parts = new ToolCallParts(NAMES);
    parts.push([fn({ name: "search_web", arguments: '{"query":"' }, { index: 0, id: "a" })]);
    // Each ends like an object, and belongs to a text that is not over.
    for (let i = 0; i < 30_000; i++)
      parts.push([fn({ name: "search_web", arguments: "}" }, { index: 0, id: "a" })]);
    expect(parts.overflowed).toBe(false);
    expect(parts.whole()).toMatchObject([{ arguments: null }]);
    parts.push(Array.from({ length: 300 }, () => fn({ arguments: "}" }, { index: 0 })));
    expect(parts.overflowed).toBe(true);
  });
});

describe("several calls", () => {
  const call = (id: string | null, query: string, more: object = {}) =>
    fn({ name: "search_web", arguments: `{"query":"${query}"}` }, { ...more, id });

  test.each([
    ["all of index 0", { index: 0 }],
    ["without index", {}],
  ])("%s are told apart by their ids", (_, place) => {
    expect(whole([[call("a", "x", place)], [call("b", "y", place)]])).toEqual([
      ["a", "search_web", '{"query":"x"}'],
      ["b", "search_web", '{"query":"y"}'],
    ]);
  });

  test.each([
    ["all of index 0", { index: 0 }],
    ["without index", {}],
  ])("%s and without ids are told apart by being whole", (_, place) => {
    for (const deltas of [
      [[call(null, "x", place)], [call(null, "y", place)]],
      [[call(null, "x", place), call(null, "y", place)]],
    ])
      expect(whole(deltas).map(([, , args]) => args)).toEqual(['{"query":"x"}', '{"query":"y"}']);
  });

  test("in one delta without index or id are told apart before their arguments come", () => {
    const named = fn({ name: "search_web", arguments: "" });
    expect(whole([[named, named]])).toHaveLength(2);
  });

  test("with one id are told apart by index, and each keeps the id it was given", () => {
    expect(whole([[call("a", "x", { index: 0 })], [call("a", "y", { index: 1 })]])).toEqual([
      ["a", "search_web", '{"query":"x"}'],
      ["a", "search_web", '{"query":"y"}'],
    ]);
  });

  test("a second object without a name is a call of its own, which has none and cannot run", () => {
    const second = [fn({ arguments: '{"query":"y"}' }, { index: 0 })];
    expect(callsOf([[call("a", "x", { index: 0 })], second]).calls).toMatchObject([
      { name: "search_web", arguments: { query: "x" } },
      { name: "unknown" },
    ]);
    // An empty one before it may only have held its place.
    const empty = [fn({ name: "search_web", arguments: "{}" }, { index: 0, id: "a" })];
    expect(callsOf([empty, second]).calls).toMatchObject([
      { name: "search_web", arguments: null },
      { name: "unknown" },
    ]);
    // Anything else after an object spoils it.
    const rest = [fn({ arguments: "}" }, { index: 0 })];
    expect(callsOf([[call("a", "x", { index: 0 })], rest]).calls).toMatchObject([
      { argumentsText: '{"query":"x"}}', arguments: null },
    ]);
  });

  test.each([
    ["with an index", { index: 0 }],
    ["without", {}],
  ])(
    "whose parts are told apart by nothing do not run with each other's arguments, %s",
    (_, at) => {
      const part = (fields: object, id?: string) => [fn(fields, { ...at, ...(id ? { id } : {}) })];
      const ranWith = (deltas: unknown[][]) =>
        callsOf(deltas, ["get_current_time", "search_products", "search_global"]).calls.map(
          ({ arguments: args, name }) => [name, args],
        );
      // The id of the second comes before its arguments, and its name after them.
      expect(
        ranWith([
          part({ name: "get_current_time" }, "A"),
          part({}, "B"),
          part({ arguments: '{"query":"b"}' }),
          part({ name: "search_products" }),
        ]),
      ).toEqual([
        ["get_current_time", {}],
        ["search_products", { query: "b" }],
      ]);
      // Arguments before id and name, in both.
      expect(
        ranWith([
          part({ arguments: '{"query":"a"}' }),
          part({ name: "search_global" }, "A"),
          part({ arguments: '{"timeZone":"UTC"}' }),
          part({ name: "get_current_time" }, "B"),
        ]),
      ).toEqual([
        ["search_global", { query: "a" }],
        ["get_current_time", { timeZone: "UTC" }],
      ]);
    },
  );

  test("where it cannot be told whose arguments came, neither of two calls runs", () => {
    const at = (fields: object, id?: string) => [fn(fields, { index: 0, ...(id ? { id } : {}) })];
    const { calls } = callsOf([
      at({ name: "get_current_time" }, "A"),
      at({ arguments: '{"query":"b"}' }, "B"),
      at({ name: "search_web" }),
    ]);
    expect(calls).toMatchObject([{ arguments: null }, { arguments: null }]);
  });

  test("a new id for each part is no new call", () => {
    const part = (id: string, args: string) => fn({ arguments: args }, { index: 0, id });
    const deltas = [
      [fn({ name: "search_web" }, { index: 0, id: "r1" })],
      [part("r2", '{"query"')],
      [part("r3", ':"x"}')],
    ];
    expect(whole(deltas)).toEqual([["r1", "search_web", '{"query":"x"}']]);
  });

  test("of one index whose parts come in turns are told apart by the id on each", () => {
    const at = (id: string, fields: object) => [fn(fields, { index: 0, id })];
    const deltas = [
      at("a", { name: "search_web", arguments: "" }),
      at("b", { name: "search_web", arguments: "" }),
      at("a", { arguments: '{"query":"x"}' }),
      at("b", { arguments: '{"query":"y"}' }),
    ];
    expect(whole(deltas)).toEqual([
      ["a", "search_web", '{"query":"x"}'],
      ["b", "search_web", '{"query":"y"}'],
    ]);
  });

  test("beyond the bound are left out", () => {
    const deltas = Array.from({ length: TOOL_CALLS_MAX + 3 }, (_, i) => [
      call(`id${i}`, "x", { index: i }),
    ]);
    expect(callsOf(deltas).calls).toHaveLength(TOOL_CALLS_MAX);
    // Nor is what belongs to one beyond it taken for a part of the last.
    const same = Array.from({ length: TOOL_CALLS_MAX + 1 }, (_, i) => [
      fn({ name: "search_web" }, { index: 0, id: `id${i}` }),
    ]);
    const { calls } = callsOf([...same, [fn({ arguments: "{}" }, { index: 0 })]]);
    expect(calls.at(-1)).toMatchObject({ argumentsText: "" });
  });

  interface Given {
    readonly name: string;
    readonly query: string;
    readonly cuts: readonly number[];
    readonly order: readonly number[];
  }
  const given: fc.Arbitrary<Given> = fc.record({
    name: fc.constantFrom(...NAMES),
    query: fc.string({ maxLength: 12 }),
    cuts: fc.array(fc.nat(40), { maxLength: 4 }),
    order: fc.shuffledSubarray([0, 1], { minLength: 2 }),
  });

  test("however their parts are cut and mixed, come out as they were given", () => {
    fc.assert(
      fc.property(
        fc.array(given, { minLength: 1, maxLength: 5 }),
        fc.infiniteStream(fc.nat()),
        fc.boolean(),
        (calls, picks, hasIndex) => {
          const args = calls.map(({ query }) => JSON.stringify({ query }));
          // Without an index nothing but the id on each part tells calls apart.
          const at = (i: number) => (hasIndex ? { index: i } : { id: `id${i}` });
          const queues = calls.map(({ cuts, name, order }, i) => {
            const marks = [0, ...cuts, args[i]?.length ?? 0].sort((a, b) => a - b);
            const head = [{ ...at(i), id: `id${i}` }, fn({ name }, at(i))];
            return [
              ...order.map((one) => head[one]),
              ...marks
                .slice(1)
                .map((mark, m) => fn({ arguments: args[i]?.slice(marks[m], mark) }, at(i))),
            ];
          });
          const deltas: unknown[][] = [];
          while (queues.some(({ length }) => length > 0)) {
            const left = queues.filter(({ length }) => length > 0);
            deltas.push([left[picks.next().value % left.length]?.shift()]);
          }
          const got = whole(deltas);
          expect(new Set(got.map((one) => JSON.stringify(one)))).toEqual(
            new Set(calls.map(({ name }, i) => JSON.stringify([`id${i}`, name, args[i]]))),
          );
        },
      ),
    );
  });
});
