/** Webhook jobs, the snapshot, and reports. */
import { vi } from "vitest";
import { internal } from "../../../convex/_generated/api";
import { MINUTE, SECOND } from "../../../src/core/time";
import { backend, type Backend, settleAll } from "../backend";
import { countUntil, given, type Proof, type Proofs } from "./proof";
import { toldAgain } from "./tools";

/** A delivery whose every attempt fails: its mailbox is stored twice. */
async function failing(): Promise<Backend> {
  const t = backend();
  const notification = { emailAddress: "dana@example.com", historyId: "5" };
  await t.run(async (ctx) => {
    for (let i = 0; i < 2; i++)
      await ctx.db.insert("gmailMailboxes", { ...notification, updatedAtMs: 0 });
  });
  await t.mutation(internal.integrations.gmail.accept, { notification });
  return t;
}

const inbox = (t: Backend) => t.run((ctx) => ctx.db.query("webhookInbox").first());

/** When a delivery is tried again after so many attempts. */
const delayAfter = (attempts: number) => async (): Promise<unknown> => {
  given({ WEBHOOK_JOB_ATTEMPTS_MAX: "9" });
  const t = await failing();
  await countUntil(9, async () => {
    vi.advanceTimersToNextTimer();
    await t.finishInProgressScheduledFunctions();
    return ((await inbox(t))?.attempts ?? 0) < attempts;
  });
  const row = await inbox(t);
  return [row?.attempts, (row?.dueAtMs ?? 0) - Date.now()];
};

const snapshot = (t: Backend, args = {}) =>
  t.query(internal.ops.getReliabilitySnapshot, { ...args });

const rows: Proof = {
  values: ["5", "9"],
  observe: async () => {
    const t = backend();
    for (let i = 0; i < 12; i++)
      await t.mutation(internal.alerts.raise, {
        condition: {
          alertKey: `limiter:${i}`,
          kind: "limiter",
          severity: "warning",
          summary: "s",
          observed: 1,
          threshold: 1,
          windowMinutes: 1,
          cooldownMs: 1,
        },
        atMs: Date.now(),
      });
    return (await snapshot(t)).alerts.recent.length;
  },
};

export const OPERATORS: Proofs = {
  WEBHOOK_JOB_ATTEMPTS_MAX: {
    values: ["2", "3"],
    observe: async () => {
      const t = await failing();
      await settleAll(t);
      return await inbox(t).then((row) => [row?.state, row?.attempts]);
    },
  },
  WEBHOOK_JOB_RETRY_BASE_MS: { values: ["1000", "9000"], observe: delayAfter(1) },
  WEBHOOK_JOB_RETRY_CAP_MS: { values: ["3000", "60000"], observe: delayAfter(3) },
  OPS_DEFAULT_WINDOW_MINUTES: {
    values: ["5", "15"],
    observe: async () => {
      const t = backend();
      const refusal = { bucket: "chat_stream", outcome: "blocked" };
      await t.mutation(internal.rateLimit.recordEvent, refusal);
      vi.advanceTimersByTime(9 * MINUTE + SECOND);
      return (await snapshot(t)).rateLimitPressure.sampledEvents;
    },
  },
  OPS_MAX_ROWS_PER_SECTION: rows,
  BULKHEAD_SENTRY_COOLDOWN_MS: {
    values: ["60000", "600000"],
    observe: async () => {
      const t = backend();
      const seen = { provider: "serper_search", outcome: "bulkhead_saturated" };
      return await toldAgain(t, () => t.mutation(internal.alerts.lookAtProvider, seen));
    },
  },
};
