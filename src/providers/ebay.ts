/**
 * Product search through the eBay Browse API, `GET /buy/browse/v1/item_summary/search`, with a
 * client token of `POST /identity/v1/oauth2/token` that is kept until shortly before it expires.
 * Shapes: https://developer.ebay.com/api-docs/buy/browse/resources/item_summary/methods/search and
 * https://developer.ebay.com/api-docs/static/oauth-client-credentials-grant.html.
 */
import { DAY, MINUTE, SECOND } from "../core/time";
import { readKnob, readSecret } from "../config/read";
import { errorData } from "../errors/appError";
import { log } from "../log/log";
import { type CallIo, type Gate, callProvider } from "./call";
import { type Json, asArray, asNumber, asObject, asText } from "./json";
import type { Product } from "./products";

/** Tokens that outlive an action; the platform starts every action afresh. */
export interface TokenStore {
  /** Null when there is none or it has expired. */
  load(name: string): Promise<string | null>;
  store(name: string, token: string, expiresAtMs: number): Promise<void>;
}

export interface EbayQuery {
  readonly query: string;
  readonly limit: number;
  readonly categoryId: string | null;
  readonly categoryName: string | null;
  readonly minPrice: number | null;
  readonly maxPrice: number | null;
  readonly condition: "new" | "used" | "refurbished" | "open_box" | null;
  readonly shipping: "free" | "fast" | null;
  readonly sellerRating: number;
  readonly location: string | null;
  readonly marketplaceId: string | null;
  readonly deadlineAtMs?: number;
}

export const EBAY_TOKEN_NAME = "ebay_client";

const TOKEN_SCOPE = "https://api.ebay.com/oauth/api_scope";

/** A token is not used in the last moments of its life: the call must end before it does. */
const TOKEN_MARGIN_MS = MINUTE;

const PAGE_MAX = 200;

/** Sellers are filtered here, so more is asked for than is wanted. */
const OVERFETCH = 2;

const FAST_DELIVERY_MS = 5 * DAY;

/** https://developer.ebay.com/devzone/finding/callref/Enums/conditionIdList.html */
const CONDITION_IDS = {
  new: ["1000"],
  open_box: ["1500"],
  refurbished: ["2000", "2010", "2020", "2030", "2500"],
  used: ["2750", "3000", "4000", "5000", "6000"],
} as const;

/**
 * The currency in which a site prices its items:
 * https://developer.ebay.com/api-docs/sell/metadata/types/bas:MarketplaceIdEnum
 */
const CURRENCIES: ReadonlyMap<string, string> = new Map([
  ["EBAY_AT", "EUR"],
  ["EBAY_AU", "AUD"],
  ["EBAY_BE", "EUR"],
  ["EBAY_CA", "CAD"],
  ["EBAY_CH", "CHF"],
  ["EBAY_DE", "EUR"],
  ["EBAY_ES", "EUR"],
  ["EBAY_FR", "EUR"],
  ["EBAY_GB", "GBP"],
  ["EBAY_HK", "HKD"],
  ["EBAY_IE", "EUR"],
  ["EBAY_IN", "INR"],
  ["EBAY_IT", "EUR"],
  ["EBAY_MY", "MYR"],
  ["EBAY_NL", "EUR"],
  ["EBAY_PH", "PHP"],
  ["EBAY_PL", "PLN"],
  ["EBAY_SG", "SGD"],
  ["EBAY_TH", "THB"],
  ["EBAY_TW", "TWD"],
  ["EBAY_US", "USD"],
  ["EBAY_VN", "VND"],
]);

export interface EbayDeps {
  readonly gate: Gate;
  readonly tokens: TokenStore;
  readonly io: CallIo;
}

/** Searches eBay. Throws as `callProvider` does. */
export async function searchEbay(search: EbayQuery, deps: EbayDeps): Promise<readonly Product[]> {
  const kept = await deps.tokens.load(EBAY_TOKEN_NAME);
  if (kept === null) return await searchWith(await freshToken(search, deps), search, deps);
  try {
    return await searchWith(kept, search, deps);
  } catch (error) {
    // A token can be revoked before its time. A fresh one that is refused as well is a real refusal.
    if (errorData(error).code !== "upstream_auth") throw error;
    return await searchWith(await freshToken(search, deps), search, deps);
  }
}

async function freshToken(search: EbayQuery, { gate, io, tokens }: EbayDeps): Promise<string> {
  const id = readSecret(io.env, "EBAY_CLIENT_ID");
  const secret = readSecret(io.env, "EBAY_CLIENT_SECRET");
  const requestedAtMs = io.now();
  const { token, lifeMs } = await callProvider(
    gate,
    {
      provider: "ebay_search",
      method: "POST",
      path: "/identity/v1/oauth2/token",
      headers: {
        "Content-Type": "application/x-www-form-urlencoded",
        Authorization: `Basic ${btoa(`${id}:${secret}`)}`,
      },
      body: new URLSearchParams({
        grant_type: "client_credentials",
        scope: TOKEN_SCOPE,
      }).toString(),
      idempotent: true,
      ...deadlineOf(search),
      parse: ({ json }) => parseToken(json),
    },
    io,
  );
  try {
    await tokens.store(EBAY_TOKEN_NAME, token, requestedAtMs + lifeMs - TOKEN_MARGIN_MS);
  } catch (error) {
    // The token is good for this search; the next one asks for its own.
    log.event("ebay_token_not_kept", { code: errorData(error).code });
  }
  return token;
}

function parseToken(json: Json | null): { token: string; lifeMs: number } | null {
  const token = asText(json?.["access_token"]);
  const lifeSeconds = asNumber(json?.["expires_in"]);
  if (token === null || lifeSeconds === null) return null;
  return { token, lifeMs: lifeSeconds * SECOND };
}

async function searchWith(
  token: string,
  search: EbayQuery,
  { gate, io }: EbayDeps,
): Promise<readonly Product[]> {
  const site = search.marketplaceId ?? readKnob(io.env, "EBAY_MARKETPLACE_ID");
  return await callProvider(
    gate,
    {
      provider: "ebay_search",
      method: "GET",
      path: `/buy/browse/v1/item_summary/search?${searchParams(search, site).toString()}`,
      headers: { Authorization: `Bearer ${token}`, "X-EBAY-C-MARKETPLACE-ID": site },
      ...deadlineOf(search),
      parse: ({ json }) => (json === null ? null : parseItems(json, search, io.now())),
    },
    io,
  );
}

function deadlineOf(search: EbayQuery): { deadlineAtMs?: number } {
  return search.deadlineAtMs === undefined ? {} : { deadlineAtMs: search.deadlineAtMs };
}

function searchParams(search: EbayQuery, site: string): URLSearchParams {
  const { categoryId, categoryName, query } = search;
  // The API knows categories by id only; their name is one more word to look for.
  const words = categoryId === null && categoryName !== null ? `${query} ${categoryName}` : query;
  const filter = searchFilter(search, CURRENCIES.get(site) ?? null);
  return new URLSearchParams({
    q: words,
    limit: String(Math.min(search.limit * OVERFETCH, PAGE_MAX)),
    ...(categoryId === null ? {} : { category_ids: categoryId }),
    ...(filter === "" ? {} : { filter }),
  });
}

/** https://developer.ebay.com/api-docs/buy/static/ref-buy-browse-filters.html */
function searchFilter(search: EbayQuery, currency: string | null): string {
  const { condition, location, maxPrice, minPrice } = search;
  const filters: string[] = [];
  // The API takes no price without its currency, and one in the wrong currency finds other items.
  if (currency !== null && (minPrice !== null || maxPrice !== null))
    filters.push(`price:[${minPrice ?? ""}..${maxPrice ?? ""}]`, `priceCurrency:${currency}`);
  if (condition !== null) filters.push(`conditionIds:{${CONDITION_IDS[condition].join("|")}}`);
  if (search.shipping === "free") filters.push("maxDeliveryCost:0");
  if (location !== null) filters.push(`itemLocationCountry:${location}`);
  return filters.join(",");
}

function parseItems(json: Json, search: EbayQuery, nowMs: number): readonly Product[] | null {
  // Without matches the list is left out, but the total is always there.
  if (!Array.isArray(json["itemSummaries"]) && asNumber(json["total"]) === null) return null;
  return asArray(json["itemSummaries"])
    .flatMap((value) => parseItem(asObject(value), search, nowMs))
    .slice(0, search.limit);
}

function parseItem(item: Json | null, search: EbayQuery, nowMs: number): Product[] {
  const title = asText(item?.["title"]);
  const link = asText(item?.["itemAffiliateWebUrl"]) ?? asText(item?.["itemWebUrl"]);
  if (item === null || title === null || link === null) return [];
  const rating = amount(asObject(item["seller"])?.["feedbackPercentage"]);
  // Where the API names no rating there is none to hold against the seller.
  if (rating !== null && rating < search.sellerRating) return [];
  const shipping = asObject(asArray(item["shippingOptions"])[0]);
  if (search.shipping === "fast" && isSlow(shipping, nowMs)) return [];
  const price = asObject(item["price"]);
  return [
    {
      title,
      price: amount(price?.["value"]),
      currency: asText(price?.["currency"]),
      link,
      image: asText(asObject(item["image"])?.["imageUrl"]),
      condition: asText(item["condition"]),
      source: "eBay",
      shipping: shippingText(shipping),
      rating,
    },
  ];
}

function isSlow(shipping: Json | null, nowMs: number): boolean {
  const latestMs = Date.parse(asText(shipping?.["maxEstimatedDeliveryDate"]) ?? "");
  return latestMs > nowMs + FAST_DELIVERY_MS;
}

function shippingText(shipping: Json | null): string | null {
  const cost = asObject(shipping?.["shippingCost"]);
  const value = amount(cost?.["value"]);
  if (value === null) return null;
  return value === 0 ? "free" : `${value.toFixed(2)} ${asText(cost?.["currency"]) ?? ""}`.trim();
}

/** eBay writes amounts as strings. */
function amount(value: unknown): number | null {
  const text = asText(value);
  return text === null ? asNumber(value) : asNumber(Number(text));
}
