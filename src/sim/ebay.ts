// Wire format: developer.ebay.com, "Client credentials grant flow" and Browse API item_summary/search.
import {
  json,
  retryAfter,
  type Answer,
  type Call,
  type Provider,
  type ProviderSpec,
} from "./provider";
import { seedOf, type Seed } from "./seed";

const CLIENT_ID = "sim-ebay-client-id";
const CLIENT_SECRET = "sim-ebay-client-secret";
const SCOPE = "https://api.ebay.com/oauth/api_scope";
/** Items that a query can find before filters. */
const POOL = 60;
const LIMIT_DEFAULT = 50;
const LIMIT_MAX = 200;

export const ebaySpec: ProviderSpec = {
  id: "ebay",
  title: "eBay Browse",
  keyNames: ["EBAY_CLIENT_ID", "EBAY_CLIENT_SECRET"],
  env: (baseUrl) => ({
    EBAY_BASE_URL: baseUrl,
    EBAY_CLIENT_ID: CLIENT_ID,
    EBAY_CLIENT_SECRET: CLIENT_SECRET,
  }),
};

/** Client token and item search. A query that contains `[[none]]` finds nothing. */
export function createEbay(): Provider {
  return { ...ebaySpec, handle, refuse };
}

function handle(call: Call): Answer {
  if (call.path === "/identity/v1/oauth2/token" && call.method === "POST") return token(call);
  if (call.path === "/buy/browse/v1/item_summary/search" && call.method === "GET")
    return search(call);
  return fail(404, { errorId: 2002, category: "REQUEST", message: "Resource not found" });
}

function token(call: Call): Answer {
  const expected = `Basic ${Buffer.from(`${CLIENT_ID}:${CLIENT_SECRET}`).toString("base64")}`;
  if (call.headers.authorization !== expected)
    return json(401, {
      error: "invalid_client",
      error_description: "client authentication failed",
    });
  const form = new URLSearchParams(new TextDecoder().decode(call.bytes));
  if (form.get("grant_type") !== "client_credentials")
    return json(400, {
      error: "unsupported_grant_type",
      error_description: "grant type in request is not supported by the authorization server",
    });
  if (!(form.get("scope") ?? "").split(" ").includes(SCOPE))
    return json(400, {
      error: "invalid_scope",
      error_description:
        "The requested scope is invalid, unknown, malformed, or exceeds the scope granted to the client",
    });
  return json(200, {
    access_token: ACCESS_TOKEN,
    expires_in: 7200,
    token_type: "Application Access Token",
  });
}

const ACCESS_TOKEN = `v^1.1#i^1#p^1#r^0#I^3#f^0#t^${seedOf("ebay", CLIENT_ID).id("token", 32)}`;

function search(call: Call): Answer {
  if (call.headers.authorization === undefined)
    return fail(400, {
      errorId: 1002,
      domain: "OAuth",
      category: "REQUEST",
      message: "Missing access token",
      longMessage: "Access token is missing in the Authorization HTTP request header.",
    });
  if (call.headers.authorization !== `Bearer ${ACCESS_TOKEN}`) return refuse(401, undefined);
  const q = call.query.get("q") ?? "";
  if (q === "" && call.query.get("category_ids") === null)
    return fail(400, {
      errorId: 12001,
      category: "REQUEST",
      message:
        "The call must have a valid 'q', 'category_ids', 'charity_ids', 'epid' or 'gtin' query parameter.",
    });
  const limit = bounded(call.query.get("limit"), { fallback: LIMIT_DEFAULT, max: LIMIT_MAX });
  const offset = bounded(call.query.get("offset"), { fallback: 0, max: 9_999 });
  if (limit === null || limit === 0 || offset === null)
    return fail(400, {
      errorId: 12006,
      category: "REQUEST",
      message: "Invalid value for 'limit' or 'offset'.",
    });
  const filters = readFilters(call.query.getAll("filter"));
  const found = q.includes("[[none]]")
    ? []
    : itemsFor(q, call).filter((item) => matches(item, filters));
  const sorted = call.query.get("sort") === "price" ? found.toSorted(byPrice) : found;
  const page = sorted.slice(offset, offset + limit).map(({ summary }) => summary);
  const at = (from: number) => {
    const query = new URLSearchParams(call.query);
    query.set("limit", String(limit));
    query.set("offset", String(from));
    return `${call.baseUrl}${call.path}?${query.toString()}`;
  };
  return json(200, {
    href: at(offset),
    total: found.length,
    ...(offset + limit < found.length ? { next: at(offset + limit) } : {}),
    limit,
    offset,
    // eBay leaves the list out when it is empty.
    ...(page.length === 0 ? {} : { itemSummaries: page }),
  });
}

interface Item {
  readonly price: number;
  readonly conditionId: string;
  readonly country: string;
  readonly shipping: number;
  readonly summary: object;
}

const byPrice = (one: Item, other: Item): number => one.price - other.price;

const CONDITIONS = [
  { conditionId: "1000", condition: "New" },
  { conditionId: "1500", condition: "New other (see details)" },
  { conditionId: "2500", condition: "Seller refurbished" },
  { conditionId: "3000", condition: "Used" },
] as const;
const ADJECTIVES = [
  "Vintage",
  "Compact",
  "Professional",
  "Café",
  "Limited",
  "Naïve",
  "Everyday",
  "東京",
];
const COUNTRIES = ["US", "US", "GB", "DE", "JP"];
const CURRENCIES: Readonly<Record<string, string>> = {
  EBAY_GB: "GBP",
  EBAY_DE: "EUR",
  EBAY_FR: "EUR",
  EBAY_AU: "AUD",
  EBAY_CA: "CAD",
};

function itemsFor(q: string, call: Call): readonly Item[] {
  const marketplace = call.headers["x-ebay-c-marketplace-id"];
  const currency = CURRENCIES[typeof marketplace === "string" ? marketplace : ""] ?? "USD";
  return Array.from({ length: POOL }, (_, index) => item(q, currency, index));
}

function item(q: string, currency: string, index: number): Item {
  const seed = seedOf("ebay", q, String(index));
  const price = 5 + seed.int("price", 49_500) / 100;
  const shipping = seed.int("ships", 2) === 0 ? 0 : 4 + seed.int("shipping", 1_500) / 100;
  const { conditionId, condition } = seed.pick("condition", CONDITIONS);
  const country = seed.pick("country", COUNTRIES);
  const legacyId = `1${String(seed.int("id", 1e11)).padStart(11, "0")}`;
  const id = `v1|${legacyId}|0`;
  return {
    price,
    conditionId,
    country,
    shipping,
    summary: {
      itemId: id,
      title: `${seed.pick("adjective", ADJECTIVES)} ${q.slice(0, 60)} no. ${index + 1}`,
      leafCategoryIds: ["177"],
      categories: [{ categoryId: "177", categoryName: "Simulated goods" }],
      image: { imageUrl: `https://i.ebayimg.example/images/g/${seed.id("image", 16)}/s-l225.jpg` },
      price: { value: price.toFixed(2), currency },
      itemHref: `https://api.ebay.com/buy/browse/v1/item/${encodeURIComponent(id)}`,
      seller: sellerOf(seed),
      condition,
      conditionId,
      shippingOptions: [
        {
          shippingCostType: "FIXED",
          shippingCost: { value: shipping.toFixed(2), currency },
          minEstimatedDeliveryDate: "2025-11-03T08:00:00.000Z",
          maxEstimatedDeliveryDate: "2025-11-07T08:00:00.000Z",
        },
      ],
      buyingOptions: ["FIXED_PRICE"],
      itemWebUrl: `https://www.ebay.com/itm/${legacyId}`,
      itemLocation: { postalCode: `${seed.int("post", 900) + 100}**`, country },
      adultOnly: false,
      legacyItemId: legacyId,
      availableCoupons: false,
      itemCreationDate: "2025-10-01T12:00:00.000Z",
      topRatedBuyingExperience: seed.int("top", 2) === 1,
      priorityListing: false,
      listingMarketplaceId: "EBAY_US",
    },
  };
}

function sellerOf(seed: Seed) {
  return {
    username: `sim_seller_${seed.hex("seller", 6)}`,
    feedbackPercentage: (90 + seed.int("feedback", 101) / 10).toFixed(1),
    feedbackScore: seed.int("score", 40_000),
  };
}

/** Filters as `name:value`, separated by commas outside of brackets. */
function readFilters(given: readonly string[]): ReadonlyMap<string, string> {
  const parts = given.join(",").match(/\w+:(?:\[[^\]]*\]|\{[^}]*\}|[^,]*)/g) ?? [];
  return new Map(
    parts.map((part) => {
      const colon = part.indexOf(":");
      return [part.slice(0, colon), part.slice(colon + 1)];
    }),
  );
}

function matches(one: Item, filters: ReadonlyMap<string, string>): boolean {
  const range = /^\[([\d.]*?)(?:\.\.([\d.]*))?\]$/.exec(filters.get("price") ?? "");
  if (range !== null) {
    const [, least = "", most] = range;
    if (least !== "" && one.price < Number(least)) return false;
    if (most !== undefined && most !== "" && one.price > Number(most)) return false;
  }
  const ids = choices(filters.get("conditionIds"));
  if (ids !== null && !ids.includes(one.conditionId)) return false;
  const conditions = choices(filters.get("conditions"));
  if (conditions !== null && !conditions.includes(one.conditionId === "3000" ? "USED" : "NEW"))
    return false;
  const delivery = filters.get("maxDeliveryCost");
  if (delivery !== undefined && one.shipping > Number(delivery)) return false;
  const country = filters.get("itemLocationCountry");
  return country === undefined || one.country === country;
}

function choices(value: string | undefined): readonly string[] | null {
  return value === undefined ? null : value.replace(/^\{|\}$/g, "").split("|");
}

function bounded(
  source: string | null,
  options: { readonly fallback: number; readonly max: number },
): number | null {
  if (source === null) return options.fallback;
  const value = Number(source);
  return Number.isInteger(value) && value >= 0 && value <= options.max ? value : null;
}

function refuse(status: number, retryAfterSeconds: number | undefined): Answer {
  const headers = retryAfter(status, retryAfterSeconds);
  if (status === 401)
    return fail(status, {
      errorId: 1001,
      domain: "OAuth",
      category: "REQUEST",
      message: "Invalid access token",
      longMessage:
        "Invalid access token. Check the value of the Authorization HTTP request header.",
    });
  if (status === 429)
    return fail(
      status,
      {
        errorId: 2001,
        domain: "ACCESS",
        category: "REQUEST",
        message: "Too many requests.",
        longMessage: "The request limit has been reached for the resource.",
      },
      headers,
    );
  const category = status >= 500 ? "APPLICATION" : "REQUEST";
  const message = status >= 500 ? "Internal error" : "Invalid request";
  return fail(status, { errorId: 12000, category, message }, headers);
}

interface EbayError {
  readonly errorId: number;
  readonly domain?: string;
  readonly category: "REQUEST" | "APPLICATION";
  readonly message: string;
  readonly longMessage?: string;
}

function fail(
  status: number,
  error: EbayError,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  return json(status, { errors: [{ domain: "API_BROWSE", ...error }] }, headers);
}
