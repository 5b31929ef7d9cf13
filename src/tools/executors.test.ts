import { describe, expect, test } from "vitest";
import type { Env } from "../config/env";
import { AppError, errorData } from "../errors/appError";
import type { CallIo, Gate } from "../providers/call";
import { EPOCH_MS, jsonResponse, virtualIo } from "../providers/testing";
import { parseToolArgs } from "./definitions";
import { runTool } from "./executors";
import { cachePolicy, queuePolicy } from "./policy";
import { asOld, isCacheable, TOOL_RESULT_BYTES_MAX, type ToolDeps, toolResult } from "./result";
import { TOOL_IDS, type ToolId, toolRow, TOOLS } from "./table";

const ENV: Env = {
  SERPER_API_KEY: "serper-key-of-the-test",
  SERPAPI_API_KEY: "serpapi-key-of-the-test",
  EBAY_CLIENT_ID: "ebay-id-of-the-test",
  EBAY_CLIENT_SECRET: "ebay-secret-of-the-test",
};

const hit = (n: number) => ({ title: `hit ${n}`, link: `https://x.example/${n}`, snippet: "s" });
const ebayItem = (n: number, title = `ebay ${n}`) => ({
  title,
  itemWebUrl: `https://ebay.example/${n}`,
  price: { value: "5.00", currency: "USD" },
});
const shopItem = (n: number, title = `shop ${n}`) => ({
  title,
  product_link: `https://shop.example/${n}`,
  extracted_price: 7,
});
const times = <T>(count: number, make: (n: number) => T) =>
  Array.from({ length: count }, (_, n) => make(n));

interface Sources {
  readonly serper?: () => Response;
  readonly ebay?: () => Response;
  readonly shops?: () => Response;
  readonly env?: Env;
  readonly gate?: Partial<Gate>;
}

const found = {
  serper: () => jsonResponse({ organic: times(2, hit) }),
  ebay: () => jsonResponse({ total: 2, itemSummaries: times(2, (n) => ebayItem(n)) }),
  shops: () =>
    jsonResponse({
      search_metadata: { status: "Success" },
      shopping_results: times(2, (n) => shopItem(n)),
    }),
};
const nothing = {
  serper: () => jsonResponse({ organic: [], searchParameters: {} }),
  ebay: () => jsonResponse({ total: 0 }),
  shops: () => jsonResponse({ search_metadata: { status: "Success" } }),
};
const down = () => jsonResponse({ error: "a secret word" }, { status: 503 });

async function run(id: ToolId, raw: unknown, sources: Sources = {}) {
  const { serper, ebay, shops } = { ...found, ...sources };
  const { io, run: drive } = virtualIo(async (_, __, virtual) => {
    const { hostname } = new URL(virtual.requests.at(-1)?.url ?? "");
    if (hostname.includes("serper")) return serper();
    return hostname.includes("ebay") ? ebay() : shops();
  });
  const callIo: CallIo = { ...io, env: sources.env ?? ENV };
  const deps: ToolDeps = {
    gate: {
      admit: async () => ({ ok: true, permit: 1 }),
      mayRetry: async () => false,
      settle: async () => undefined,
      ...sources.gate,
    },
    io: callIo,
    tokens: { load: async () => "kept-token", store: async () => undefined },
  };
  const parsed = parseToolArgs(id, raw);
  if (!parsed.ok) throw new Error(parsed.problem);
  const settled = await drive(
    runTool<ToolId>(id, parsed.args, deps).then(
      (result) => ({ result, error: null }),
      (error: unknown) => ({ result: null, error: errorData(error) }),
    ),
  );
  const value = (settled.result === null ? {} : JSON.parse(settled.result.value)) as {
    results?: { title: string }[];
    missing?: string[];
    note?: string;
    answer?: string;
  };
  return { ...settled, value, requests: io.requests };
}

const titles = (value: { results?: { title: string }[] }) => value.results?.map((one) => one.title);

describe("a search of one source", () => {
  test.each<[ToolId]>([["search_web"], ["search_global"]])(
    "%s with results is complete",
    async (id) => {
      const { result, value } = await run(id, { query: "x" });
      expect(result).toMatchObject({ kind: "complete", missing: [] });
      expect(value.results).toHaveLength(2);
      expect(value.note).toBeUndefined();
    },
  );

  test.each<[ToolId]>([["search_web"], ["search_global"]])(
    "%s without results is empty",
    async (id) => {
      const { result, value } = await run(id, { query: "x" }, nothing);
      expect(result).toMatchObject({ kind: "empty", missing: [] });
      expect(value).toMatchObject({ results: [], note: "The search worked and found nothing." });
    },
  );

  test.each<[ToolId]>([["search_web"], ["search_global"]])(
    "%s that failed is an error",
    async (id) => {
      const { error } = await run(id, { query: "x" }, { serper: down, shops: down });
      expect(error?.code).toBe("upstream_unavailable");
      expect(JSON.stringify(error)).not.toContain("secret");
    },
  );

  test("an answer alone is a result", async () => {
    const serper = () => jsonResponse({ organic: [], answerBox: { snippet: "42" } });
    const { result, value } = await run("search_web", { query: "x" }, { serper });
    expect(result?.kind).toBe("complete");
    expect(value.answer).toBe("42");
  });
});

describe("a product search", () => {
  test("takes turns between its sources, up to the limit", async () => {
    const { result, value } = await run("search_products", { query: "x", limit: 3 });
    expect(titles(value)).toEqual(["ebay 0", "shop 0", "ebay 1"]);
    expect(result?.kind).toBe("complete");
  });

  test.each([
    ["eBay", { ebay: down }, "ebay_search", ["shop 0", "shop 1"]],
    ["shops", { shops: down }, "global_search", ["ebay 0", "ebay 1"]],
  ])("without %s is partial and names what is missing", async (_, sources, missing, expected) => {
    const { result, value } = await run("search_products", { query: "x" }, sources);
    expect(result).toMatchObject({ kind: "partial", missing: [missing] });
    expect(titles(value)).toEqual(expected);
    expect(value.missing).toHaveLength(1);
    expect(value.note).toContain("failed");
  });

  test("a source that failed beside one that is empty is never «nothing found»", async () => {
    const { result, value } = await run(
      "search_products",
      { query: "x" },
      { ...nothing, ebay: down },
    );
    expect(result).toMatchObject({ kind: "partial", missing: ["ebay_search"] });
    expect(value.note).toContain("failed");
    expect(value.note).not.toContain("found nothing");
  });

  test("a source without a key is a missing source", async () => {
    const env = { ...ENV, SERPAPI_API_KEY: "" };
    const { result } = await run("search_products", { query: "x" }, { env });
    expect(result).toMatchObject({ kind: "partial", missing: ["global_search"] });
  });

  test("both sources empty is empty", async () => {
    expect((await run("search_products", { query: "x" }, nothing)).result?.kind).toBe("empty");
  });

  test("both sources down is a failure that may be retried", async () => {
    const slow = () => jsonResponse({}, { status: 429, headers: { "retry-after": "30" } });
    const { error } = await run("search_products", { query: "x" }, { ebay: down, shops: slow });
    expect(error).toMatchObject({ code: "upstream_unavailable", retryAfterMs: 30_000 });
  });

  test("a missing key does not hide a source that is down", async () => {
    const env = { ...ENV, EBAY_CLIENT_ID: "" };
    const { error } = await run("search_products", { query: "x" }, { env, shops: down });
    expect(error?.code).toBe("upstream_unavailable");
    const none = await run("search_products", { query: "x" }, { env: {} });
    expect(none.error?.code).toBe("misconfigured");
  });

  test("a gate that refuses one source leaves the other", async () => {
    const gate: Partial<Gate> = {
      admit: async (provider) => {
        if (provider === "ebay_search") throw new AppError("overloaded", { retryAfterMs: 10 });
        return { ok: true, permit: 1 };
      },
    };
    const { result } = await run("search_products", { query: "x" }, { gate });
    expect(result).toMatchObject({ kind: "partial", missing: ["ebay_search"] });
  });
});

describe("what fits", () => {
  const wide = "ü".repeat(3_000);

  test("too many results lose whole items and say how many", async () => {
    const ebay = () =>
      jsonResponse({ total: 36, itemSummaries: times(36, (n) => ebayItem(n, `${n} ${wide}`)) });
    const { result, value } = await run("search_products", { query: "x" }, { ...nothing, ebay });
    expect(new TextEncoder().encode(result?.value).byteLength).toBeLessThanOrEqual(
      TOOL_RESULT_BYTES_MAX,
    );
    const kept = value.results?.length ?? 0;
    expect(kept).toBeGreaterThan(5);
    expect(value.note).toBe(`${36 - kept} more results were left out.`);
    for (const title of titles(value) ?? []) expect(title.endsWith(wide)).toBe(true);
    // One more would not have fitted.
    const oneMore = JSON.stringify({
      ...value,
      results: [...(value.results ?? []), value.results?.[0]],
    });
    expect(new TextEncoder().encode(oneMore).byteLength).toBeGreaterThan(TOOL_RESULT_BYTES_MAX);
  });

  test("a single item that does not fit is left out, and that is not «nothing found»", () => {
    const huge = { title: "x".repeat(TOOL_RESULT_BYTES_MAX) };
    const { kind, value } = toolResult({ head: { query: "q" }, results: [huge], missing: [] });
    expect(kind).toBe("complete");
    expect(JSON.parse(value)).toEqual({
      query: "q",
      results: [],
      note: "1 more results were left out.",
    });
  });

  test("only a complete result may be cached", () => {
    const source = { id: "ebay_search", title: "eBay" };
    const result = (results: unknown[], missing: (typeof source)[]) =>
      isCacheable(toolResult({ head: {}, results, missing }));
    expect([result([1], []), result([], []), result([1], [source]), result([], [source])]).toEqual([
      true,
      false,
      false,
      false,
    ]);
  });
});

describe("an old result", () => {
  const note = (ago: string) =>
    `The search could not be repeated just now. These results are from ${ago}; say so.`;

  test.each([
    [0, "less than a minute ago"],
    [59_999, "less than a minute ago"],
    [60_000, "1 minute ago"],
    [3_599_999, "59 minutes ago"],
    [3_600_000, "1 hour ago"],
    [86_400_000, "1 day ago"],
    [200_000_000, "2 days ago"],
  ])("of %i ms says so to the model", (ageMs, ago) => {
    expect(JSON.parse(asOld('{"query":"q","results":[1]}', ageMs))).toEqual({
      query: "q",
      results: [1],
      note: note(ago),
    });
  });

  test("keeps the note it had; one that is no object has the note below it", () => {
    const noted = JSON.parse(asOld('{"note":"3 more."}', 0)) as { note: string };
    expect(noted.note).toBe(`3 more. ${note("less than a minute ago")}`);
    expect(asOld("plain", 0)).toBe(`plain\n${note("less than a minute ago")}`);
  });
});

describe("the current time", () => {
  test("is in Jamaica unless a zone is given, and asks nobody", async () => {
    const { requests, result } = await run("get_current_time", {});
    expect(JSON.parse(result?.value ?? "")).toEqual({
      timeZone: "America/Jamaica",
      local: "Friday, January 15, 2027 at 3:00:00 AM EST",
      utc: new Date(EPOCH_MS).toISOString(),
    });
    expect(requests).toEqual([]);
    const tokyo = await run("get_current_time", { timeZone: "Asia/Tokyo" });
    expect(tokyo.result?.value).toContain("5:00:00 PM");
  });
});

describe("the table", () => {
  test("limits of a turn", () => {
    expect(TOOL_IDS.map((id) => [id, toolRow(id).turnMax])).toEqual([
      ["search_web", 2],
      ["search_products", 2],
      ["search_global", 2],
      ["get_current_time", 1],
    ]);
  });

  test("cache policies", () => {
    expect(cachePolicy({}, "search_web")).toEqual({ namespace: "search_web_v1", ttlMs: 300_000 });
    expect(cachePolicy({}, "search_products")).toEqual({
      namespace: "search_products_v1",
      ttlMs: 600_000,
    });
    expect(cachePolicy({}, "search_global")?.namespace).toBe("search_global_v1");
    expect(cachePolicy({}, "get_current_time")).toBeNull();
    const env = {
      TOOL_CACHE_WEB_SEARCH_NAMESPACE_VERSION: "v2",
      TOOL_CACHE_PRODUCTS_NS_VER: "b-7",
      TOOL_CACHE_WEB_SEARCH_TTL_MS: "6000",
      TOOL_CACHE_PRODUCT_SEARCH_TTL_MS: "7000",
    };
    expect(cachePolicy(env, "search_web")).toEqual({ namespace: "search_web_v2", ttlMs: 6_000 });
    expect(cachePolicy(env, "search_products")).toEqual({
      namespace: "search_products_b-7",
      ttlMs: 7_000,
    });
  });

  test("queue policies", () => {
    expect(queuePolicy({}, "search_web")).toEqual({
      qos: "realtime",
      weight: 2,
      runMax: 2,
      queueMax: 80,
    });
    expect(queuePolicy({}, "search_products")).toEqual({
      qos: "interactive",
      weight: 2,
      runMax: 2,
      queueMax: 80,
    });
    expect(queuePolicy({}, "search_global")).toEqual({
      qos: "batch",
      weight: 1,
      runMax: 1,
      queueMax: 40,
    });
    expect(queuePolicy({}, "get_current_time")).toBeNull();
    const env = {
      TOOL_JOB_RUNMAX_GLOB: "9",
      TOOL_JOB_QMAX_GLOB: "3",
      TOOL_JOB_RUNMAX_QOS_BATCH: "4",
    };
    expect(queuePolicy(env, "search_global")).toEqual({
      qos: "batch",
      weight: 4,
      runMax: 9,
      queueMax: 3,
    });
  });

  test("every degraded text says that nothing was searched, not that nothing was found", () => {
    for (const id of TOOL_IDS) expect(TOOLS[id].degraded).not.toMatch(/no results|found nothing/i);
  });
});
