/** Limits, circuits and bulkheads. */
import { vi } from "vitest";
import { internal } from "../../../convex/_generated/api";
import type { KnobName } from "../../../src/config/knobs";
import { SECOND } from "../../../src/core/time";
import { clientOf } from "../../../src/http/clientAddress";
import type { ProviderId } from "../../../src/providers/table";
import { backend, type Backend } from "../backend";
import { admit } from "../chat";
import { countUntil, given, now, type Proof, type Proofs } from "./proof";

/** Asks at a limit until it refuses, and says how often it was asked and when to come back. */
interface Asked {
  readonly refused: boolean;
  readonly retryAfterMs: number;
}

type Ask = (t: Backend, i: number) => Promise<Asked>;

const asked = (verdict: { readonly kind: string }): Asked => {
  const error = "error" in verdict ? (verdict.error as { retryAfterMs?: number }) : verdict;
  const { retryAfterMs = 0 } = error as { retryAfterMs?: number };
  return { refused: verdict.kind === "refused", retryAfterMs };
};

const turnOf =
  (user: (i: number) => string, addressKey?: string): Ask =>
  async (t, i) => {
    const address = addressKey === undefined ? {} : { addressKey };
    return asked(await admit(t, { userId: user(i), content: "hi", ...address }));
  };

const push: Ask = async (t, i) =>
  asked(
    await t.mutation(internal.integrations.gmail.accept, {
      notification: { emailAddress: "dana@example.com", historyId: String(100 + i) },
      addressKey: "address:1",
    }),
  );

const delivery: Ask = async (t, i) => {
  const text = { text: "hi", textTruncated: false, mediaId: null, contextId: null };
  const from = { from: "1876", fromUserId: null, phoneNumberId: null, kind: "text", sentAtMs: 0 };
  const event = { type: "message" as const, messageId: `wamid.${i}`, ...from, ...text };
  return asked(
    await t.mutation(internal.integrations.whatsapp.accept, {
      events: [event],
      addressKey: "address:1",
    }),
  );
};

function limit(name: "CHAT_STREAM" | "GMAIL_PUSH" | "WHATSAPP" | "ADDRESS" | "GLOBAL", ask: Ask) {
  const untilRefused = async (): Promise<[number, number]> => {
    const t = backend();
    let retryAfterMs = 0;
    const count = await countUntil(9, async (i) => {
      const answer = await ask(t, i);
      retryAfterMs = answer.retryAfterMs;
      return !answer.refused;
    });
    return [count, retryAfterMs];
  };
  return {
    [`RATE_LIMIT_${name}_MAX`]: {
      values: ["1", "3"],
      observe: async () => (await untilRefused())[0],
    },
    [`RATE_LIMIT_${name}_WINDOW_MS`]: {
      values: ["10000", "60000"],
      observe: async () => {
        given({ [`RATE_LIMIT_${name}_MAX`]: "1" });
        return await untilRefused();
      },
    },
  } satisfies Record<string, Proof>;
}

const admitCall = (t: Backend, provider: ProviderId) =>
  t.mutation(internal.outbound.admit, { provider });

type Outcome = "success" | "failure";

/** One call to a provider; false where it was refused. */
async function call(
  t: Backend,
  provider: ProviderId,
  outcome: Outcome = "failure",
  latencyMs = 1,
): Promise<boolean> {
  const admitted = await admitCall(t, provider);
  if (!admitted.ok) return false;
  const settled = { permit: admitted.permit, outcome, attempts: 1, latencyMs };
  await t.mutation(internal.outbound.settle, settled);
  return true;
}

const gate = (t: Backend, provider: ProviderId) =>
  t.mutation(internal.circuitBreaker.checkGate, { provider });

function circuit(names: readonly [threshold: KnobName, cooldown: KnobName], provider: ProviderId) {
  const [threshold, cooldown] = names;
  return {
    [threshold]: {
      values: ["2", "3"],
      observe: async () => {
        const t = backend();
        return await countUntil(9, () => call(t, provider));
      },
    },
    [cooldown]: {
      values: ["1000", "7000"],
      observe: async () => {
        given({ [threshold]: "1" });
        const t = backend();
        await call(t, provider);
        return await gate(t, provider);
      },
    },
  } satisfies Record<string, Proof>;
}

function bulkhead(names: readonly [max: KnobName, lease: KnobName], provider: ProviderId) {
  const [max, lease] = names;
  return {
    [max]: {
      values: ["1", "2"],
      observe: async () => {
        const t = backend();
        return await countUntil(9, async () => (await admitCall(t, provider)).ok);
      },
    },
    [lease]: {
      values: ["20000", "30000"],
      observe: async () => {
        given({ [max]: "1" });
        const t = backend();
        await admitCall(t, provider);
        const freeAfterS = await countUntil(60, async () => {
          vi.advanceTimersByTime(SECOND);
          return !(await admitCall(t, provider)).ok;
        });
        return freeAfterS;
      },
    },
  } satisfies Record<string, Proof>;
}

const ofProvider = (
  circuitName: string,
  bulkheadName: string,
  provider: ProviderId,
): Record<string, Proof> => ({
  ...circuit(
    [
      `CIRCUIT_${circuitName}_THRESHOLD` as KnobName,
      `CIRCUIT_${circuitName}_COOLDOWN_MS` as KnobName,
    ],
    provider,
  ),
  ...bulkhead(
    [
      `BULKHEAD_${bulkheadName}_MAX_CONCURRENT` as KnobName,
      `BULKHEAD_${bulkheadName}_LEASE_TTL_MS` as KnobName,
    ],
    provider,
  ),
});

const PROVIDER: ProviderId = "serper_search";

/** The state of a circuit after calls that no run of failures opens. */
async function stateAfter(calls: readonly (readonly [Outcome, latencyMs: number])[]) {
  given({ CIRCUIT_SERPER_THRESHOLD: "100" });
  const t = backend();
  for (const [outcome, latencyMs] of calls) {
    await call(t, PROVIDER, outcome, latencyMs);
    vi.advanceTimersByTime(SECOND);
  }
  return (await gate(t, PROVIDER)).state;
}

export const GUARDS: Proofs = {
  ...limit(
    "CHAT_STREAM",
    turnOf(() => "dana"),
  ),
  ...limit(
    "GLOBAL",
    turnOf((i) => `user-${i}`),
  ),
  ...limit(
    "ADDRESS",
    turnOf((i) => `user-${i}`, "address:1"),
  ),
  ...limit("GMAIL_PUSH", push),
  ...limit("WHATSAPP", delivery),
  RATE_LIMIT_ADDRESS_KEYS_MAX: {
    values: ["16", "65536"],
    observe: async () => {
      const env = now("RATE_LIMIT_ADDRESS_KEYS_MAX");
      const keys = Array.from({ length: 100 }, (_, i) => {
        return clientOf({ ip: `192.0.2.${i}`, headers: new Headers() }, env).key;
      });
      return new Set(keys).size;
    },
  },
  ...ofProvider("OPENROUTER", "OPENROUTER", "openrouter_chat_secondary"),
  ...ofProvider("OPENROUTER_PRIMARY", "OR_PRI", "openrouter_chat_primary"),
  ...ofProvider("OPENROUTER_SECONDARY", "OR_SEC", "openrouter_chat_secondary"),
  ...ofProvider("SERPER", "SERPER", "serper_search"),
  ...ofProvider("EBAY", "EBAY", "ebay_search"),
  ...ofProvider("GLOBAL_SEARCH", "GLOBAL_SEARCH", "global_search"),
  ...ofProvider("GMAIL_OAUTH", "GMAIL_OAUTH", "gmail_oauth"),
  CIRCUIT_WINDOW_MS: {
    values: ["2000", "60000"],
    observe: async () => {
      given({ CIRCUIT_CALLS_MIN: "3" });
      return await stateAfter(Array.from({ length: 3 }, () => ["failure", 1]));
    },
  },
  CIRCUIT_CALLS_MIN: {
    values: ["1", "5"],
    observe: () => stateAfter([["failure", 1]]),
  },
  CIRCUIT_FAILURE_RATE_PCT: {
    values: ["50", "90"],
    observe: async () => {
      given({ CIRCUIT_CALLS_MIN: "2" });
      return await stateAfter([
        ["success", 1],
        ["failure", 1],
      ]);
    },
  },
  CIRCUIT_SLOW_RATE_PCT: {
    values: ["50", "100"],
    observe: async () => {
      given({ CIRCUIT_CALLS_MIN: "2" });
      return await stateAfter([
        ["success", 1],
        ["success", 9 * SECOND],
      ]);
    },
  },
  CIRCUIT_PROBES: {
    values: ["1", "3"],
    observe: async () => {
      given({ CIRCUIT_SERPER_THRESHOLD: "1", CIRCUIT_SERPER_COOLDOWN_MS: "1000" });
      const t = backend();
      await call(t, PROVIDER);
      vi.advanceTimersByTime(SECOND);
      return await countUntil(9, async () => (await admitCall(t, PROVIDER)).ok);
    },
  },
  IDEMPOTENCY_TTL_MS: {
    values: ["60000", "120000"],
    observe: async () => {
      const t = backend();
      const key = { scope: "whatsapp_message", key: "wamid.1" };
      await t.mutation(internal.idempotency.claimKey, key);
      return await t.query(internal.idempotency.listRecentByScope, { scope: key.scope });
    },
  },
};
