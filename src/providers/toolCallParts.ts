/**
 * Tool calls put together from the parts in which providers stream them. The shape is OpenAI's, but
 * providers differ in what a part holds: all calls under index 0, the id or the name after the
 * arguments, a name in pieces or repeated, arguments as an object, no index, no id.
 */
import { KIB } from "../core/bytes";
import { ObjectScan } from "../core/jsonText";
import { deepWellFormed, wellFormed } from "../core/wellFormed";
import type { ChatDelta, ToolCall } from "./chat";
import { asArray, asNumber, asObject, type Json } from "./json";
import { parseArguments } from "./toolArguments";

/** Tool calls in one answer, beyond which the rest is ignored. */
export const TOOL_CALLS_MAX = 32;

/** Longest arguments of one call, in characters, beyond which the answer is cut as faulty. */
export const TOOL_ARGUMENTS_CHARS_MAX = 32 * KIB;

/** Longest name; a longer one is none. */
const NAME_CHARS_MAX = 256;
/** Longest id: some providers put what they want back into it. A longer one is none. */
const ID_CHARS_MAX = 8 * KIB;
/** Characters of all fields of the provider's own in one answer; of more, none is kept. */
const EXTRA_CHARS_MAX = 64 * KIB;
/** Parts of one delta, beyond which the answer is cut as faulty. */
const PARTS_MAX = 256;

interface OpenCall {
  /** Its place in the answer, counted from 0; what the provider calls its index may repeat. */
  readonly place: number;
  /** The provider's index; null where it has sent none so far. */
  index: number | null;
  id: string | null;
  name: string;
  argumentsText: string;
  /** Whether the arguments are one whole object. */
  readonly scan: ObjectScan;
  /** Told to the reader: from then on the name stays as it is. */
  started: boolean;
  /** It took arguments of a part with another id, which may have belonged to another call. */
  hasTaken: boolean;
  /** Whose arguments these are cannot be told, so that the call must not run. */
  isUnsure: boolean;
  /** Fields beside those that are read here, which belong to the provider, such as a signature. */
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
  private extraChars = 0;
  /** A call beyond the bound came: what follows may be its own, so that nothing more is read. */
  private isFull = false;
  /** True once the parts, or the arguments of one call, are more than any honest ones. */
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
    if (parts.length > PARTS_MAX) this.overflowed = true;
    const told = new Set<OpenCall>();
    return parts.slice(0, PARTS_MAX).flatMap((value) => {
      const source = asObject(value);
      return source === null || this.isFull ? [] : this.take(readPart(source), told);
    });
  }

  private take(part: Part, told: Set<OpenCall>): ChatDelta[] {
    const known = this.callOf(part);
    // Where nothing else tells calls apart, each entry of one delta is a call of its own.
    const isListed =
      known !== null && part.index === null && part.id === null && part.name !== null;
    const isNext =
      known !== null && (this.opensAnother(part, known) || (isListed && told.has(known)));
    const call = known === null || isNext ? this.open(part) : known;
    if (call === null) return [];
    told.add(call);
    // A call that took what may have been this one's: neither is known to have its own arguments.
    if (isNext && known.hasTaken) call.isUnsure = known.isUnsure = true;
    // The call before is whole: nothing can be added to its name any more.
    const deltas = isNext ? this.start(known) : [];
    call.hasTaken ||= part.args !== null && isOther(part.id, call.id);
    call.id ??= part.id;
    call.index ??= part.index;
    if (part.name !== null && !call.started && part.name !== call.name) call.name += part.name;
    this.addExtra(call, part.extra);
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
   * The calls of the answer. One that never got a name cannot run; it is refused where it has
   * arguments, and no call that seems to have none runs beside it, for they may be its own.
   */
  whole(): ToolCall[] {
    if (this.named === 0) return [];
    const isLost = this.calls.some(
      ({ argumentsText, name }) => name === "" && argumentsText !== "",
    );
    const isKept = this.extraChars <= EXTRA_CHARS_MAX;
    return this.calls.flatMap(({ argumentsText, extra, id, isUnsure, name, place }) => {
      if (name === "" && argumentsText === "") return [];
      const args = parseArguments(argumentsText);
      const isBare = args !== null && Object.keys(args).length === 0;
      return [
        {
          index: place,
          id: id ?? idOfPlace(place),
          name: name === "" ? UNNAMED : name,
          argumentsText,
          arguments: isUnsure || (isLost && isBare) ? null : args,
          ...(isKept && Object.keys(extra).length > 0 ? { extra: deepWellFormed(extra) } : {}),
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
    const { isOver } = call.scan;
    // Some providers make up a new id for every part: only a name, a call that is over, the lack of
    // an index, or an id that comes alone makes another call of it.
    if (isOther(id, call.id) && (name !== null || isOver || index === null || args === null))
      return true;
    if (name !== null && !this.mayName(call, name)) return true;
    // Nothing continues a whole object; the same one again is only a repetition.
    if (!isOver || args === null) return false;
    const text = textOf(args);
    if (text === call.argumentsText || text.trim() === "") return false;
    return name !== null || text.trimStart().startsWith("{");
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

  private open({ index, id }: Part): OpenCall | null {
    const place = this.calls.length;
    this.isFull = place >= TOOL_CALLS_MAX;
    if (this.isFull) return null;
    const call: OpenCall = {
      place,
      index,
      id,
      name: "",
      argumentsText: "",
      scan: new ObjectScan(),
      started: false,
      hasTaken: false,
      isUnsure: false,
      extra: {},
    };
    this.calls.push(call);
    return call;
  }

  private addExtra(call: OpenCall, extra: Json): void {
    if (Object.keys(extra).length === 0 || this.extraChars > EXTRA_CHARS_MAX) return;
    this.extraChars += JSON.stringify(extra).length;
    if (this.extraChars <= EXTRA_CHARS_MAX) call.extra = { ...call.extra, ...extra };
  }

  /** Adds arguments to a call; returns the text that was added. */
  private addArguments(call: OpenCall, args: Part["args"]): string {
    if (args === null) return "";
    const text = textOf(args);
    if (text === call.argumentsText && call.scan.isOver) return "";
    if (call.argumentsText.length + text.length > TOOL_ARGUMENTS_CHARS_MAX) {
      this.overflowed = true;
      return "";
    }
    call.argumentsText += text;
    call.scan.push(text);
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

/** What a call without a name is called: no tool. */
const UNNAMED = "unknown";

const isOther = (id: string | null, known: string | null): boolean =>
  id !== null && known !== null && id !== known;

const idOfPlace = (place: number): string => `call_${place}`;

const deltaOf = (call: OpenCall, argumentsText: string): ChatDelta => ({
  kind: "tool_call_delta",
  index: call.place,
  id: call.id ?? idOfPlace(call.place),
  argumentsText,
});

const textOf = (args: string | Json): string =>
  typeof args === "string" ? args : JSON.stringify(args);

/** Fields of a part, and of its function, that are read here; all others are the provider's own. */
const READ: ReadonlySet<string> = new Set(["index", "id", "type", "function"]);
const READ_OF_FUNCTION: ReadonlySet<string> = new Set(["name", "arguments", "parameters", "input"]);

function readPart(source: Json): Part {
  const inner = asObject(source["function"]);
  // A few send the fields of the function in its place.
  const fn = inner ?? source;
  const own = othersOf(source, inner === null ? [READ, READ_OF_FUNCTION] : [READ]);
  const ofFunction = inner === null ? {} : othersOf(inner, [READ_OF_FUNCTION]);
  return {
    index: indexOf(source["index"]),
    id: wordOf(source["id"], ID_CHARS_MAX),
    name: wordOf(fn["name"], NAME_CHARS_MAX),
    args: argumentsOf(fn["arguments"] ?? fn["parameters"] ?? fn["input"]),
    extra: Object.keys(ofFunction).length === 0 ? own : { ...own, function: ofFunction },
  };
}

function othersOf(source: Json, read: readonly ReadonlySet<string>[]): Json {
  const isRead = (field: string): boolean => read.some((fields) => fields.has(field));
  return Object.fromEntries(
    Object.entries(source).filter(([field, value]) => !isRead(field) && value !== null),
  );
}

function indexOf(value: unknown): number | null {
  return asNumber(typeof value === "string" && /^\d{1,9}$/.test(value) ? Number(value) : value);
}

function wordOf(value: unknown, charsMax: number): string | null {
  const text = typeof value === "number" ? String(value) : value;
  if (typeof text !== "string") return null;
  // It is stored, and no store holds half a character.
  const word = wellFormed(text.trim());
  return word === "" || word.length > charsMax ? null : word;
}

function argumentsOf(value: unknown): Part["args"] {
  if (value === null || value === undefined) return null;
  if (typeof value === "string") return value === "" ? null : value;
  // What is neither text nor object is kept as text, so that the call is refused for it.
  return asObject(value) ?? JSON.stringify(value);
}
