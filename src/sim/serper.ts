// Wire format: serper.dev playground (POST https://google.serper.dev/search), as read by public clients.
import { list, number, parseJson, record, text } from "./json";
import {
  json,
  retryAfter,
  type Answer,
  type Call,
  type Provider,
  type ProviderSpec,
} from "./provider";
import { seedOf } from "./seed";

const KEY = "sim-serper-key";
const RESULTS_MAX = 100;

export const serperSpec: ProviderSpec = {
  id: "serper",
  title: "Serper",
  keyNames: ["SERPER_API_KEY"],
  env: (baseUrl) => ({ SERPER_BASE_URL: baseUrl, SERPER_API_KEY: KEY }),
};

/** Google web search. A query that contains `[[none]]` finds nothing. */
export function createSerper(): Provider {
  return { ...serperSpec, handle, refuse };
}

function handle(call: Call): Answer {
  if (call.path !== "/search") return json(404, { message: "Not Found", statusCode: 404 });
  if (call.headers["x-api-key"] !== KEY) return refuse(403, undefined);
  const body = parseJson(call.bytes);
  // One request may carry several queries; the answer is then a list in the same order.
  if (Array.isArray(body))
    return json(
      200,
      list(body).map((one) => search(record(one))),
    );
  const query = call.method === "GET" ? Object.fromEntries(call.query) : record(body);
  if (text(query["q"]) === "")
    return json(400, { message: "Missing query parameter", statusCode: 400 });
  return json(200, search(query));
}

function search(body: Readonly<Record<string, unknown>>) {
  const q = text(body["q"]);
  const seed = seedOf("serper", q);
  const count = Math.min(number(body["num"]) ?? 10, RESULTS_MAX);
  const found = q.includes("[[none]]") ? 0 : count;
  return {
    searchParameters: {
      q,
      ...(text(body["gl"]) === "" ? {} : { gl: body["gl"] }),
      ...(text(body["hl"]) === "" ? {} : { hl: body["hl"] }),
      ...(number(body["num"]) === undefined ? {} : { num: body["num"] }),
      type: "search",
      engine: "google",
    },
    organic: Array.from({ length: found }, (_, index) => ({
      title: `${q.slice(0, 60)}: ${seed.pick(`title-${index}`, TITLES)}`,
      link: `https://example.com/${seed.hex(`link-${index}`, 10)}`,
      snippet: `${seed.pick(`snippet-${index}`, SNIPPETS)} Result ${index + 1} of ${found}.`,
      ...(index % 3 === 0 ? { date: "Oct 9, 2025" } : {}),
      position: index + 1,
    })),
    ...(found === 0
      ? {}
      : {
          peopleAlsoAsk: [
            {
              question: `What is known about ${q.slice(0, 60)}?`,
              snippet: seed.pick("answer", SNIPPETS),
              title: seed.pick("asked", TITLES),
              link: `https://example.org/${seed.hex("asked", 10)}`,
            },
          ],
          relatedSearches: [{ query: `${q.slice(0, 60)} explained` }],
        }),
    credits: count > 10 ? 2 : 1,
  };
}

const TITLES = [
  "a field guide",
  "what the data says",
  "notes from Zürich",
  "the short answer",
  "東京 report",
];
const SNIPPETS = [
  "A measured look at the question, with sources.",
  "Three experiments, one surprising result — and what to do next.",
  "The café test: if you cannot explain it over coffee, measure again.",
];

const MESSAGES: Readonly<Record<number, string>> = {
  400: "Not enough credits",
  403: "Unauthorized.",
  429: "Rate limit exceeded",
  500: "Internal server error",
};

function refuse(status: number, retryAfterSeconds: number | undefined): Answer {
  const message = MESSAGES[status] ?? "Internal server error";
  return json(status, { message, statusCode: status }, retryAfter(status, retryAfterSeconds));
}
