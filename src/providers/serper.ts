/**
 * Web search through Serper: request and answer of `POST /search`.
 * Shapes: https://serper.dev (playground), https://google.serper.dev/search.
 */
import { readSecret } from "../config/read";
import { type CallIo, type Gate, callProvider } from "./call";
import { type Json, asArray, asNumber, asObject, asText } from "./json";

interface WebResult {
  readonly title: string;
  readonly link: string;
  readonly snippet: string;
  readonly date: string | null;
}

export interface WebSearch {
  /** The search engine's own short answer, where it has one. */
  readonly answer: string | null;
  readonly results: readonly WebResult[];
}

export interface WebQuery {
  readonly query: string;
  readonly limit: number;
  readonly deadlineAtMs?: number;
}

/** Searches the web. Throws as `callProvider` does. */
export async function searchSerper(gate: Gate, search: WebQuery, io: CallIo): Promise<WebSearch> {
  return await callProvider(
    gate,
    {
      provider: "serper_search",
      method: "POST",
      path: "/search",
      headers: {
        "Content-Type": "application/json",
        "X-API-KEY": readSecret(io.env, "SERPER_API_KEY"),
      },
      body: JSON.stringify({ q: search.query, num: search.limit }),
      // A search changes nothing, whatever its method.
      idempotent: true,
      ...(search.deadlineAtMs === undefined ? {} : { deadlineAtMs: search.deadlineAtMs }),
      parse: ({ json }) => (json === null ? null : parseSearch(json, search.limit)),
    },
    io,
  );
}

/** An answer without any known part is not a search result but something else. */
function parseSearch(json: Json, limit: number): WebSearch | null {
  if (!Array.isArray(json["organic"]) && asObject(json["searchParameters"]) === null) return null;
  return {
    answer: shortAnswer(json),
    results: asArray(json["organic"]).flatMap(parseResult).slice(0, limit),
  };
}

function parseResult(value: unknown): WebResult[] {
  const item = asObject(value);
  const title = asText(item?.["title"]);
  const link = asText(item?.["link"]);
  if (item === null || title === null || link === null) return [];
  return [{ title, link, snippet: asText(item["snippet"]) ?? "", date: asText(item["date"]) }];
}

function shortAnswer(json: Json): string | null {
  const box = asObject(json["answerBox"]);
  const graph = asObject(json["knowledgeGraph"]);
  const answer = box?.["answer"];
  return (
    asText(answer) ??
    asNumber(answer)?.toString() ??
    asText(box?.["snippet"]) ??
    asText(graph?.["description"])
  );
}
