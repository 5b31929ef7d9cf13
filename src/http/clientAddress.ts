import type { Env } from "../config/env";
import { readKnob } from "../config/read";

export interface Client {
  /** In one spelling; null where none is known or believed. */
  readonly address: string | null;
  /**
   * `trusted`: written by your own proxy. `direct`: the platform's, and no header speaks of
   * another. `unverified`: a claim that anybody could have made.
   */
  readonly verified: "trusted" | "direct" | "unverified";
  /**
   * What a limit by address counts under; undefined where only the global limit applies. A bounded
   * number of keys: an IPv6 network of 64 bits is one client, and clients share keys by hash.
   */
  readonly key: string | undefined;
  readonly userAgent: string | null;
}

/** Where nobody asks. */
export const UNKNOWN_CLIENT: Client = {
  address: null,
  verified: "unverified",
  key: undefined,
  userAgent: null,
};

interface Facts {
  /** As the platform reports it. Self-hosted, that is the first forwarded value. */
  readonly ip: string | null;
  readonly headers: Headers;
}

const USER_AGENT_LENGTH_MAX = 256;
/** A header with more values is an attack, not a path. */
const FORWARDED_LENGTH_MAX = 2_048;

/**
 * Who is calling. With `TRUSTED_PROXY_HOPS` n above 0 the address is the n-th value from the right
 * of X-Forwarded-For, which is the one that the outermost of your own proxies saw. Throws
 * `misconfigured` where that knob is not valid.
 */
export function clientOf({ ip, headers }: Facts, env: Env): Client {
  const hops = readKnob(env, "TRUSTED_PROXY_HOPS");
  const forwarded = headers.get("x-forwarded-for");
  const userAgent = headers.get("user-agent")?.slice(0, USER_AGENT_LENGTH_MAX) ?? null;
  const claimed = hops > 0 || forwarded !== null;
  const seen = hops > 0 ? fromRight(forwarded, hops) : ip;
  const address = seen === null ? null : canonicalAddress(seen);
  if (address === null || (claimed && hops === 0))
    return { address, verified: "unverified", key: undefined, userAgent };
  return {
    address,
    verified: hops > 0 ? "trusted" : "direct",
    key: bucketOf(networkOf(address), readKnob(env, "RATE_LIMIT_ADDRESS_KEYS_MAX")),
    userAgent,
  };
}

function fromRight(forwarded: string | null, hops: number): string | null {
  if (forwarded === null || forwarded.length > FORWARDED_LENGTH_MAX) return null;
  return forwarded.split(",").at(-hops)?.trim() ?? null;
}

/** An address in its one spelling, without port, brackets and zone; null for anything else. */
export function canonicalAddress(text: string): string | null {
  const bracketed = /^\[([^\]]*)\](?::\d{1,5})?$/.exec(text)?.[1];
  const bare = bracketed ?? /^([\d.]+):\d{1,5}$/.exec(text)?.[1] ?? text;
  return canonicalV4(bare) ?? canonicalV6(bare.split("%")[0] ?? "");
}

function canonicalV4(text: string): string | null {
  const parts = text.split(".");
  const sound = parts.length === 4 && parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part));
  return sound && parts.every((part) => Number(part) <= 255) ? text : null;
}

const V6_LENGTH_MAX = 45;

function canonicalV6(text: string): string | null {
  if (!text.includes(":") || text.length > V6_LENGTH_MAX) return null;
  const groups = groupsOf(text);
  if (groups === null) return null;
  const mapped = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff;
  // An IPv4 client must not be another one because its packets came in IPv6.
  if (mapped) return groups.slice(6).flatMap(octets).join(".");
  return groups.map((group) => group.toString(16)).join(":");
}

const octets = (group: number): number[] => [group >> 8, group & 255];

/** The eight groups of an IPv6 address; null where the text is none. */
function groupsOf(text: string): number[] | null {
  const [left, right, ...more] = text.split("::");
  if (left === undefined || more.length > 0) return null;
  const before = halfOf(left, right === undefined);
  const after = right === undefined ? [] : halfOf(right, true);
  if (before === null || after === null) return null;
  const missing = 8 - before.length - after.length;
  if (right === undefined ? missing !== 0 : missing < 1) return null;
  return [...before, ...Array.from({ length: missing }, () => 0), ...after];
}

function halfOf(text: string, mayEndInV4: boolean): number[] | null {
  if (text === "") return [];
  const parts = text.split(":");
  const groups: number[] = [];
  for (const [index, part] of parts.entries()) {
    if (/^[0-9a-fA-F]{1,4}$/.test(part)) groups.push(Number.parseInt(part, 16));
    else if (mayEndInV4 && index === parts.length - 1 && canonicalV4(part) !== null) {
      const [a = 0, b = 0, c = 0, d = 0] = part.split(".").map(Number);
      groups.push(a * 256 + b, c * 256 + d);
    } else return null;
  }
  return groups;
}

/** What one subscriber is given: an IPv4 address, or an IPv6 network of 64 bits. */
function networkOf(address: string): string {
  return address.includes(":") ? `${address.split(":").slice(0, 4).join(":")}::/64` : address;
}

function bucketOf(network: string, keysMax: number): string {
  // FNV-1a: evenly spread is all that is asked of it.
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(network))
    hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return `address:${hash % keysMax}`;
}
