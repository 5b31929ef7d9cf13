/** The tokens a user may spend in a day, as far as a turn's admission is concerned. */
import { env } from "../../src/config/env";
import { readKnob } from "../../src/config/read";
import { utf8Bytes } from "../../src/core/bytes";
import { DAY } from "../../src/core/time";
import type { MutationCtx } from "../_generated/server";
import * as Budgets from "./budgets";
import type * as Messages from "./messages";
import type { Refused } from "./refusals";

/** Bytes of English text per token, as a rule of thumb: reservations are trued up at settlement. */
const BYTES_PER_TOKEN = 4;
/** Tokens of an answer reserved before anything is known of it. */
const ANSWER_TOKENS_RESERVED = 1_000;

export const TOKEN_BUDGET = "chat_tokens_day";

export type Budget =
  | {
      readonly ok: true;
      readonly source: "exact" | "degraded";
      readonly reservation: {
        readonly userId: string;
        readonly day: string;
        readonly tokens: number;
      };
    }
  | Refused;

/** Whether the day bears another turn, by an estimate that is trued up when it is settled. */
export async function checkBudget(
  ctx: MutationCtx,
  userId: string,
  history: readonly Messages.HistoryMessage[],
  nowMs: number,
): Promise<Budget> {
  const bytes = history.reduce((sum, { content }) => sum + utf8Bytes(content), 0);
  const tokens = Math.ceil(bytes / BYTES_PER_TOKEN) + ANSWER_TOKENS_RESERVED;
  const day = Budgets.dayOf(nowMs);
  const limit = readKnob(env, "CHAT_TOKENS_PER_DAY");
  const used = (await Budgets.load(ctx, userId, day))?.tokens ?? 0;
  if (used + tokens <= limit)
    return { ok: true, source: "exact", reservation: { userId, day, tokens } };
  const resetMs = Budgets.untilNextDayMs(nowMs);
  return {
    ok: false,
    counted: { bucket: TOKEN_BUDGET, outcome: "blocked" },
    error: {
      code: "rate_limited",
      detail: "Today's token budget is spent.",
      retryAfterMs: resetMs,
      limit: {
        name: TOKEN_BUDGET,
        limit,
        windowMs: DAY,
        remaining: Math.max(0, limit - used),
        resetMs,
      },
    },
  };
}

/** Reserves nothing: what the turn spends is charged to the day when it is settled. */
export const withoutBudget = (userId: string, nowMs: number): Budget => ({
  ok: true,
  source: "degraded",
  reservation: { userId, day: Budgets.dayOf(nowMs), tokens: 0 },
});
