import { describe, expect, test, vi } from "vitest";
import { errorData } from "../errors/appError";
import type { CallIo, Gate } from "./call";
import { EBAY_TOKEN_NAME, type EbayQuery, searchEbay, type TokenStore } from "./ebay";
import type { Outcome } from "./outcome";
import { searchShops } from "./serpapi";
import { searchSerper } from "./serper";
import { EPOCH_MS, type FetchScript, jsonResponse, virtualIo } from "./testing";

const ENV = {
  SERPER_API_KEY: "serper-key-of-the-test",
  SERPER_BASE_URL: "https://serper.example",
  SERPAPI_API_KEY: "serpapi-key-of-the-test",
  SERPAPI_BASE_URL: "https://serpapi.example",
  EBAY_CLIENT_ID: "ebay-id-of-the-test",
  EBAY_CLIENT_SECRET: "ebay-secret-of-the-test",
  EBAY_BASE_URL: "https://ebay.example",
};

function setUp(script: FetchScript, env: Record<string, string> = ENV) {
  const { io, run } = virtualIo(script);
  const outcomes: Outcome[] = [];
  const gate: Gate = {
    admit: async () => ({ ok: true, permit: 1 }),
    mayRetry: async () => false,
    settle: async (_, outcome) => {
      outcomes.push(outcome);
    },
  };
  const callIo: CallIo = { ...io, env };
  return { io, run, gate, callIo, outcomes };
}

const failure = async (work: Promise<unknown>) =>
  errorData(await work.then(() => null).catch((error: unknown) => error));

describe("Serper", () => {
  // In the shape of an answer of https://google.serper.dev/search; the values are our own.
  const ANSWER = {
    searchParameters: { q: "tide times", type: "search", num: 10, engine: "google" },
    answerBox: { title: "Tides", snippet: "High water at 6:02.", link: "https://tides.example/" },
    organic: [
      { title: "Tide table", link: "https://tides.example/a", snippet: "Every tide.", position: 1 },
      { title: "More", link: "https://tides.example/b", date: "Oct 9, 2025", position: 2 },
      { title: "No link", position: 3 },
      "not an item",
    ],
    peopleAlsoAsk: [{ question: "What is a tide?" }],
    credits: 1,
  };

  test("asks as documented and reads what it knows", async () => {
    const { callIo, gate, io, run } = setUp(async () => jsonResponse(ANSWER));
    const found = await run(searchSerper(gate, { query: "tide times", limit: 10 }, callIo));
    expect(found).toEqual({
      answer: "High water at 6:02.",
      results: [
        {
          title: "Tide table",
          link: "https://tides.example/a",
          snippet: "Every tide.",
          date: null,
        },
        { title: "More", link: "https://tides.example/b", snippet: "", date: "Oct 9, 2025" },
      ],
    });
    const [request] = io.requests;
    expect(request).toMatchObject({
      url: "https://serper.example/search",
      init: { method: "POST", body: '{"q":"tide times","num":10}' },
    });
    expect(new Headers(request?.init.headers).get("x-api-key")).toBe(ENV.SERPER_API_KEY);
  });

  test.each([
    ["a number", { answerBox: { answer: 42 } }, "42"],
    ["a knowledge graph", { knowledgeGraph: { description: "A bay." } }, "A bay."],
    ["none", {}, null],
  ])("the short answer may be %s", async (_, part, answer) => {
    const { callIo, gate, run } = setUp(async () => jsonResponse({ organic: [], ...part }));
    expect(await run(searchSerper(gate, { query: "a", limit: 1 }, callIo))).toEqual({
      answer,
      results: [],
    });
  });

  test("a search is repeated although it is a POST", async () => {
    const { callIo, gate, io, run } = setUp(async (call) =>
      call === 1 ? jsonResponse({}, { status: 500 }) : jsonResponse(ANSWER),
    );
    const willing = { ...gate, mayRetry: async () => true };
    await run(searchSerper(willing, { query: "a", limit: 1 }, callIo));
    expect(io.requests).toHaveLength(2);
  });

  test("something else in JSON is no empty result", async () => {
    const { callIo, gate, run } = setUp(async () => jsonResponse({ message: "maintenance" }));
    const error = await run(failure(searchSerper(gate, { query: "a", limit: 1 }, callIo)));
    expect(error.code).toBe("upstream_error");
  });
});

describe("eBay", () => {
  const QUERY: EbayQuery = {
    query: "teak chair",
    limit: 2,
    categoryId: null,
    categoryName: null,
    minPrice: null,
    maxPrice: null,
    condition: null,
    shipping: null,
    sellerRating: 95,
    location: null,
    marketplaceId: null,
  };
  // In the shape of developer.ebay.com, Browse API, item_summary/search; the values are our own.
  const item = (title: string, fields: Record<string, unknown> = {}) => ({
    itemId: `v1|${title}|0`,
    title,
    price: { value: "120.50", currency: "USD" },
    image: { imageUrl: "https://img.example/1.jpg" },
    condition: "Used",
    conditionId: "3000",
    itemWebUrl: `https://ebay.example/itm/${title}`,
    seller: { username: "someone", feedbackPercentage: "99.2", feedbackScore: 310 },
    shippingOptions: [
      { shippingCostType: "FIXED", shippingCost: { value: "0.00", currency: "USD" } },
    ],
    itemLocation: { country: "US" },
    ...fields,
  });
  const page = (...items: object[]) => ({
    href: "https://ebay.example/",
    total: items.length,
    limit: 50,
    offset: 0,
    ...(items.length === 0 ? {} : { itemSummaries: items }),
  });
  const TOKEN = {
    access_token: "v^1.1#token",
    expires_in: 7_200,
    token_type: "Application Access Token",
  };

  function store(initial: string | null = null) {
    const kept: { token: string; expiresAtMs: number }[] = [];
    const tokens: TokenStore = {
      load: async () => initial,
      store: async (name, token, expiresAtMs) => {
        expect(name).toBe(EBAY_TOKEN_NAME);
        kept.push({ token, expiresAtMs });
      },
    };
    return { tokens, kept };
  }

  const answering =
    (search: () => Response): FetchScript =>
    async (_, init) =>
      init.method === "POST" ? jsonResponse(TOKEN) : search();

  async function search(fields: Partial<EbayQuery>, items: object[] = [item("a")]) {
    const { callIo, gate, io, run } = setUp(answering(() => jsonResponse(page(...items))));
    const { tokens } = store("kept-token");
    const products = await run(searchEbay({ ...QUERY, ...fields }, { gate, tokens, io: callIo }));
    const url = new URL(io.requests[0]?.url ?? "");
    return { products, url, headers: new Headers(io.requests[0]?.init.headers) };
  }

  test("gets a token once, keeps it until shortly before its end, and searches with it", async () => {
    const { callIo, gate, io, run } = setUp(answering(() => jsonResponse(page(item("a")))));
    const { kept, tokens } = store();
    const products = await run(searchEbay(QUERY, { gate, tokens, io: callIo }));
    expect(products).toEqual([
      {
        title: "a",
        price: 120.5,
        currency: "USD",
        link: "https://ebay.example/itm/a",
        image: "https://img.example/1.jpg",
        condition: "Used",
        source: "eBay",
        shipping: "free",
        rating: 99.2,
      },
    ]);
    expect(io.requests[0]).toMatchObject({
      url: "https://ebay.example/identity/v1/oauth2/token",
      init: {
        body: "grant_type=client_credentials&scope=https%3A%2F%2Fapi.ebay.com%2Foauth%2Fapi_scope",
      },
    });
    const basic = new Headers(io.requests[0]?.init.headers).get("authorization");
    expect(basic).toBe(`Basic ${btoa("ebay-id-of-the-test:ebay-secret-of-the-test")}`);
    const bearer = new Headers(io.requests[1]?.init.headers);
    expect(bearer.get("authorization")).toBe("Bearer v^1.1#token");
    expect(bearer.get("x-ebay-c-marketplace-id")).toBe("EBAY_US");
    expect(kept).toEqual([{ token: "v^1.1#token", expiresAtMs: EPOCH_MS + 7_140_000 }]);
  });

  test("a kept token is used without asking for another", async () => {
    const { headers, url } = await search({});
    expect(headers.get("authorization")).toBe("Bearer kept-token");
    expect(url.pathname).toBe("/buy/browse/v1/item_summary/search");
    // Twice what is wanted, because sellers are filtered afterwards.
    expect(url.searchParams.get("limit")).toBe("4");
  });

  test("a kept token that was revoked is replaced once", async () => {
    const { callIo, gate, io, run } = setUp(async (_, init) => {
      if (init.method === "POST") return jsonResponse(TOKEN);
      const fresh = new Headers(init.headers).get("authorization") === "Bearer v^1.1#token";
      return fresh ? jsonResponse(page(item("a"))) : jsonResponse({}, { status: 401 });
    });
    const { tokens } = store("revoked");
    expect(await run(searchEbay(QUERY, { gate, tokens, io: callIo }))).toHaveLength(1);
    expect(io.requests).toHaveLength(3);
  });

  test("a fresh token that is refused as well is a refusal", async () => {
    const { callIo, gate, io, run } = setUp(answering(() => jsonResponse({}, { status: 401 })));
    const { tokens } = store("revoked");
    const error = await run(failure(searchEbay(QUERY, { gate, tokens, io: callIo })));
    expect(error.code).toBe("upstream_auth");
    expect(io.requests).toHaveLength(3);
  });

  test("asking for a token is repeated although it is a POST", async () => {
    const { callIo, gate, io, run } = setUp(async (call, init) => {
      if (call === 1) return jsonResponse({}, { status: 503 });
      return init.method === "POST" ? jsonResponse(TOKEN) : jsonResponse(page(item("a")));
    });
    const willing = { ...gate, mayRetry: async () => true };
    await run(searchEbay(QUERY, { gate: willing, tokens: store().tokens, io: callIo }));
    expect(io.requests).toHaveLength(3);
  });

  test("a token that cannot be kept is still used", async () => {
    const log = vi.spyOn(console, "log").mockImplementation(() => undefined);
    const { callIo, gate, run } = setUp(answering(() => jsonResponse(page(item("a")))));
    const tokens: TokenStore = {
      load: async () => null,
      store: async () => {
        throw new Error("OptimisticConcurrencyControlFailure");
      },
    };
    expect(await run(searchEbay(QUERY, { gate, tokens, io: callIo }))).toHaveLength(1);
    expect(log.mock.calls.join()).not.toContain("v^1.1#token");
    log.mockRestore();
  });

  test.each<[Partial<EbayQuery>, string | null]>([
    [{}, null],
    [{ minPrice: 10, maxPrice: 50 }, "price:[10..50],priceCurrency:USD"],
    [{ maxPrice: 50, marketplaceId: "EBAY_DE" }, "price:[..50],priceCurrency:EUR"],
    [{ maxPrice: 50, marketplaceId: "EBAY_PL" }, "price:[..50],priceCurrency:PLN"],
    [{ minPrice: 50, marketplaceId: "EBAY_HK" }, "price:[50..],priceCurrency:HKD"],
    [{ maxPrice: 50, marketplaceId: "EBAY_ZZ", condition: "new" as const }, "conditionIds:{1000}"],
    [{ condition: "new" }, "conditionIds:{1000}"],
    [{ condition: "open_box" }, "conditionIds:{1500}"],
    [{ shipping: "free", location: "GB" }, "maxDeliveryCost:0,itemLocationCountry:GB"],
  ])("%j is the filter %j", async (fields, filter) => {
    const { url } = await search(fields);
    expect(url.searchParams.get("filter")).toBe(filter);
  });

  test("a category goes by id where it is known, else as a word", async () => {
    const byId = await search({ categoryId: "3197", categoryName: "Furniture" });
    expect(byId.url.searchParams.get("category_ids")).toBe("3197");
    expect(byId.url.searchParams.get("q")).toBe("teak chair");
    const byName = await search({ categoryName: "Furniture" });
    expect(byName.url.searchParams.get("q")).toBe("teak chair Furniture");
  });

  test("sellers below the rating are left out, unknown ones are not", async () => {
    const { products } = await search({ sellerRating: 98, limit: 36 }, [
      item("good"),
      item("bad", { seller: { username: "x", feedbackPercentage: "97.9" } }),
      item("unknown", { seller: { username: "y" } }),
    ]);
    expect(products.map((product) => product.title)).toEqual(["good", "unknown"]);
  });

  test("fast leaves out what is known to be slow", async () => {
    const arriving = (days: number) => ({
      shippingOptions: [
        { maxEstimatedDeliveryDate: new Date(EPOCH_MS + days * 86_400_000).toISOString() },
      ],
    });
    const items = [item("soon", arriving(3)), item("late", arriving(9)), item("unknown")];
    const { products } = await search({ shipping: "fast", limit: 36 }, items);
    expect(products.map((product) => product.title)).toEqual(["soon", "unknown"]);
  });

  test("no match is an empty result, another shape is an error", async () => {
    expect((await search({}, [])).products).toEqual([]);
    const { callIo, gate, run } = setUp(async () => jsonResponse({ warnings: [] }));
    const { tokens } = store("kept");
    const error = await run(failure(searchEbay(QUERY, { gate, tokens, io: callIo })));
    expect(error.code).toBe("upstream_error");
  });

  test("without a client nothing is asked", async () => {
    const { callIo, gate, io, run } = setUp(async () => jsonResponse({}), {});
    const error = await run(
      failure(searchEbay(QUERY, { gate, tokens: store().tokens, io: callIo })),
    );
    expect([error.code, io.requests]).toEqual(["misconfigured", []]);
  });
});

describe("SerpApi", () => {
  const QUERY = { query: "teak chair", limit: 3, country: null, minPrice: null, maxPrice: null };
  // In the shape of https://serpapi.com/shopping-results; the values are our own.
  const ANSWER = {
    search_metadata: { id: "65a0", status: "Success" },
    search_parameters: { engine: "google_shopping", q: "teak chair" },
    shopping_results: [
      {
        position: 1,
        title: "Chair one",
        product_link: "https://shop.example/1",
        product_id: "1",
        source: "Chairs & Co",
        price: "£89.00",
        extracted_price: 89,
        rating: 4.5,
        reviews: 12,
        thumbnail: "https://img.example/1.webp",
        delivery: "Free delivery",
      },
      {
        position: 2,
        title: "Chair two",
        link: "https://shop.example/2",
        source: "Möbel",
        price: "€210.00",
        extracted_price: 210,
        second_hand_condition: "used",
        thumbnail: "data:image/webp;base64,AAAA",
      },
      { position: 3, title: "no link" },
    ],
  };

  test("asks as documented and reads what it knows", async () => {
    const { callIo, gate, io, run } = setUp(async () => jsonResponse(ANSWER));
    const query = { ...QUERY, country: "GB", minPrice: 50, maxPrice: 300 };
    const products = await run(searchShops(gate, query, callIo));
    expect(products).toEqual([
      {
        title: "Chair one",
        price: 89,
        currency: "GBP",
        link: "https://shop.example/1",
        image: "https://img.example/1.webp",
        condition: null,
        source: "Chairs & Co",
        shipping: "Free delivery",
        rating: 4.5,
      },
      {
        title: "Chair two",
        price: 210,
        currency: "EUR",
        link: "https://shop.example/2",
        image: null,
        condition: "used",
        source: "Möbel",
        shipping: null,
        rating: null,
      },
    ]);
    expect(io.requests[0]?.url).toBe(
      "https://serpapi.example/search.json?engine=google_shopping&q=teak+chair&hl=en&gl=gb&min_price=50&max_price=300&api_key=serpapi-key-of-the-test",
    );
  });

  test.each([
    ["MX", "$1,299.00", "MXN"],
    ["CA", "$1,299.00", "CAD"],
    ["BR", "R$ 1.299,00", "BRL"],
    ["DE", "$1,299.00", null],
    [null, "$1,299.00", "USD"],
    [null, "¥1,299", null],
    ["MX", 1299, null],
  ])("in %s a price of %s is in %s", async (country, price, currency) => {
    const [item] = ANSWER.shopping_results;
    const { callIo, gate, run } = setUp(async () =>
      jsonResponse({ ...ANSWER, shopping_results: [{ ...item, price }] }),
    );
    const products = await run(searchShops(gate, { ...QUERY, country }, callIo));
    expect(products.map((product) => product.currency)).toEqual([currency]);
  });

  test("prices outside the range are left out where the engine ignored it", async () => {
    const { callIo, gate, run } = setUp(async () => jsonResponse(ANSWER));
    const products = await run(searchShops(gate, { ...QUERY, maxPrice: 100 }, callIo));
    expect(products.map((product) => product.title)).toEqual(["Chair one"]);
  });

  test("a success without results is empty", async () => {
    // https://serpapi.com/search-errors, "Success with empty organic results"
    const { callIo, gate, run } = setUp(async () =>
      jsonResponse({
        search_metadata: { status: "Success" },
        search_information: { shopping_results_state: "Fully empty" },
        error: "Google hasn't returned any results for this query.",
      }),
    );
    expect(await run(searchShops(gate, QUERY, callIo))).toEqual([]);
  });

  test.each([{ search_metadata: { status: "Error" }, shopping_results: [] }, {}])(
    "a search that failed is no empty result",
    async (answer) => {
      const { callIo, gate, outcomes, run } = setUp(async () => jsonResponse(answer));
      const error = await run(failure(searchShops(gate, QUERY, callIo)));
      expect(error.code).toBe("upstream_error");
      expect(outcomes).toMatchObject([{ kind: "failure" }]);
    },
  );

  test("the key in the address is in no error", async () => {
    const { callIo, gate, run } = setUp(async () => {
      throw new TypeError("fetch failed: serpapi-key-of-the-test");
    });
    const error = await run(failure(searchShops(gate, QUERY, callIo)));
    expect(JSON.stringify(error)).not.toContain(ENV.SERPAPI_API_KEY);
  });
});
