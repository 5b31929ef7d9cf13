import { list, number, parseJson, record, text } from "./json";
import { parseScript, type Ending, type ScriptedCall, type Script } from "./script";
import { seedOf, type Seed } from "./seed";

/** What the simulated model says to one request. */
export interface Turn {
  readonly calls: readonly ScriptedCall[];
  /** Beside calls what the prompt says, else the answer. */
  readonly text: string;
  /** Answers with calls since the last user message. */
  readonly step: number;
  readonly reasoning: string;
  readonly ending: Ending;
  readonly script: Script;
  readonly seed: Seed;
  readonly promptTokens: number;
  readonly cachedTokens: number;
}

/** One token is four bytes of UTF-8, rounded up: near enough, and the same everywhere. */
export function tokensOf(source: string): number {
  return Math.ceil(Buffer.byteLength(source) / 4);
}

/**
 * Decides the next step of a turn from the request alone: the calls already answered since the
 * last user message say which step this is.
 */
export function decideTurn(body: Readonly<Record<string, unknown>>): Turn {
  const messages = list(body["messages"]).map(record);
  const lastUser = messages.findLastIndex((message) => message["role"] === "user");
  const since = messages.slice(lastUser + 1);
  const script = parseScript(contentText(messages[lastUser]?.["content"]));
  const applies = text(body["model"]).includes(script.onlyModel);
  const seed = seedOf("chat", JSON.stringify(body));
  const step = since.filter((message) => list(message["tool_calls"]).length > 0).length;
  const calls = plan(body, script)[step] ?? [];
  const ending: Ending = calls.length > 0 || !applies ? { kind: "stop" } : script.ending;
  const full = calls.length > 0 ? script.say : said(script, since, seed, ending);
  const limited = limitWords(
    full,
    number(body["max_completion_tokens"]) ?? number(body["max_tokens"]),
  );
  const promptTokens = tokensOf(JSON.stringify(messages));
  return {
    calls,
    text: ending.kind === "stop" ? limited : half(limited),
    step,
    reasoning: script.reason
      ? `Let me think about “${script.prose.slice(0, 80)}” step by step.`
      : "",
    ending: ending.kind === "stop" && limited !== full ? { kind: "length" } : ending,
    script: applies ? script : { ...script, slowMs: 0, waitMs: 0 },
    seed,
    promptTokens,
    // A conversation that goes on finds its beginning in the provider's cache.
    cachedTokens: step > 0 ? promptTokens >> 1 : 0,
  };
}

/** The groups of calls of the whole turn, of the tools that are offered. */
function plan(
  body: Readonly<Record<string, unknown>>,
  script: Script,
): readonly (readonly ScriptedCall[])[] {
  if (body["tool_choice"] === "none") return [];
  const offered = new Set(
    list(body["tools"]).map((tool) => text(record(record(tool)["function"])["name"])),
  );
  const isAny = script.manners.has("unoffered");
  const groups = script.groups
    .map((group) => group.filter((call) => isAny || offered.has(call.name)))
    .filter((group) => group.length > 0);
  if (!offered.has("search_web") || groups.flat().some((call) => call.name === "search_web"))
    return groups;
  const query = script.prose.slice(0, QUERY_CHARS_MAX) || "latest news";
  return [[{ name: "search_web", argumentsText: JSON.stringify({ query }) }], ...groups];
}

const QUERY_CHARS_MAX = 200;

/** Message content as text: a string, or the text parts of a list of parts. */
function contentText(content: unknown): string {
  if (typeof content === "string") return content;
  return list(content)
    .map((part) => text(record(part)["text"]))
    .join(" ");
}

// Two-, three- and four-byte characters come often enough that every longer text has some.
const VOCABULARY = (
  "the answer depends on what you measure and how often you look café results are naïve until " +
  "somebody checks them twice in Zürich or 東京 because a queue is only as fast as its slowest " +
  "reader 🚢 so keep ballast low and steady résumé your work after every pause then ship — done"
).split(" ");

/** Characters at which some clients end a line, though JSON and event streams do not. */
const LINE_ENDS = "one\u0085two\u2028three\u2029four ";

function said(
  script: Script,
  since: readonly Readonly<Record<string, unknown>>[],
  seed: Seed,
  ending: Ending,
): string {
  if (ending.kind === "empty") return "";
  return (script.lines ? LINE_ENDS : "") + answer(script, since, seed);
}

function answer(
  script: Script,
  since: readonly Readonly<Record<string, unknown>>[],
  seed: Seed,
): string {
  if (script.words !== null) return words(script.words, seed);
  const results = since.filter((message) => message["role"] === "tool");
  const about = script.prose.slice(0, 120) || "your request";
  if (results.length === 0) return `Here is a thought on “${about}”: ${words(24, seed)}.`;
  const titles = results.flatMap((message) => titlesIn(parseJson(contentText(message["content"]))));
  const found = titles.slice(0, 3).join("; ") || "nothing that names itself";
  return `For “${about}” ${results.length === 1 ? "one tool" : `${results.length} tools`} answered: ${found}. In short, ${words(16, seed)}.`;
}

function words(count: number, seed: Seed): string {
  const start = seed.int("words", VOCABULARY.length);
  return Array.from(
    { length: count },
    (_, index) => VOCABULARY[(start + index) % VOCABULARY.length] ?? "",
  ).join(" ");
}

/** Strings named `title` or `name` anywhere in a tool result, in order. */
function titlesIn(value: unknown, depth = 0): readonly string[] {
  if (depth > 6) return [];
  if (Array.isArray(value)) return value.flatMap((item) => titlesIn(item, depth + 1));
  return Object.entries(record(value)).flatMap(([name, field]) =>
    typeof field === "string"
      ? name === "title" || name === "name"
        ? [field]
        : []
      : titlesIn(field, depth + 1),
  );
}

function limitWords(full: string, tokensMax: number | undefined): string {
  if (tokensMax === undefined || tokensOf(full) <= tokensMax) return full;
  // Whole characters only: a token never ends inside one.
  const characters = Array.from(full);
  let limited = "";
  for (const character of characters) {
    if (tokensOf(limited + character) > tokensMax) break;
    limited += character;
  }
  return limited;
}

function half(full: string): string {
  const parts = full.split(" ");
  return parts.slice(0, Math.ceil(parts.length / 2)).join(" ");
}
