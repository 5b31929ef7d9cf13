import * as z from "zod";
import { AppError, errorData } from "../../errors/appError";
import { HOUR, MINUTE, SECOND } from "../../core/time";
import { KEY_REFRESH_GAP_MS } from "./keyRefresh";

/** One of Google's RSA signing keys: modulus and exponent as in a JSON Web Key. */
export interface GoogleKey {
  readonly kid: string;
  readonly n: string;
  readonly e: string;
}

export interface FetchedKeys {
  readonly keys: readonly GoogleKey[];
  /** Until when Google says that the set need not be fetched again. */
  readonly freshUntilMs: number;
}

export interface StoredKeys extends FetchedKeys {
  /** When a refresh was last begun, whether or not it succeeded. */
  readonly attemptedAtMs: number;
  /** When the keys were last fetched; 0 before the first success. */
  readonly fetchedAtMs: number;
  /** When a refresh last failed; absent before the first failure. */
  readonly failedAtMs?: number;
}

/** Where keys live and come from. The table and the network are the caller's. */
export interface KeySource {
  readonly read: () => Promise<StoredKeys | null>;
  /** Records an attempt; false when another began within `KEY_REFRESH_GAP_MS`. */
  readonly beginRefresh: () => Promise<boolean>;
  /** Fetches the published keys. Throws when it cannot. */
  readonly fetch: () => Promise<FetchedKeys>;
  /** Stores what a refresh brought; null where it failed. */
  readonly save: (fetched: FetchedKeys | null) => Promise<void>;
  readonly sleep: (ms: number) => Promise<void>;
}

/** A known key serves this long past its freshness while a refresh is under way or failing. */
const KEY_GRACE_MS = HOUR;
/** A refresh that another call began this lately is still under way, and waited for. */
const REFRESH_TAKES_MAX_MS = 5 * SECOND;
const REFRESH_LOOK_MS = SECOND / 10;
const FRESH_MIN_MS = 5 * MINUTE;
const FRESH_MAX_MS = 24 * HOUR;
const KEYS_MAX = 20;
/** Ids that are longer are neither kept nor looked for. */
export const KEY_ID_LENGTH_MAX = 256;
/** Base64url of an 8,192-bit modulus, and some room. */
const MODULUS_LENGTH_MAX = 1_400;

/**
 * The published key of this id. Throws `forbidden` for an id that Google did not publish when it was
 * asked since this token came, and `upstream_unavailable` where it cannot be asked now: the set may
 * have changed since it was fetched, so the sender has to come again once it may be asked.
 */
export async function findKey(source: KeySource, kid: string, nowMs: number): Promise<GoogleKey> {
  const stored = await source.read();
  const freshUntilMs = stored?.freshUntilMs ?? 0;
  const known = nowMs < freshUntilMs + KEY_GRACE_MS ? pick(stored?.keys ?? [], kid) : undefined;
  if (known !== undefined && nowMs < freshUntilMs) return known;
  const refreshed = await refresh(source, stored, nowMs);
  if (typeof refreshed !== "string") return pick(refreshed.keys, kid) ?? refuse();
  if (known !== undefined) return known;
  if (refreshed === "failed") throw unavailable(COULD_NOT_FETCH, KEY_REFRESH_GAP_MS);
  // Pushes come in crowds: those that lost the race for a refresh wait for who won it.
  const theirs = await refreshOfAnother(source, nowMs);
  if (theirs === null || theirs.fetchedAtMs < theirs.attemptedAtMs)
    throw unavailable(COULD_NOT_FETCH, gapLeftMs(theirs, nowMs));
  const key = pick(theirs.keys, kid);
  if (key !== undefined) return key;
  // What was asked for before the token came may have been answered before its key was published,
  // however late the answer. Where clocks differ and this errs, the sender only comes once more.
  if (theirs.attemptedAtMs >= nowMs) return refuse();
  throw unavailable(NOT_KNOWN_YET, gapLeftMs(theirs, nowMs));
}

/**
 * Reads a key set and its freshness from an answer of Google's certificate endpoint; null where it
 * holds no key.
 */
export function readKeySet(
  body: unknown,
  cacheControl: string | null,
  nowMs: number,
): FetchedKeys | null {
  const parsed = KeySet.safeParse(body);
  if (!parsed.success) return null;
  const keys = parsed.data.keys.flatMap((row) => {
    const key = SigningKey.safeParse(row);
    return key.success ? [{ kid: key.data.kid, n: key.data.n, e: key.data.e }] : [];
  });
  if (keys.length === 0) return null;
  const maxAgeSeconds = Number(/max-age=(\d{1,9})/.exec(cacheControl ?? "")?.[1] ?? 0);
  const freshMs = Math.min(Math.max(maxAgeSeconds * SECOND, FRESH_MIN_MS), FRESH_MAX_MS);
  return { keys: keys.slice(0, KEYS_MAX), freshUntilMs: nowMs + freshMs };
}

const KeySet = z.looseObject({ keys: z.array(z.unknown()) });

const SigningKey = z.looseObject({
  kty: z.literal("RSA"),
  alg: z.literal("RS256").optional(),
  use: z.literal("sig").optional(),
  kid: z.string().min(1).max(KEY_ID_LENGTH_MAX),
  n: z.string().min(1).max(MODULUS_LENGTH_MAX),
  e: z.string().min(1).max(16),
});

async function refresh(
  source: KeySource,
  stored: StoredKeys | null,
  nowMs: number,
): Promise<FetchedKeys | "left to another" | "failed"> {
  // What was read already tells that it is too early; asking the table again would cost a call.
  if (stored !== null && nowMs - stored.attemptedAtMs < KEY_REFRESH_GAP_MS)
    return "left to another";
  if (!(await source.beginRefresh())) return "left to another";
  let fetched: FetchedKeys;
  try {
    fetched = await source.fetch();
  } catch (error) {
    if (errorData(error).code === "misconfigured") throw error;
    // The call has logged why. What it means for this token depends on what is known already; that
    // it failed is stored, so that the pushes beside it wait no longer.
    await source.save(null);
    return "failed";
  }
  await source.save(fetched);
  return fetched;
}

/**
 * What is stored once a refresh that is under way has ended, or has taken too long; null where
 * nothing is. It brought something where it was fetched no earlier than it was attempted.
 */
async function refreshOfAnother(source: KeySource, nowMs: number): Promise<StoredKeys | null> {
  for (let waitedMs = 0; ; waitedMs += REFRESH_LOOK_MS) {
    const stored = await source.read();
    if (stored === null) return null;
    const { attemptedAtMs, fetchedAtMs, failedAtMs = 0 } = stored;
    const ended = fetchedAtMs >= attemptedAtMs || failedAtMs >= attemptedAtMs;
    const isLate = nowMs + waitedMs - attemptedAtMs >= REFRESH_TAKES_MAX_MS;
    if (ended || isLate) return stored;
    await source.sleep(REFRESH_LOOK_MS);
  }
}

/** Until Google may be asked again. */
function gapLeftMs(stored: StoredKeys | null, nowMs: number): number {
  if (stored === null) return KEY_REFRESH_GAP_MS;
  return Math.max(0, stored.attemptedAtMs + KEY_REFRESH_GAP_MS - nowMs);
}

const pick = (keys: readonly GoogleKey[], kid: string): GoogleKey | undefined =>
  keys.find((key) => key.kid === kid);

function refuse(): never {
  throw new AppError("forbidden", { detail: "The push token was signed with an unknown key" });
}

const COULD_NOT_FETCH = "The keys that sign push tokens could not be fetched";
const NOT_KNOWN_YET = "The key that signed the push token is not known yet";

const unavailable = (detail: string, retryAfterMs: number): AppError =>
  new AppError("upstream_unavailable", { detail, retryAfterMs });
