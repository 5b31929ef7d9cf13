/** Cache keys: the same question asked in other words of the same arguments has the same key. */
import type { ToolArgs } from "./arguments";
import type { QueuedToolId } from "./table";

/** Longest key kept as it is; a longer one is replaced by its SHA-256 in hex. */
export const CACHE_KEY_CHARS_MAX = 512;

type Value = string | number | null;

const FIELDS: {
  readonly [Id in QueuedToolId]: (args: ToolArgs[Id]) => readonly (readonly [string, Value])[];
} = {
  search_web: (args) => [
    ["q", args.query],
    ["limit", args.limit],
  ],
  // The order is a contract: entries outlive a deployment.
  search_products: (args) => [
    ["q", args.query],
    ["limit", args.limit],
    ["categoryId", args.categoryId],
    ["categoryName", args.categoryName],
    ["minPrice", args.minPrice],
    ["maxPrice", args.maxPrice],
    ["condition", args.condition],
    ["shipping", args.shipping],
    ["sellerRating", args.sellerRating],
    ["location", args.location],
    ["marketplaceId", args.marketplaceId],
  ],
  search_global: (args) => [
    ["q", args.query],
    ["limit", args.limit],
    ["country", args.country],
    ["minPrice", args.minPrice],
    ["maxPrice", args.maxPrice],
  ],
};

/** The cache key of a call, at most `CACHE_KEY_CHARS_MAX` characters. Takes normal arguments. */
export async function cacheKey<Id extends QueuedToolId>(
  id: Id,
  args: ToolArgs[Id],
): Promise<string> {
  const fields: readonly (readonly [string, Value])[] = FIELDS[id](args);
  return await short(fields.map(([name, value]) => `${name}=${escaped(value)}`).join("&"));
}

/** A key as stored: spelling does not miss, and a long one is its hash, so that none is cut. */
export async function canonicalKey(key: string): Promise<string> {
  return await short(canonical(key));
}

const short = async (key: string): Promise<string> =>
  key.length <= CACHE_KEY_CHARS_MAX ? key : await sha256Hex(key);

const canonical = (text: string): string => text.trim().replace(/\s+/g, " ").toLowerCase();

function escaped(value: Value): string {
  // What separates fields must not come from a value, or two questions could share a key.
  return canonical(value === null ? "" : String(value)).replace(/[%&=]/g, (character) =>
    encodeURIComponent(character),
  );
}

async function sha256Hex(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
