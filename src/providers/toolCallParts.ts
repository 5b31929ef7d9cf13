/**
 * Tool calls put together from the parts in which providers stream them. The shape is OpenAI's, but
 * providers differ in what a part holds: all calls under index 0, the id or the name after the
 * arguments, a name in pieces or repeated, arguments as an object, no index, no id.
 */
import { KIB } from "../core/bytes";
import { wellFormed } from "../core/wellFormed";
import type { ChatDelta, ToolCall } from "./chat";
import { asArray, asNumber, asObject, type Json } from "./json";
import { parseArguments } from "./toolArguments";

/** Tool calls in one answer, beyond which the rest is ignored. */
export const TOOL_CALLS_MAX = 32;

/** Longest arguments of one call, in characters, beyond which the answer is cut as faulty. */
export const TOOL_ARGUMENTS_CHARS_MAX = 32 * KIB;

/** Longest name or id; a longer one is none. */
const WORD_CHARS_MAX = 256;

interface OpenCall {
  /** Its place in the answer, counted from 0; what the provider calls its index may repeat. */
  readonly place: number;
  /** The provider's index; null where it has sent none so far. */
  index: number | null;
  id: string | null;
  name: string;
  argumentsText: string;
  /** Told to the reader: from then on the name stays as it is. */
  started: boolean;
  /** Fields beside the function that belong to the provider, such as a signature. */
  extra: Json;
}

/** One part, reduced to what it says. */
interface Part {
  readonly index: number | null;
  readonly id: string | null;
  readonly name: string | null;
  /** A string is a piece of the text, an object is all of it; null says nothing. */
  readonly args: string | Json | null;
  readonly extra: Json;
}

/** The parts of a delta that speak of calls, in whichever field. */
export function callParts(delta: Json | null): readonly unknown[] {
  const calls = delta?.["tool_calls"];
  const single = asObject(calls);
  // The form that came before tools: one call, without id or index.
  const legacy = asObject(delta?.["function_call"]);
  return [
    ...(single === null ? asArray(calls) : [single]),
    ...(legacy === null ? [] : [{ function: legacy }]),
  ];
}

export class ToolCallParts {
  private readonly calls: OpenCall[] = [];
  /** Names that may be called; null where they are not known, and any name is whole as it comes. */
  private readonly names: readonly string[] | null;
  /** True once the arguments of one call are longer than any honest ones. */
  overflowed = false;

  constructor(names: readonly string[] | null) {
    this.names = names;
  }

  /** How many calls have a name, so that a reader may have been told of them. */
  get named(): number {
    return this.calls.filter(({ name }) => name !== "").length;
  }

  /** Takes the parts of one delta and returns what they complete. */
  push(parts: readonly unknown[]): ChatDelta[] {
    const told = new Set<OpenCall>();
    return parts.flatMap((value) => {
      const source = asObject(value);
      return source === null ? [] : this.take(readPart(source), told);
    });
  }

  private take(part: Part, told: Set<OpenCall>): ChatDelta[] {
    const known = this.callOf(part);
    // Where nothing else tells calls apart, each entry of one delta is a call of its own.
    const isListed =
      known !== null && part.index === null && part.id === null && part.name !== null;
    const isNext =
      known !== null && (this.opensAnother(part, known) || (isListed && told.has(known)));
    const continues = known !== null && !isNext;
    const call = continues ? known : this.open(part);
    if (call === null) return [];
    told.add(call);
    // The call before is whole: nothing can be added to its name any more.
    const deltas = continues || known === null ? [] : this.start(known);
    call.id ??= part.id;
    call.index ??= part.index;
    if (part.name !== null && !call.started && part.name !== call.name) call.name += part.name;
    call.extra = { ...call.extra, ...part.extra };
    const added = this.addArguments(call, part.args);
    if (this.overflowed) return deltas;
    if (!call.started) return [...deltas, ...(this.isNameWhole(call) ? this.start(call) : [])];
    return added === "" ? deltas : [...deltas, deltaOf(call, added)];
  }

  /** Tells of the calls that waited for more of their name: none comes after the finish reason. */
  finish(): ChatDelta[] {
    return this.calls.flatMap((call) => this.start(call));
  }

  /**
   * The calls that have a name; what never got one can be neither shown nor run. Where it had
   * arguments they may be those of a call that seems to have none, which then does not run.
   */
  whole(): ToolCall[] {
    const isLost = this.calls.some(
      ({ argumentsText, name }) => name === "" && argumentsText !== "",
    );
    return this.calls.flatMap(({ argumentsText, extra, id, name, place }) => {
      if (name === "") return [];
      const isUnsure = isLost && argumentsText === "";
      return [
        {
          index: place,
          id: id ?? idOfPlace(place),
          name,
          argumentsText,
          arguments: isUnsure ? null : parseArguments(argumentsText),
          ...(Object.keys(extra).length === 0 ? {} : { extra }),
        },
      ];
    });
  }

  /** The call that a part may continue: of its index and, among those, of its id; else the newest. */
  private callOf({ id, index }: Part): OpenCall | null {
    const last = this.calls.at(-1) ?? null;
    if (index !== null) {
      const same = this.calls.filter((call) => call.index === index);
      const known = same.findLast((call) => id !== null && call.id === id) ?? same.at(-1);
      // The first parts of a call may have come without an index.
      return known ?? (last?.index === null ? last : null);
    }
    return this.calls.findLast((call) => id !== null && call.id === id) ?? last;
  }

  /** Whether a part begins a call of its own although an earlier one has its index or its id. */
  private opensAnother({ args, id, index, name }: Part, call: OpenCall): boolean {
    const isWhole = isWholeObject(call.argumentsText);
    const isOtherId = id !== null && call.id !== null && id !== call.id;
    // Some providers make up a new id for every part: only a name, or a call that is over, or the
    // lack of an index makes another call of it.
    if (isOtherId && (name !== null || isWhole || index === null)) return true;
    if (name !== null && !this.mayName(call, name)) return true;
    // Nothing continues a whole object; the same one again is only a repetition.
    const isMore = args !== null && args !== "" && textOf(args) !== call.argumentsText;
    return name !== null && isWhole && isMore;
  }

  /** Whether a name fits a call: as its first, the same again, or the next piece of it. */
  private mayName({ name, started }: OpenCall, piece: string): boolean {
    if (name === "" || piece === name) return true;
    return !started && this.longer(name + piece, true);
  }

  private isNameWhole({ name }: OpenCall): boolean {
    return name !== "" && !this.longer(name, false);
  }

  /** Whether a tool's name begins with this text and is longer than it, or the same where that counts. */
  private longer(text: string, orSame: boolean): boolean {
    return (this.names ?? []).some(
      (name) => name.startsWith(text) && (orSame || name.length > text.length),
    );
  }

  private open({ index, id, extra }: Part): OpenCall | null {
    const place = this.calls.length;
    if (place >= TOOL_CALLS_MAX) return null;
    const call = { place, index, id, name: "", argumentsText: "", started: false, extra };
    this.calls.push(call);
    return call;
  }

  /** Adds arguments to a call; returns the text that was added. */
  private addArguments(call: OpenCall, args: Part["args"]): string {
    if (args === null) return "";
    const text = textOf(args);
    const isRepeated = text === call.argumentsText && isWholeObject(text);
    if (isRepeated) return "";
    if (call.argumentsText.length + text.length > TOOL_ARGUMENTS_CHARS_MAX) {
      this.overflowed = true;
      return "";
    }
    call.argumentsText += text;
    return text;
  }

  private start(call: OpenCall): ChatDelta[] {
    if (call.started || call.name === "") return [];
    call.started = true;
    const id = call.id ?? idOfPlace(call.place);
    const start = { kind: "tool_call_start", index: call.place, id, name: call.name } as const;
    return call.argumentsText === "" ? [start] : [start, deltaOf(call, call.argumentsText)];
  }
}

const idOfPlace = (place: number): string => `call_${place}`;

const deltaOf = (call: OpenCall, argumentsText: string): ChatDelta => ({
  kind: "tool_call_delta",
  index: call.place,
  id: call.id ?? idOfPlace(call.place),
  argumentsText,
});

const textOf = (args: string | Json): string =>
  typeof args === "string" ? args : JSON.stringify(args);

/** A text that is one whole object, so that whatever follows it belongs to something else. */
function isWholeObject(argumentsText: string): boolean {
  return argumentsText.trimEnd().endsWith("}") && parseArguments(argumentsText) !== null;
}

/** Fields of a part that are read here; all others are the provider's own. */
const READ: ReadonlySet<string> = new Set(["index", "id", "type", "function", "name", "arguments"]);

function readPart(source: Json): Part {
  // A few send the fields of the function beside it, or in its place.
  const fn = asObject(source["function"]) ?? source;
  return {
    index: indexOf(source["index"]),
    id: wordOf(source["id"]),
    name: wordOf(fn["name"]),
    args: argumentsOf(fn["arguments"]),
    extra: Object.fromEntries(Object.entries(source).filter(([field]) => !READ.has(field))),
  };
}

function indexOf(value: unknown): number | null {
  return asNumber(typeof value === "string" && /^\d{1,9}$/.test(value) ? Number(value) : value);
}

function wordOf(value: unknown): string | null {
  const text = typeof value === "number" ? String(value) : value;
  if (typeof text !== "string") return null;
  // It is stored, and no store holds half a character.
  const word = wellFormed(text.trim());
  return word === "" || word.length > WORD_CHARS_MAX ? null : word;
}

function argumentsOf(value: unknown): Part["args"] {
  if (value === null || value === undefined) return null;
  if (typeof value === "string") return value === "" ? null : value;
  // What is neither text nor object is kept as text, so that the call is refused for it.
  return asObject(value) ?? JSON.stringify(value);
}
