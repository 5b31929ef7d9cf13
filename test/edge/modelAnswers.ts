import fc from "fast-check";
import { expect } from "vitest";
import { historyFault } from "../../src/sim/strictHistory";
import { list, record, text as textOf } from "../../src/sim/json";
import {
  Conversation,
  delta,
  DONE,
  finish,
  part,
  type Stream,
  shownFault,
  text,
} from "./conversation";

/** What models and what stands between them and us make of a call. */
const IDS = [
  null,
  "",
  "a",
  "b",
  "tool:0",
  "tool:1",
  "call_0",
  "functions.x:0",
  "é".repeat(50),
  7,
  "\ud83e",
];
const NAMES = [
  "get_current_time",
  "search_web",
  "search_products",
  "no_such",
  "odd name!",
  "",
  null,
];
const ARGUMENTS = [
  "{}",
  '{"timeZone":"UTC"}',
  '{"query":"é🧭","limit":3}',
  "",
  '{"timeZone":"UT',
  "[1]",
  "null",
  '"text"',
  '"{\\"query\\":\\"twice\\"}"',
  '{"query":"\\ud800"}',
  '{}{"query":"x"}',
  `{"a":${"[".repeat(40)}${"]".repeat(40)}}`,
  "\u2028",
];

interface MadeCall {
  readonly id: string | number | null;
  readonly name: string | null;
  readonly args: string;
  readonly index: "own" | "zero" | "none" | "word";
  readonly form: "whole" | "parts" | "backwards" | "object" | "repeated";
}

const madeCall: fc.Arbitrary<MadeCall> = fc.record({
  id: fc.constantFrom(...IDS),
  name: fc.constantFrom(...NAMES),
  args: fc.constantFrom(...ARGUMENTS),
  index: fc.constantFrom("own", "own", "zero", "none", "word"),
  form: fc.constantFrom("whole", "parts", "backwards", "object", "repeated"),
});

const madeAnswer = fc.record({
  before: fc.constantFrom("", "Let me look. ", "half \ud83e"),
  calls: fc.array(madeCall, { maxLength: 4 }),
  isMixed: fc.boolean(),
  after: fc.constantFrom("", "Done."),
  finish: fc.constantFrom("tool_calls", "tool_calls", "stop", "length", "content_filter", null),
  /** Frames that arrive before the stream ends early; null for all of them. */
  cut: fc.option(fc.nat(8), { nil: null, freq: 6 }),
  chunk: fc.integer({ min: 1, max: 400 }),
});
type MadeAnswer = typeof madeAnswer extends fc.Arbitrary<infer T> ? T : never;

/** The parts in which one call arrives. */
function partsOf(made: MadeCall, place: number): string[] {
  const { args, form, id, name } = made;
  const index = { own: place, zero: 0, none: undefined, word: String(place) }[made.index];
  const at = index === undefined ? {} : { index };
  const middle = args.length >> 1;
  const half = (name ?? "").length >> 1;
  switch (form) {
    case "whole":
      return [part({ ...at, id, function: { name, arguments: args } })];
    case "parts":
      return [
        part({ ...at, id, function: { name, arguments: "" } }),
        part({ ...at, function: { arguments: args.slice(0, middle) } }),
        part({ ...at, function: { arguments: args.slice(middle) } }),
      ];
    case "backwards":
      return [
        part({ ...at, function: { arguments: args.slice(0, middle) } }),
        part({ ...at, function: { arguments: args.slice(middle) } }),
        part({ ...at, function: { name: (name ?? "").slice(0, half) } }),
        part({ ...at, function: { name: (name ?? "").slice(half) } }),
        part({ ...at, id }),
      ];
    case "object":
      return [part({ ...at, id, function: { name, arguments: objectOf(args) } })];
    case "repeated":
      return [
        part({ ...at, id, function: { name, arguments: args.slice(0, middle) } }),
        part({ ...at, id, function: { name, arguments: args.slice(middle) } }),
      ];
  }
}

function objectOf(args: string): unknown {
  try {
    return JSON.parse(args) as unknown;
  } catch {
    return args;
  }
}

function streamOf(made: MadeAnswer): Stream {
  const calls = made.calls.map(partsOf);
  const longest = Math.max(0, ...calls.map(({ length }) => length));
  // One after the other, or in turns.
  const parts = made.isMixed
    ? Array.from({ length: longest }, (_, i) => calls.flatMap((one) => one[i] ?? [])).flat()
    : calls.flat();
  const frames = [
    ...(made.before === "" ? [] : [text(made.before)]),
    delta({ reasoning_details: [{ type: "reasoning.encrypted", data: "x", id: "a" }] }),
    ...parts,
    ...(made.after === "" ? [] : [text(made.after)]),
    ...(made.finish === null ? [] : [finish(made.finish), DONE]),
  ];
  const whole = frames.slice(0, made.cut ?? frames.length).join("");
  return whole.match(new RegExp(`[^]{1,${made.chunk}}`, "g")) ?? [];
}

/** Whether each call that really ran is answered with what it itself was told. */
function mixedUp(messages: readonly Readonly<Record<string, unknown>>[]): string | null {
  for (const [i, message] of messages.entries())
    for (const call of list(message["tool_calls"]).map(record)) {
      const id = textOf(call["id"]);
      const result = messages.slice(i + 1).find((next) => next["tool_call_id"] === id);
      const said = record(objectOf(textOf(result?.["content"])));
      if (said["ran"] === undefined) continue;
      const { arguments: args, name } = record(call["function"]);
      const given: unknown = JSON.parse(textOf(args));
      if (said["ran"] !== name || JSON.stringify(said["with"]) !== JSON.stringify(given))
        return `${JSON.stringify(call)} was told ${JSON.stringify(said)}`;
    }
  return null;
}

/**
 * Holds for any sequence of model answers, so many of them generated: the provider is sent a history
 * that a strict one takes, every call that ran is answered with its own result, and the frontend is
 * shown each call once, ended.
 */
export async function holdsForAnyAnswers(numRuns: number): Promise<void> {
  await fc.assert(fc.asyncProperty(threads, chances, holds), { numRuns });
}

const threads = fc.array(fc.array(madeAnswer, { minLength: 1, maxLength: 4 }), {
  minLength: 1,
  maxLength: 3,
});
const chances = fc.infiniteStream(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }));

async function holds(
  turns: readonly (readonly MadeAnswer[])[],
  chance: fc.Stream<number>,
): Promise<void> {
  const talk = new Conversation(() => chance.next().value as number);
  const shown = new Set<string>();
  for (const [i, answers] of turns.entries()) {
    const webSearch = i % 2 === 0;
    const seen = await talk.turn(`question ${i}`, answers.map(streamOf), { webSearch });
    for (const messages of [...seen.requests, talk.next()]) {
      expect(historyFault(messages.map(record))).toBeNull();
      expect(mixedUp(messages.map(record))).toBeNull();
    }
    expect(shownFault(seen.events, shown)).toBeNull();
    const ends = seen.events.filter(({ type }) => ["done", "error"].includes(type));
    expect(ends).toHaveLength(1);
    for (const { arguments: args, name } of seen.ran) {
      expect(seen.offered[0]).toContain(name);
      expect(args).not.toBeNull();
    }
    // What is stored is Unicode: a database would refuse anything else, and the turn never end.
    expect(JSON.stringify(seen.result)).not.toMatch(/(?<!\\)\\ud[89a-f]/);
    const { toolCalls, toolResults } = seen.result;
    expect(toolResults.map(({ toolCallId }) => toolCallId)).toEqual(toolCalls.map(({ id }) => id));
  }
}
