import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startSimulators, type Simulators } from "./index";
import { list, record, text } from "./json";

let sim: Simulators;
const env = (name: string): string => sim.env[name] ?? "";

beforeAll(async () => {
  sim = await startSimulators();
});
afterAll(() => sim.close());

describe("eBay", () => {
  const tokenFor = (
    secret: string,
    body = "grant_type=client_credentials&scope=https%3A%2F%2Fapi.ebay.com%2Foauth%2Fapi_scope",
  ) =>
    fetch(`${env("EBAY_BASE_URL")}/identity/v1/oauth2/token`, {
      method: "POST",
      headers: {
        authorization: `Basic ${btoa(`${env("EBAY_CLIENT_ID")}:${secret}`)}`,
        "content-type": "application/x-www-form-urlencoded",
      },
      body,
    });
  async function search(query: string, headers: Record<string, string> = {}) {
    const granted = record(await (await tokenFor(env("EBAY_CLIENT_SECRET"))).json());
    const response = await fetch(
      `${env("EBAY_BASE_URL")}/buy/browse/v1/item_summary/search?${query}`,
      {
        headers: { authorization: `Bearer ${text(granted["access_token"])}`, ...headers },
      },
    );
    return record(await response.json());
  }

  test("a token for the right secret alone", async () => {
    expect(await (await tokenFor(env("EBAY_CLIENT_SECRET"))).json()).toMatchObject({
      expires_in: 7200,
      token_type: "Application Access Token",
    });
    const refused = await tokenFor("wrong");
    expect(refused.status).toBe(401);
    expect(await refused.json()).toEqual({
      error: "invalid_client",
      error_description: "client authentication failed",
    });
    expect((await tokenFor(env("EBAY_CLIENT_SECRET"), "grant_type=password")).status).toBe(400);
    expect(
      (await tokenFor(env("EBAY_CLIENT_SECRET"), "grant_type=client_credentials")).status,
    ).toBe(400);
  });

  test("a search with a wrong token or none is refused in its shape", async () => {
    expect(await search("q=lamp", { authorization: "Bearer wrong" })).toMatchObject({
      errors: [
        { errorId: 1001, domain: "OAuth", category: "REQUEST", message: "Invalid access token" },
      ],
    });
    expect(await search("", {})).toMatchObject({ errors: [{ errorId: 12001 }] });
    expect(await search("q=x&limit=0", {})).toMatchObject({ errors: [{ errorId: 12006 }] });
  });

  test("items page, filter and sort, in the marketplace's currency", async () => {
    const first = await search("q=lamp&limit=5", { "x-ebay-c-marketplace-id": "EBAY_DE" });
    expect(first).toMatchObject({
      total: 60,
      limit: 5,
      offset: 0,
      next: expect.stringContaining("offset=5") as string,
    });
    expect(list(first["itemSummaries"])).toHaveLength(5);
    expect(list(first["itemSummaries"])[0]).toMatchObject({
      itemId: expect.stringMatching(/^v1\|\d{12}\|0$/) as string,
      price: { value: expect.stringMatching(/^\d+\.\d\d$/) as string, currency: "EUR" },
      seller: { feedbackPercentage: expect.any(String) as string },
    });
    expect(await search("q=lamp&limit=5", { "x-ebay-c-marketplace-id": "EBAY_DE" })).toEqual(first);
    const filter = encodeURIComponent(
      "price:[50..200],priceCurrency:USD,conditionIds:{1000|1500},maxDeliveryCost:0,itemLocationCountry:US",
    );
    const some = list(
      (await search(`q=lamp&limit=200&sort=price&filter=${filter}`))["itemSummaries"],
    ).map(record);
    expect(some.length).toBeGreaterThan(0);
    const prices = some.map((one) => Number(record(one["price"])["value"]));
    expect(prices).toEqual(prices.toSorted((one, other) => one - other));
    for (const one of some) {
      expect(Number(record(one["price"])["value"])).toBeGreaterThanOrEqual(50);
      expect(Number(record(one["price"])["value"])).toBeLessThanOrEqual(200);
      expect(["1000", "1500"]).toContain(one["conditionId"]);
      expect(record(one["itemLocation"])["country"]).toBe("US");
      expect(one["shippingOptions"]).toMatchObject([{ shippingCost: { value: "0.00" } }]);
    }
    const used = list(
      (await search("q=lamp&limit=200&filter=conditions:%7BUSED%7D"))["itemSummaries"],
    );
    expect(used.every((one) => record(one)["conditionId"] === "3000")).toBe(true);
  });

  test("nothing found leaves the list out", async () => {
    const nothing = await search("q=%5B%5Bnone%5D%5D");
    expect(nothing["total"]).toBe(0);
    expect(nothing).not.toHaveProperty("itemSummaries");
  });
});

describe("SerpApi", () => {
  const search = (query: string, key = env("SERPAPI_API_KEY")) =>
    fetch(`${env("SERPAPI_BASE_URL")}/search.json?engine=google_shopping&api_key=${key}&${query}`);

  test("shopping results, the same for the same query, and no key in them", async () => {
    const first = await (await search("q=lamp&gl=us&max_price=300")).text();
    const answer = record(JSON.parse(first));
    expect(answer).toMatchObject({
      search_metadata: { status: "Success" },
      search_parameters: { engine: "google_shopping", q: "lamp", gl: "us" },
    });
    const results = list(answer["shopping_results"]).map(record);
    expect(results[0]).toMatchObject({
      position: 1,
      price: expect.stringMatching(/^\$\d/) as string,
    });
    expect(results.every((one) => Number(one["extracted_price"]) <= 300)).toBe(true);
    expect(await (await search("q=lamp&gl=us&max_price=300")).text()).toBe(first);
    expect(first).not.toContain(env("SERPAPI_API_KEY"));
  });

  test("nothing found is a success that says so; a wrong key, engine and query are refused", async () => {
    expect(await (await search("q=%5B%5Bnone%5D%5D")).json()).toMatchObject({
      error: "Google hasn't returned any results for this query.",
    });
    const refused = await search("q=lamp", "wrong");
    expect(refused.status).toBe(401);
    expect(record(await refused.json())["error"]).toContain("Invalid API key");
    expect((await search("")).status).toBe(400);
    const state = await (await fetch(`${sim.url}/control/state`)).text();
    expect(state).toContain("api_key=***");
    expect(state).not.toContain(env("SERPAPI_API_KEY"));
  });
});
