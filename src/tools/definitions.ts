/** What the model is told of the tools, and the reading of what it then writes. */
import * as z from "zod";
import { beginningOf } from "../core/wellFormed";
import type { ToolDefinition } from "../providers/chat";
import { asObject } from "../providers/json";
import { PRODUCT_CONDITIONS, PRODUCT_SHIPPING, type ToolArgs } from "./arguments";
import { offeredToolIds, type ToolId } from "./table";

const QUERY_CHARS_MAX = 512;
const WEB_RESULTS_MAX = 20;
const PRODUCTS_MAX = 36;
const SELLER_RATING_MIN = 95;
const DEFAULT_TIME_ZONE = "America/Jamaica";

const WEB_RESULTS_DEFAULT = 10;
const TERM_CHARS_MAX = 128;

const query = z.string().describe("What to search for, in a few words.");
const price = (which: string) => z.number().optional().describe(`${which} price in US dollars.`);

/** Loose on purpose: a model's small slips are put right below instead of costing a cycle. */
const SCHEMAS = {
  search_web: z.object({
    query,
    limit: z.number().optional().describe(`Results wanted, 1 to ${WEB_RESULTS_MAX}.`),
  }),
  search_products: z.object({
    query,
    limit: z.number().optional().describe(`Products wanted, 1 to ${PRODUCTS_MAX}.`),
    categoryId: z.string().optional().describe("eBay category id, if known."),
    categoryName: z.string().optional().describe("Category in words."),
    minPrice: price("Lowest"),
    maxPrice: price("Highest"),
    condition: z.enum(PRODUCT_CONDITIONS).optional(),
    shipping: z.enum(PRODUCT_SHIPPING).optional(),
    sellerRating: z
      .number()
      .optional()
      .describe(`Least positive feedback of the seller in percent, ${SELLER_RATING_MIN} to 100.`),
    location: z.string().optional().describe("Two-letter country of the item, such as US."),
    marketplaceId: z.string().optional().describe("eBay marketplace, such as EBAY_US."),
  }),
  search_global: z.object({
    query,
    limit: z.number().optional().describe(`Products wanted, 1 to ${PRODUCTS_MAX}.`),
    country: z.string().optional().describe("Two-letter country whose shops to search."),
    minPrice: price("Lowest"),
    maxPrice: price("Highest"),
  }),
  get_current_time: z.object({
    timeZone: z
      .string()
      .optional()
      .describe(`IANA time zone, such as Europe/Paris. Default ${DEFAULT_TIME_ZONE}.`),
  }),
} as const satisfies Record<ToolId, z.ZodObject>;

const DESCRIPTIONS: Record<ToolId, string> = {
  search_web: "Search the web for current information. Cite the links you use.",
  search_products:
    "Search products for sale on eBay and in online shops, with prices, condition and links.",
  search_global: "Search products in online shops worldwide, with prices and links.",
  get_current_time: "The current date and time.",
};

/** The definitions to send with a turn; `search_web` only when the turn asked for web search. */
export function toolDefinitions(turn: { readonly webSearch: boolean }): ToolDefinition[] {
  return offeredToolIds(turn).map(toolDefinition);
}

function toolDefinition(id: ToolId): ToolDefinition {
  const parameters: Record<string, unknown> = { ...z.toJSONSchema(SCHEMAS[id], { io: "input" }) };
  // Which dialect it is written in is no concern of a model, and some providers refuse the key.
  delete parameters["$schema"];
  return { type: "function", function: { name: id, description: DESCRIPTIONS[id], parameters } };
}

export type ParsedArgs<Id extends ToolId> =
  | { readonly ok: true; readonly args: ToolArgs[Id] }
  /** `problem` is for the model, which may try again. */
  | { readonly ok: false; readonly problem: string };

/**
 * The arguments of a call, checked and normal; `raw` is what the model wrote, parsed as JSON, or
 * normal arguments that were stored: those come back as they are.
 */
export function parseToolArgs<Id extends ToolId>(id: Id, raw: unknown): ParsedArgs<Id> {
  const parsed = SCHEMAS[id].safeParse(withoutNulls(raw));
  if (!parsed.success) return { ok: false, problem: problemOf(parsed.error) };
  const args = NORMALIZE[id](parsed.data as never);
  return typeof args === "string" ? { ok: false, problem: args } : { ok: true, args };
}

type Input<Id extends ToolId> = z.infer<(typeof SCHEMAS)[Id]>;

const NORMALIZE: { readonly [Id in ToolId]: (input: Input<Id>) => ToolArgs[Id] | string } = {
  search_web: (input) => {
    const words = queryOf(input.query);
    return words === ""
      ? NO_QUERY
      : { query: words, limit: clamp(input.limit ?? WEB_RESULTS_DEFAULT, 1, WEB_RESULTS_MAX) };
  },
  search_products: (input) => {
    const words = queryOf(input.query);
    if (words === "") return NO_QUERY;
    return {
      query: words,
      limit: clamp(input.limit ?? PRODUCTS_MAX, 1, PRODUCTS_MAX),
      categoryId: term(input.categoryId),
      categoryName: term(input.categoryName),
      ...prices(input),
      condition: input.condition ?? null,
      shipping: input.shipping ?? null,
      sellerRating: clamp(input.sellerRating ?? SELLER_RATING_MIN, SELLER_RATING_MIN, 100),
      location: country(input.location),
      marketplaceId: marketplace(input.marketplaceId),
    };
  },
  search_global: (input) => {
    const words = queryOf(input.query);
    if (words === "") return NO_QUERY;
    return {
      query: words,
      limit: clamp(input.limit ?? PRODUCTS_MAX, 1, PRODUCTS_MAX),
      country: country(input.country),
      ...prices(input),
    };
  },
  get_current_time: (input) => {
    const timeZone = term(input.timeZone) ?? DEFAULT_TIME_ZONE;
    return isTimeZone(timeZone) ? { timeZone } : "timeZone is not the name of a time zone.";
  },
};

/** Null is how models, and our own normal form, write that an argument is absent. */
function withoutNulls(raw: unknown): unknown {
  const args = asObject(raw);
  if (args === null) return raw;
  return Object.fromEntries(Object.entries(args).filter(([, value]) => value !== null));
}

const NO_QUERY = "query is empty.";
const ISSUES_MAX = 5;

function problemOf(error: z.ZodError): string {
  return error.issues
    .slice(0, ISSUES_MAX)
    .map((issue) => `${issue.path.map(String).join(".") || "arguments"}: ${issue.message}`)
    .join("; ");
}

function queryOf(text: string): string {
  return beginningOf(text.replace(/\s+/g, " ").trim(), QUERY_CHARS_MAX).trim();
}

function term(text: string | undefined): string | null {
  const words = beginningOf((text ?? "").replace(/\s+/g, " ").trim(), TERM_CHARS_MAX).trim();
  return words === "" ? null : words;
}

function country(text: string | undefined): string | null {
  const code = (text ?? "").trim().toUpperCase();
  return /^[A-Z]{2}$/.test(code) ? code : null;
}

function marketplace(text: string | undefined): string | null {
  const id = (text ?? "").trim().toUpperCase();
  return /^EBAY_[A-Z]{2,8}$/.test(id) ? id : null;
}

/** Prices that are no prices are left out; a range the wrong way round is turned. */
function prices(input: { minPrice?: number | undefined; maxPrice?: number | undefined }): {
  minPrice: number | null;
  maxPrice: number | null;
} {
  const [min, max] = [amount(input.minPrice), amount(input.maxPrice)];
  return min !== null && max !== null && min > max
    ? { minPrice: max, maxPrice: min }
    : { minPrice: min, maxPrice: max };
}

function amount(value: number | undefined): number | null {
  return value !== undefined && Number.isFinite(value) && value >= 0 ? value : null;
}

function clamp(value: number, min: number, max: number): number {
  return Math.min(max, Math.max(min, Math.round(value)));
}

function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false;
  }
}
