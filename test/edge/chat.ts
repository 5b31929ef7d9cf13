/** Chat turns as their tests start, continue and end them. */
import { api, internal } from "../../convex/_generated/api";
import type { Doc, Id } from "../../convex/_generated/dataModel";
import type { Turn, TurnRequest, TurnVerdict } from "../../convex/model/turnAdmission";
import type { Settlement } from "../../convex/model/turns";
import type { Backend, Caller } from "./backend";

export const USER = "dana";

export const dana = (t: Backend): Caller => t.withIdentity({ subject: USER });

export const admit = (t: Backend, request: Partial<TurnRequest> = {}): Promise<TurnVerdict> =>
  t.mutation(internal.chatTurns.admit, { request: { userId: USER, content: "hello", ...request } });

/** Makes a request that says nothing new, but asks for an answer to what was said last. */
export const ANSWER_LAST = { content: undefined } as unknown as Partial<TurnRequest>;

/** An admitted turn; fails where it is refused. */
export async function begin(t: Backend, request: Partial<TurnRequest> = {}): Promise<Turn> {
  const verdict = await admit(t, request);
  if (verdict.kind !== "admitted") throw new Error(JSON.stringify(verdict));
  return verdict;
}

export const append = (
  t: Backend,
  streamId: Id<"streamSessions">,
  first: number,
  ...texts: string[]
) =>
  t.mutation(internal.chatTurns.append, {
    streamId,
    firstFrameId: first,
    frames: texts.map(contentFrame),
  });

export const contentFrame = (content: string): string =>
  JSON.stringify({ type: "content", content });

/** How a turn ended well, or otherwise where `overrides` say so. */
export const ending = (overrides: Partial<Settlement> = {}): Settlement => ({
  status: "completed",
  content: "Hi there.",
  reasoning: "",
  toolCalls: [],
  toolResults: [],
  ending: "completed",
  modelId: "model-that-answered",
  usage: {
    promptTokens: 10,
    completionTokens: 20,
    totalTokens: 30,
    cachedTokens: 0,
    reasoningTokens: 0,
    cost: 0.001,
    estimated: false,
  },
  outcome: "success",
  visible: true,
  latencyMs: 100,
  ...overrides,
});

/** A failure before anything was seen. */
export const UNSEEN_FAILURE: Partial<Settlement> = {
  status: "error",
  content: "",
  ending: "error_in_band",
  errorCode: "upstream_unavailable",
  outcome: "failure",
  visible: false,
};

export const settle = (
  t: Backend,
  streamId: Id<"streamSessions">,
  overrides: Partial<Settlement> = {},
  { first = 3, frames = ['{"type":"done"}'] }: { first?: number; frames?: string[] } = {},
) =>
  t.mutation(internal.chatTurns.settle, {
    streamId,
    firstFrameId: first,
    frames,
    result: ending(overrides),
  });

/** All rows that a chat turn writes. */
export const stored = (t: Backend) =>
  t.run(async (ctx) => ({
    threads: await ctx.db.query("threads").collect(),
    messages: await ctx.db.query("messages").collect(),
    sessions: await ctx.db.query("streamSessions").collect(),
    chunks: await ctx.db.query("streamChunks").collect(),
    slots: await ctx.db.query("slots").collect(),
    limits: await ctx.db.query("limits").collect(),
    budgets: await ctx.db.query("tokenBudgets").collect(),
    claims: await ctx.db.query("idempotencyKeys").collect(),
    breakers: await ctx.db.query("circuitBreakers").collect(),
    refusals: await ctx.db.query("rateLimitEvents").collect(),
  }));

/** The one session there is, or the newest. */
export async function session(t: Backend): Promise<Doc<"streamSessions">> {
  const found = (await stored(t)).sessions.at(-1);
  if (found === undefined) throw new Error("no session");
  return found;
}

export async function newThread(t: Backend, ...contents: string[]): Promise<Id<"threads">> {
  const threadId = await dana(t).mutation(api.threads.create, {});
  for (const content of contents) await dana(t).mutation(api.messages.send, { threadId, content });
  return threadId;
}
