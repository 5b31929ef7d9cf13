import * as fc from "fast-check";
import { expect, test } from "vitest";
import type { ProductSearchArgs } from "./arguments";
import { CACHE_KEY_CHARS_MAX, cacheKey, canonicalKey } from "./keys";

const PRODUCTS: ProductSearchArgs = {
  query: "Teak  Chair",
  limit: 36,
  categoryId: null,
  categoryName: "Garden",
  minPrice: 10,
  maxPrice: 99.5,
  condition: "new",
  shipping: null,
  sellerRating: 95,
  location: "US",
  marketplaceId: "EBAY_US",
};

test("the key of a product search is the documented one", async () => {
  expect(await cacheKey("search_products", PRODUCTS)).toBe(
    "q=teak chair&limit=36&categoryId=&categoryName=garden&minPrice=10&maxPrice=99.5&condition=new&shipping=&sellerRating=95&location=us&marketplaceId=ebay_us",
  );
});

test("the other tools' keys hold all of their arguments", async () => {
  expect(await cacheKey("search_web", { query: "Tides", limit: 10 })).toBe("q=tides&limit=10");
  const global = { query: "Tea", limit: 5, country: "GB", minPrice: null, maxPrice: 4 };
  expect(await cacheKey("search_global", global)).toBe(
    "q=tea&limit=5&country=gb&minPrice=&maxPrice=4",
  );
});

test("a long key is its SHA-256, a key of exactly the bound is itself", async () => {
  const fixed = "q=&limit=10".length;
  const query = "a".repeat(CACHE_KEY_CHARS_MAX - fixed);
  const exact = await cacheKey("search_web", { query, limit: 10 });
  expect(exact).toBe(`q=${query}&limit=10`);
  const over = await cacheKey("search_web", { query: `${query}b`, limit: 10 });
  expect(over).toMatch(/^[0-9a-f]{64}$/);
  const hashed = await cacheKey("search_web", { query: "x".repeat(600), limit: 1 });
  // printf 'q=%s&limit=1' "$(printf 'x%.0s' $(seq 600))" | sha256sum
  expect(hashed).toBe("1911d90f67a36cd120e61028f7987282f61a04240582a028fabe32e5a437f964");
});

const text = fc.oneof(
  fc.string({ maxLength: 20 }),
  fc.constantFrom("a&categoryName=b", "%26", "="),
);

test("only arguments that mean the same share a key", async () => {
  const same = (value: string | null) => (value ?? "").trim().replace(/\s+/g, " ").toLowerCase();
  const part = fc.tuple(text, fc.option(text), fc.option(text));
  await fc.assert(
    fc.asyncProperty(part, part, async (one, other) => {
      const keys = await Promise.all(
        [one, other].map(async ([query, categoryId, categoryName]) =>
          cacheKey("search_products", { ...PRODUCTS, query, categoryId, categoryName }),
        ),
      );
      const meansTheSame = one.every((value, i) => same(value) === same(other[i] ?? null));
      expect(keys[0] === keys[1]).toBe(meansTheSame);
    }),
    { numRuns: 500 },
  );
  const shifted = { ...PRODUCTS, categoryId: "x", categoryName: "y&categoryName=z" };
  const other = { ...PRODUCTS, categoryId: "x&categoryName=y", categoryName: "z" };
  expect(await cacheKey("search_products", shifted)).not.toBe(
    await cacheKey("search_products", other),
  );
});

test("a key given as text is stored as a built one is, and stays as it is when stored again", async () => {
  const built = await cacheKey("search_products", PRODUCTS);
  expect(await canonicalKey(built)).toBe(built.toLowerCase());
  await fc.assert(
    fc.asyncProperty(fc.string({ maxLength: 800, size: "max" }), async (key) => {
      const stored = await canonicalKey(key);
      expect(stored.length).toBeLessThanOrEqual(CACHE_KEY_CHARS_MAX);
      expect(await canonicalKey(`  ${key.toLowerCase()}\t`)).toBe(stored);
      expect(await canonicalKey(stored)).toBe(stored);
    }),
  );
});
