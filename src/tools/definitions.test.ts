import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseToolArgs, toolDefinitions } from "./definitions";
import { isToolId, TOOL_IDS, type ToolId } from "./table";

function normal<Id extends ToolId>(id: Id, raw: unknown) {
  const parsed = parseToolArgs(id, raw);
  if (!parsed.ok) throw new Error(parsed.problem);
  return parsed.args;
}

describe("definitions", () => {
  const names = (webSearch: boolean) =>
    toolDefinitions({ webSearch }).map((tool) => tool.function.name);

  test("search_web is offered only with web search", () => {
    expect(names(true)).toEqual(TOOL_IDS);
    expect(names(false)).toEqual(["search_products", "search_global", "get_current_time"]);
  });

  test("have OpenAI's shape", () => {
    for (const tool of toolDefinitions({ webSearch: true })) {
      expect(tool.type).toBe("function");
      expect(tool.function.description).not.toBe("");
      expect(tool.function.parameters).toMatchObject({ type: "object" });
      expect(tool.function.parameters).not.toHaveProperty("$schema");
    }
    const [web] = toolDefinitions({ webSearch: true });
    expect(web?.function.parameters).toMatchObject({
      required: ["query"],
      properties: { query: { type: "string" }, limit: { type: "number" } },
    });
  });

  test("a name a model invents is no tool", () => {
    expect(isToolId("search_web")).toBe(true);
    expect(["toString", "__proto__", "search", ""].map(isToolId)).toEqual([
      false,
      false,
      false,
      false,
    ]);
  });
});

describe("arguments", () => {
  test("products: defaults", () => {
    expect(normal("search_products", { query: "  teak   chair " })).toEqual({
      query: "teak chair",
      limit: 36,
      categoryId: null,
      categoryName: null,
      minPrice: null,
      maxPrice: null,
      condition: null,
      shipping: null,
      sellerRating: 95,
      location: null,
      marketplaceId: null,
    });
  });

  test.each([
    [{ limit: 0 }, { limit: 1 }],
    [{ limit: 99 }, { limit: 36 }],
    [{ limit: 7.4 }, { limit: 7 }],
    [{ sellerRating: 20 }, { sellerRating: 95 }],
    [{ sellerRating: 98 }, { sellerRating: 98 }],
    [{ sellerRating: 101 }, { sellerRating: 100 }],
    [
      { minPrice: 90, maxPrice: 10 },
      { minPrice: 10, maxPrice: 90 },
    ],
    [
      { minPrice: -1, maxPrice: 10 },
      { minPrice: null, maxPrice: 10 },
    ],
    [{ condition: "open_box" }, { condition: "open_box" }],
    [{ shipping: "fast" }, { shipping: "fast" }],
    [{ location: "us" }, { location: "US" }],
    [{ location: "the moon" }, { location: null }],
    [{ marketplaceId: "ebay_gb" }, { marketplaceId: "EBAY_GB" }],
    [{ marketplaceId: "AMAZON" }, { marketplaceId: null }],
    [
      { minPrice: null, condition: null },
      { minPrice: null, condition: null },
    ],
  ])("products: %j becomes %j", (raw, expected) => {
    expect(normal("search_products", { query: "x", ...raw })).toMatchObject(expected);
  });

  test.each<[ToolId, unknown]>([
    ["search_web", {}],
    ["search_web", { query: "   " }],
    ["search_web", { query: 5 }],
    ["search_web", null],
    ["search_web", "text"],
    ["search_products", { query: "x", condition: "broken" }],
    ["search_global", { query: "" }],
    ["get_current_time", { timeZone: "Atlantis/Centre" }],
  ])("%s refuses %j and says why", (id, raw) => {
    const parsed = parseToolArgs(id, raw);
    expect(parsed.ok).toBe(false);
    if (!parsed.ok) expect(parsed.problem.length).toBeGreaterThan(5);
  });

  test("time: Jamaica unless told otherwise", () => {
    expect(normal("get_current_time", {})).toEqual({ timeZone: "America/Jamaica" });
    expect(normal("get_current_time", { timeZone: "Asia/Tokyo" })).toEqual({
      timeZone: "Asia/Tokyo",
    });
  });

  test("whatever a model writes, the arguments are within bounds and stay what they are", () => {
    const raw = fc.record(
      {
        query: fc.string({ minLength: 1, maxLength: 700 }),
        limit: fc.double(),
        minPrice: fc.double(),
        maxPrice: fc.double(),
        sellerRating: fc.double(),
        location: fc.string(),
        categoryName: fc.string({ maxLength: 300 }),
      },
      { requiredKeys: ["query"] },
    );
    fc.assert(
      fc.property(raw, (written) => {
        const parsed = parseToolArgs("search_products", written);
        if (!parsed.ok) return;
        const { limit, maxPrice, minPrice, query, sellerRating } = parsed.args;
        expect(query.length).toBeLessThanOrEqual(512);
        expect(limit >= 1 && limit <= 36 && Number.isInteger(limit)).toBe(true);
        expect(sellerRating >= 95 && sellerRating <= 100).toBe(true);
        if (minPrice !== null && maxPrice !== null) expect(minPrice).toBeLessThanOrEqual(maxPrice);
        // A queued job stores them as JSON and reads them again.
        const stored = JSON.parse(JSON.stringify(parsed.args)) as unknown;
        expect(normal("search_products", stored)).toEqual(stored);
      }),
    );
  });

  test.each<[ToolId, unknown]>([
    ["search_web", { query: "a" }],
    ["search_products", { query: "a", minPrice: 3 }],
    ["search_global", { query: "a" }],
    ["get_current_time", {}],
  ])("normal arguments of %s are read as they are", (id, raw) => {
    const args = normal(id, raw);
    expect(normal(id, JSON.parse(JSON.stringify(args)))).toEqual(args);
  });
});
