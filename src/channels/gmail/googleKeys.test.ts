import { describe, expect, test } from "vitest";
import { HOUR, MINUTE, SECOND } from "../../core/time";
import { AppError, errorData } from "../../errors/appError";
import {
  type FetchedKeys,
  findKey,
  type KeySource,
  readKeySet,
  type StoredKeys,
} from "./googleKeys";

const NOW_MS = 1_790_000_000_000;
const key = (kid: string) => ({ kid, n: `n-${kid}`, e: "AQAB" });

const FRESH: StoredKeys = {
  keys: [key("k1")],
  freshUntilMs: NOW_MS + HOUR,
  attemptedAtMs: NOW_MS - HOUR,
  fetchedAtMs: NOW_MS - HOUR,
};
const STALE: StoredKeys = { ...FRESH, freshUntilMs: NOW_MS - 1 };
const LONG_STALE: StoredKeys = { ...FRESH, freshUntilMs: NOW_MS - HOUR };

/** A source over what is stored and what Google publishes now; null publishes nothing. */
function sourceOf(stored: StoredKeys | null, published: FetchedKeys["keys"] | null) {
  const calls: string[] = [];
  const source: KeySource = {
    read: async () => stored,
    beginRefresh: async () => {
      calls.push("begin");
      return true;
    },
    fetch: async () => {
      calls.push("fetch");
      if (published === null) throw new AppError("upstream_unavailable");
      return { keys: published, freshUntilMs: NOW_MS + HOUR };
    },
    save: async (fetched) => {
      calls.push(`save ${fetched?.keys.map(({ kid }) => kid).join() ?? "failure"}`);
    },
    sleep: async () => undefined,
  };
  return { source, calls };
}

/** How long the sender is told to wait. */
async function waitOf(source: KeySource, kid: string): Promise<number | undefined> {
  const error: unknown = await findKey(source, kid, NOW_MS).catch((thrown: unknown) => thrown);
  return errorData(error).retryAfterMs;
}

/** The key id that was found, or the code of the refusal. */
async function lookUp(source: KeySource, kid: string): Promise<string> {
  try {
    return (await findKey(source, kid, NOW_MS)).kid;
  } catch (error) {
    return errorData(error).code;
  }
}

const justAttempted = (stored: StoredKeys, agoMs: number): StoredKeys => ({
  ...stored,
  attemptedAtMs: NOW_MS - agoMs,
});
const justFetched = (stored: StoredKeys, agoMs: number): StoredKeys => ({
  ...justAttempted(stored, agoMs),
  fetchedAtMs: NOW_MS - agoMs,
});

describe("finding Google's key", () => {
  test("a known fresh key costs no refresh", async () => {
    const { source, calls } = sourceOf(FRESH, null);
    expect(await lookUp(source, "k1")).toBe("k1");
    expect(calls).toEqual([]);
  });

  test("the first token fetches and stores the keys", async () => {
    const { source, calls } = sourceOf(null, [key("k1")]);
    expect(await lookUp(source, "k1")).toBe("k1");
    expect(calls).toEqual(["begin", "fetch", "save k1"]);
  });

  test("an unknown id refreshes, and finds a key that is new", async () => {
    const { source, calls } = sourceOf(FRESH, [key("k1"), key("k2")]);
    expect(await lookUp(source, "k2")).toBe("k2");
    expect(calls).toContain("save k1,k2");
  });

  test("an id that Google does not publish is forbidden", async () => {
    expect(await lookUp(sourceOf(FRESH, [key("k1")]).source, "k9")).toBe("forbidden");
  });

  test.each([1, 20 * SECOND, MINUTE - 1])(
    "an unknown id %i ms after a refresh refreshes nothing, and is to come again after the minute",
    async (agoMs) => {
      // What signed it may have been published since.
      const { source, calls } = sourceOf(justFetched(FRESH, agoMs), [key("k9")]);
      expect(await lookUp(source, "k9")).toBe("upstream_unavailable");
      expect(await waitOf(source, "k9")).toBe(MINUTE - agoMs);
      expect(calls).toEqual([]);
    },
  );

  test("a key that rotated in is found when the wait is over", async () => {
    const { source } = sourceOf(justFetched(FRESH, 20 * SECOND), [key("k2")]);
    const waitMs = (await waitOf(source, "k2")) ?? 0;
    expect(await findKey(source, "k2", NOW_MS + waitMs)).toMatchObject({ kid: "k2" });
  });

  test("any number of unknown ids cost one refresh a minute", async () => {
    let stored = justFetched(FRESH, 0);
    let fetches = 0;
    const source: KeySource = {
      ...sourceOf(null, [key("k1")]).source,
      read: async () => stored,
      fetch: async () => {
        fetches += 1;
        return FRESH;
      },
      save: async () => undefined,
    };
    for (let afterMs = 1; afterMs <= 5 * MINUTE; afterMs += SECOND) {
      const nowMs = NOW_MS + afterMs;
      const begin = async (): Promise<boolean> => {
        stored = {
          ...stored,
          attemptedAtMs: nowMs,
          fetchedAtMs: nowMs,
          freshUntilMs: nowMs + HOUR,
        };
        return true;
      };
      const id = `made up ${afterMs}`;
      const refused = findKey({ ...source, beginRefresh: begin }, id, nowMs);
      expect(["forbidden", "upstream_unavailable"]).toContain(
        errorData(await refused.catch((error: unknown) => error)).code,
      );
    }
    expect(fetches).toBe(4);
  });

  test("after a minute it may refresh again", async () => {
    const { source } = sourceOf(justFetched(FRESH, MINUTE), [key("k9")]);
    expect(await lookUp(source, "k9")).toBe("k9");
  });

  test("a key that a new set no longer holds is forbidden", async () => {
    expect(await lookUp(sourceOf(STALE, [key("k2")]).source, "k1")).toBe("forbidden");
  });
});

describe("when the keys cannot be fetched", () => {
  test.each<[string, StoredKeys | null, string, string]>([
    ["nothing is stored", null, "k1", "upstream_unavailable"],
    ["the id is unknown", FRESH, "k9", "upstream_unavailable"],
    ["the key is stale by less than an hour", STALE, "k1", "k1"],
    ["the key is stale by an hour", LONG_STALE, "k1", "upstream_unavailable"],
  ])("and %s", async (_name, stored, kid, expected) => {
    expect(await lookUp(sourceOf(stored, null).source, kid)).toBe(expected);
  });

  test("an attempt that failed a moment ago is not repeated, and nothing is accepted", async () => {
    const { source, calls } = sourceOf(justAttempted(FRESH, 1), [key("k9")]);
    expect(await lookUp(source, "k9")).toBe("upstream_unavailable");
    expect(await waitOf(source, "k9")).toBe(MINUTE - 1);
    expect(calls).toEqual([]);
  });

  test("an attempt of another request is waited for, a few seconds", async () => {
    const { source } = sourceOf(null, [key("k1")]);
    const loser = { ...source, beginRefresh: async () => false };
    expect(await lookUp(loser, "k1")).toBe("upstream_unavailable");
    let reads = 0;
    let sleptMs = 0;
    const begun = justAttempted({ ...FRESH, keys: [], freshUntilMs: 0, fetchedAtMs: 0 }, 0);
    const waiting = (arrivesAfter: number): KeySource => ({
      ...loser,
      read: async () => {
        reads += 1;
        if (reads === 1) return null;
        return reads > arrivesAfter ? justFetched(FRESH, 0) : begun;
      },
      sleep: async (ms) => {
        sleptMs += ms;
      },
    });
    expect(await lookUp(waiting(4), "k1")).toBe("k1");
    reads = 0;
    // A complete set that lacks the id says that there is no such key.
    expect(await lookUp(waiting(4), "k9")).toBe("forbidden");
    reads = 0;
    sleptMs = 0;
    expect(await lookUp(waiting(Infinity), "k1")).toBe("upstream_unavailable");
    expect(sleptMs).toBe(5 * SECOND);
  });

  test.each([
    ["before the token came, and ends after", -50, 50, "upstream_unavailable"],
    ["before the token came, and has ended", -50, -1, "upstream_unavailable"],
    ["as the token came", 0, 50, "forbidden"],
    ["after the token came", 1, 50, "forbidden"],
  ])("an attempt of another that began %s", async (_name, begunMs, endedMs, expected) => {
    const begun: StoredKeys = { ...FRESH, attemptedAtMs: NOW_MS + begunMs };
    let sleptMs = 0;
    // What was asked for before may have been answered before the key was published.
    const source: KeySource = {
      ...sourceOf(null, null).source,
      read: async () => (sleptMs < endedMs ? begun : { ...begun, fetchedAtMs: NOW_MS + endedMs }),
      beginRefresh: async () => false,
      sleep: async (ms) => {
        sleptMs += ms;
      },
    };
    expect(await lookUp(source, "k9")).toBe(expected);
    sleptMs = 0;
    expect(await waitOf(source, "k9")).toBe(
      expected === "forbidden" ? undefined : MINUTE + begunMs,
    );
    expect(await lookUp(source, "k1")).toBe("k1");
  });

  test("an attempt that failed is stored, and is not waited for by others", async () => {
    const { source, calls } = sourceOf(null, null);
    expect(await lookUp(source, "k1")).toBe("upstream_unavailable");
    expect(calls).toEqual(["begin", "fetch", "save failure"]);
    expect(await waitOf(source, "k1")).toBe(MINUTE);
    const failed = { ...justAttempted(FRESH, 1), failedAtMs: NOW_MS };
    const slept: number[] = [];
    const watched = {
      ...sourceOf(failed, null).source,
      sleep: async (ms: number) => void slept.push(ms),
    };
    expect(await lookUp(watched, "k9")).toBe("upstream_unavailable");
    expect(slept).toEqual([]);
  });

  test("an attempt that began longer ago is not waited for", async () => {
    const { source } = sourceOf(justAttempted(LONG_STALE, 5 * SECOND), [key("k1")]);
    const slept: number[] = [];
    const watched: KeySource = { ...source, sleep: async (ms) => void slept.push(ms) };
    expect(await lookUp(watched, "k1")).toBe("upstream_unavailable");
    expect(slept).toEqual([]);
  });
});

describe("reading a key set", () => {
  const jwk = { kty: "RSA", alg: "RS256", use: "sig", kid: "k1", n: "AQ", e: "AQAB" };

  test("keeps RSA signing keys and nothing else of them", () => {
    const keys = [
      jwk,
      { ...jwk, kty: "EC" },
      { ...jwk, use: "enc" },
      { ...jwk, kid: undefined },
      7,
    ];
    expect(readKeySet({ keys }, "public, max-age=3600, must-revalidate", NOW_MS)).toEqual({
      keys: [{ kid: "k1", n: "AQ", e: "AQAB" }],
      freshUntilMs: NOW_MS + HOUR,
    });
  });

  test.each([
    [null, 5 * MINUTE],
    ["no-store", 5 * MINUTE],
    ["max-age=1", 5 * MINUTE],
    ["max-age=7200", 2 * HOUR],
    ["max-age=999999999", 24 * HOUR],
  ])("with cache-control %j is fresh within bounds", (header, freshMs) => {
    expect(readKeySet({ keys: [jwk] }, header, NOW_MS)?.freshUntilMs).toBe(NOW_MS + freshMs);
  });

  test.each([[null], [{}], [{ keys: [] }], [{ keys: [{ kty: "EC" }] }]])(
    "%j holds no key",
    (body) => {
      expect(readKeySet(body, null, NOW_MS)).toBeNull();
    },
  );
});
