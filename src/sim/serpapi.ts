// Wire format: serpapi.com, "Google Shopping API" and "Status and errors".
import {
  json,
  retryAfter,
  type Answer,
  type Call,
  type Provider,
  type ProviderSpec,
} from "./provider";
import { seedOf } from "./seed";

const KEY = "sim-serpapi-key";
const RESULTS = 40;

export const serpApiSpec: ProviderSpec = {
  id: "serpapi",
  title: "SerpApi",
  keyNames: ["SERPAPI_API_KEY"],
  env: (baseUrl) => ({ SERPAPI_BASE_URL: baseUrl, SERPAPI_API_KEY: KEY }),
};

/** Google Shopping results. A query that contains `[[none]]` finds nothing. */
export function createSerpApi(): Provider {
  return { ...serpApiSpec, handle, refuse };
}

function handle({ path, query, method }: Call): Answer {
  if (method !== "GET" || (path !== "/search.json" && path !== "/search"))
    return json(404, { error: "Not found" });
  if (query.get("api_key") !== KEY) return refuse(401, undefined);
  const engine = query.get("engine") ?? "google";
  if (engine !== "google_shopping")
    return json(400, { error: `Unsupported \`${engine}\` search engine.` });
  const q = query.get("q") ?? "";
  if (q === "") return json(400, { error: "Missing query `q` parameter." });
  return json(200, shopping(q, query));
}

function shopping(q: string, query: URLSearchParams) {
  const seed = seedOf("serpapi", [...query].filter(([name]) => name !== "api_key").join("&"));
  const id = seed.hex("search", 24);
  const parameters = Object.fromEntries([...query].filter(([name]) => name !== "api_key"));
  const found = q.includes("[[none]]") ? [] : results(q, query);
  return {
    search_metadata: {
      id,
      status: "Success",
      json_endpoint: `https://serpapi.com/searches/${seed.hex("endpoint", 16)}/${id}.json`,
      created_at: "2025-10-09 08:00:00 UTC",
      processed_at: "2025-10-09 08:00:00 UTC",
      google_shopping_url: `https://www.google.com/search?udm=28&q=${encodeURIComponent(q)}`,
      raw_html_file: `https://serpapi.com/searches/${seed.hex("endpoint", 16)}/${id}.html`,
      total_time_taken: (50 + seed.int("took", 300)) / 100,
    },
    search_parameters: { google_domain: "google.com", device: "desktop", ...parameters },
    ...(found.length === 0
      ? {
          search_information: { shopping_results_state: "Fully empty" },
          error: "Google hasn't returned any results for this query.",
        }
      : {
          search_information: { shopping_results_state: "Results for exact spelling" },
          shopping_results: found,
        }),
  };
}

const SHOPS = ["Simmart", "Nordlicht Versand", "東京ストア", "Café Supply", "Harbour & Co"];

function results(q: string, query: URLSearchParams): readonly object[] {
  const least = Number(query.get("min_price") ?? 0);
  const most = Number(query.get("max_price") ?? Infinity);
  return Array.from({ length: RESULTS }, (_, index) => product(q, index))
    .filter(({ extracted_price: price }) => price >= least && price <= most)
    .map((one, index) => ({ position: index + 1, ...one }));
}

function product(q: string, index: number) {
  const seed = seedOf("serpapi-product", q, String(index));
  const price = 3 + seed.int("price", 60_000) / 100;
  const productId = `1${String(seed.int("product", 1e12)).padStart(18, "0")}`;
  const shop = seed.pick("shop", SHOPS);
  return {
    title: `${q.slice(0, 60)} by ${shop}, model ${seed.id("model", 4)}`,
    product_link: `https://www.google.com/shopping/product/${productId}?gl=us`,
    product_id: productId,
    immersive_product_page_token: seed.id("token", 32),
    source: shop,
    source_icon: `https://serpapi.example/searches/images/${seed.hex("icon", 12)}.png`,
    price: `$${price.toFixed(2)}`,
    extracted_price: price,
    ...(index % 4 === 0
      ? {
          old_price: `$${(price * 1.2).toFixed(2)}`,
          extracted_old_price: Math.round(price * 120) / 100,
        }
      : {}),
    ...(index % 5 === 4
      ? {}
      : { rating: (30 + seed.int("rating", 21)) / 10, reviews: seed.int("reviews", 5_000) }),
    thumbnail: `https://serpapi.example/searches/images/${seed.hex("thumbnail", 12)}.webp`,
    delivery: seed.int("delivery", 2) === 0 ? "Free delivery" : "$5.99 delivery",
  };
}

const MESSAGES: Readonly<Record<number, string>> = {
  401: "Invalid API key. Your API key should be here: https://serpapi.com/manage-api-key",
  429: "Your account has run out of searches.",
  500: "Internal server error",
  503: "Service unavailable",
};

function refuse(status: number, retryAfterSeconds: number | undefined): Answer {
  const error = MESSAGES[status] ?? "We couldn't process this search.";
  return json(status, { error }, retryAfter(status, retryAfterSeconds));
}
