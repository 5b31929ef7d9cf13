import type { ChatUsage } from "../../providers/chat";
import type { UsageCounts } from "./events";

const BYTES_PER_TOKEN = 4;

/** What a turn used, and whether any of it had to be guessed. */
export type TurnUsage = ChatUsage & { readonly estimated: boolean };

/** The provider's counts where all of its requests had some, else an estimate from the text. */
export function usageOf(
  counted: { readonly usage: ChatUsage | null; readonly isWhole: boolean },
  text: { readonly promptChars: number; readonly saidChars: number },
): TurnUsage {
  const { isWhole, usage } = counted;
  if (usage !== null && isWhole) return { ...usage, estimated: false };
  const promptTokens = Math.ceil(text.promptChars / BYTES_PER_TOKEN);
  const completionTokens = Math.ceil(text.saidChars / BYTES_PER_TOKEN);
  const known = usage ?? NOTHING_USED;
  return {
    ...known,
    promptTokens: Math.max(known.promptTokens, promptTokens),
    completionTokens: Math.max(known.completionTokens, completionTokens),
    totalTokens: Math.max(known.totalTokens, promptTokens + completionTokens),
    estimated: true,
  };
}

/** Counts in the names of the provider's usage frame. */
export const usageCounts = (usage: ChatUsage): UsageCounts => ({
  prompt_tokens: usage.promptTokens,
  completion_tokens: usage.completionTokens,
  total_tokens: usage.totalTokens,
  cached_tokens: usage.cachedTokens,
  reasoning_tokens: usage.reasoningTokens,
  cost: usage.cost,
});

const NOTHING_USED: ChatUsage = {
  promptTokens: 0,
  completionTokens: 0,
  totalTokens: 0,
  cachedTokens: 0,
  reasoningTokens: 0,
  cost: null,
};

/** The counts of one more request. */
export function addUsage(sum: ChatUsage | null, more: ChatUsage): ChatUsage {
  if (sum === null) return more;
  const cost = sum.cost === null && more.cost === null ? null : (sum.cost ?? 0) + (more.cost ?? 0);
  return {
    promptTokens: sum.promptTokens + more.promptTokens,
    completionTokens: sum.completionTokens + more.completionTokens,
    totalTokens: sum.totalTokens + more.totalTokens,
    cachedTokens: sum.cachedTokens + more.cachedTokens,
    reasoningTokens: sum.reasoningTokens + more.reasoningTokens,
    cost,
  };
}
