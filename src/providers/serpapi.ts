/**
 * Product search in shops worldwide: SerpApi's Google Shopping engine, `GET /search.json`.
 * Shapes: https://serpapi.com/shopping-results and https://serpapi.com/search-errors.
 */
import { readSecret } from "../config/read";
import { type CallIo, type Gate, callProvider } from "./call";
import { currencyOf } from "./currencies";
import { type Json, asArray, asNumber, asObject, asText } from "./json";
import type { Product } from "./products";

export interface ShoppingQuery {
  readonly query: string;
  readonly limit: number;
  readonly country: string | null;
  readonly minPrice: number | null;
  readonly maxPrice: number | null;
  readonly deadlineAtMs?: number;
}

/** Searches shops. Throws as `callProvider` does. */
export async function searchShops(
  gate: Gate,
  search: ShoppingQuery,
  io: CallIo,
): Promise<readonly Product[]> {
  const params = new URLSearchParams({
    engine: "google_shopping",
    q: search.query,
    hl: "en",
    ...(search.country === null ? {} : { gl: search.country.toLowerCase() }),
    ...(search.minPrice === null ? {} : { min_price: String(search.minPrice) }),
    ...(search.maxPrice === null ? {} : { max_price: String(search.maxPrice) }),
    // The API takes its key in no other place; nothing logs or returns this address.
    api_key: readSecret(io.env, "SERPAPI_API_KEY"),
  });
  return await callProvider(
    gate,
    {
      provider: "global_search",
      method: "GET",
      path: `/search.json?${params.toString()}`,
      ...(search.deadlineAtMs === undefined ? {} : { deadlineAtMs: search.deadlineAtMs }),
      parse: ({ json }) => (json === null ? null : parseShopping(json, search)),
    },
    io,
  );
}

/** Without a country the API asks google.com, whose shops are those of the United States. */
const DEFAULT_COUNTRY = "US";

function parseShopping(json: Json, search: ShoppingQuery): readonly Product[] | null {
  const status = asText(asObject(json["search_metadata"])?.["status"]);
  const found = Array.isArray(json["shopping_results"]);
  // An empty result is a success with a message in `error`; a failed search says so in its status.
  if (status === "Error" || (!found && status !== "Success")) return null;
  return asArray(json["shopping_results"])
    .flatMap((value) => parseItem(asObject(value), search.country ?? DEFAULT_COUNTRY))
    .filter((product) => isWithin(product.price, search))
    .slice(0, search.limit);
}

function parseItem(item: Json | null, country: string): Product[] {
  const title = asText(item?.["title"]);
  const link = asText(item?.["link"]) ?? asText(item?.["product_link"]);
  if (item === null || title === null || link === null) return [];
  return [
    {
      title,
      price: asNumber(item["extracted_price"]),
      currency: currencyOf(asText(item["price"]) ?? "", country),
      link,
      image: imageOf(item["thumbnail"]),
      condition: asText(item["second_hand_condition"]),
      source: asText(item["source"]) ?? "Google Shopping",
      shipping: asText(item["delivery"]),
      rating: asNumber(item["rating"]),
    },
  ];
}

const IMAGE_URL_CHARS_MAX = 2048;

/** Thumbnails may be whole pictures in base64, which no model needs to read. */
function imageOf(value: unknown): string | null {
  const url = asText(value);
  return url?.startsWith("https://") === true && url.length <= IMAGE_URL_CHARS_MAX ? url : null;
}

/** Some countries' layouts ignore the price limits of the request. */
function isWithin(price: number | null, { maxPrice, minPrice }: ShoppingQuery): boolean {
  return price === null || (price >= (minPrice ?? 0) && price <= (maxPrice ?? Infinity));
}
