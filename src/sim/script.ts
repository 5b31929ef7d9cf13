import { type CallManner, DIRECTIVES, type DirectiveName, mannersOf } from "./directives";
import { parseJson } from "./json";

/** A tool call that a prompt asks for; `argumentsText` is sent as it is written, valid JSON or not. */
export interface ScriptedCall {
  readonly name: string;
  readonly argumentsText: string;
}

/** How the answer ends. Everything but `stop` is provoked by the prompt. */
export type Ending =
  | { readonly kind: "stop" }
  | { readonly kind: "length" }
  | { readonly kind: "content_filter" }
  /** An error frame after HTTP 200; with `bare` it comes without any choice. */
  | { readonly kind: "in_band"; readonly code: number | string; readonly bare: boolean }
  /** HTTP error before the first byte. */
  | { readonly kind: "refused"; readonly status: number }
  /** The body ends without finish reason and without the end mark. */
  | { readonly kind: "eof" }
  /** The connection breaks. */
  | { readonly kind: "cut" }
  /** The connection stays open and silent. */
  | { readonly kind: "hang" }
  /** The last frame has an error as a text beside its finish reason, which is `stop`. */
  | { readonly kind: "error_text" }
  /** One frame is no JSON. */
  | { readonly kind: "bad_json" }
  /** A success without any text. */
  | { readonly kind: "empty" };

export interface Script {
  /** Calls in the order written; those with nothing but spaces between them belong together. */
  readonly groups: readonly (readonly ScriptedCall[])[];
  readonly ending: Ending;
  /** Words in the answer; null lets the model decide. */
  readonly words: number | null;
  readonly reason: boolean;
  /** How calls are made, where it differs from OpenRouter's own way. */
  readonly manners: ReadonlySet<CallManner>;
  /** Text beside the calls; empty for none. */
  readonly say: string;
  /** Text comes as a list of parts. */
  readonly parts: boolean;
  /** The text holds characters at which some clients end a line. */
  readonly lines: boolean;
  /** Events without content come between the frames. */
  readonly pings: boolean;
  /** The last frame has no blank line. */
  readonly unended: boolean;
  /** Before each text frame. */
  readonly slowMs: number;
  /** Before the first text frame. */
  readonly waitMs: number;
  /** Bytes per write; null tears only multi-byte characters. */
  readonly splitBytes: number | null;
  /** The ending and the pauses apply to models whose id contains this. */
  readonly onlyModel: string;
  /** What the user wrote, without directives. */
  readonly prose: string;
}

const WORDS_MAX = 20_000;
const PAUSE_MS_MAX = 10 * 60_000;

/** Reads the directives of a prompt, as `DIRECTIVES` has them. Others are ordinary text. */
export function parseScript(prompt: string): Script {
  const groups: ScriptedCall[][] = [];
  const settings: Settings = new Map();
  let prose = "";
  let group: ScriptedCall[] | null = null;
  let at = 0;
  while (at < prompt.length) {
    const call = prompt.startsWith(TOOL, at) ? readCall(prompt, at) : null;
    if (call !== null) {
      if (group === null) groups.push((group = []));
      group.push(call);
      at = call.end;
      continue;
    }
    const setting = readSetting(prompt, at);
    if (setting !== null) {
      settings.set(setting.name, setting.value);
      at = setting.end;
      continue;
    }
    const char = prompt.charAt(at);
    // Text between two calls says that the second waits for the first.
    if (char.trim() !== "") group = null;
    prose += char;
    at += 1;
  }
  return {
    groups: groups.map((calls) =>
      calls.map(({ name, argumentsText }) => ({ name, argumentsText })),
    ),
    ending: endingOf(settings),
    words: settings.has("words") ? wholeNumber(settings.get("words"), WORDS_MAX) : null,
    reason: settings.has("reason"),
    manners: mannersOf(settings.get("calls") ?? ""),
    say: settings.get("say") ?? "",
    parts: settings.has("parts"),
    lines: settings.has("lines"),
    pings: settings.has("pings"),
    unended: settings.has("unended"),
    slowMs: wholeNumber(settings.get("slow"), PAUSE_MS_MAX),
    waitMs: wholeNumber(settings.get("wait"), PAUSE_MS_MAX),
    splitBytes: settings.has("split")
      ? Math.max(1, wholeNumber(settings.get("split"), 65_536))
      : null,
    onlyModel: settings.get("only") ?? "",
    prose: prose.replaceAll(/\s+/g, " ").trim(),
  };
}

const TOOL = "[[tool:";
const SETTING = /\[\[([a-z]+)(?::([^\]]{0,200}))?\]\]/y;

type Settings = Map<DirectiveName, string>;

const isDirective = (name: string): name is DirectiveName =>
  name !== "tool" && Object.hasOwn(DIRECTIVES, name);

function readSetting(prompt: string, at: number) {
  SETTING.lastIndex = at;
  const match = SETTING.exec(prompt);
  const [, name = "", value = ""] = match ?? [];
  return isDirective(name) ? { name, value, end: SETTING.lastIndex } : null;
}

interface ReadCall extends ScriptedCall {
  readonly end: number;
}

/** JSON may itself contain `]]`, so the first closing mark that leaves valid JSON is the end. */
function readCall(prompt: string, start: number): ReadCall | null {
  const head = /^\[\[tool:([A-Za-z0-9_-]{1,64})\s*/.exec(prompt.slice(start, start + 100));
  if (head?.[1] === undefined) return null;
  const from = start + head[0].length;
  let first: ReadCall | null = null;
  for (
    let close = prompt.indexOf("]]", from);
    close >= 0;
    close = prompt.indexOf("]]", close + 1)
  ) {
    const argumentsText = prompt.slice(from, close).trim() || "{}";
    const call = { name: head[1], argumentsText, end: close + 2 };
    first ??= call;
    if (parseJson(argumentsText) !== undefined) return call;
    // A later call's closing mark is not this one's.
    if (prompt.slice(from, close).includes("[[tool:")) break;
  }
  return first;
}

function endingOf(settings: Settings): Ending {
  const finish = settings.get("finish");
  if (finish === "length" || finish === "content_filter") return { kind: finish };
  if (settings.has("eof")) return { kind: "eof" };
  if (settings.has("cut")) return { kind: "cut" };
  if (settings.has("hang")) return { kind: "hang" };
  if (settings.has("badjson")) return { kind: "bad_json" };
  if (settings.has("empty")) return { kind: "empty" };
  const [error, code] = settings.get("error")?.split(":") ?? [];
  if (error === "text") return { kind: "error_text" };
  if (error === "inband" || error === "bare")
    return { kind: "in_band", code: inBandCode(code), bare: error === "bare" };
  const status = wholeNumber(error, 599);
  return status >= 400 ? { kind: "refused", status } : { kind: "stop" };
}

/** Most in-band errors carry a status; some pass on the word of the provider behind. */
function inBandCode(source: string | undefined): number | string {
  if (/^[a-z][a-z_]{0,60}$/.test(source ?? "")) return source ?? "";
  return wholeNumber(source, 599) || 502;
}

function wholeNumber(source: string | undefined, max: number): number {
  return /^\d{1,9}$/.test(source ?? "") ? Math.min(Number(source), max) : 0;
}
