import { type Infer, v } from "convex/values";
import { frameData } from "../../src/channels/chat/events";
import { env } from "../../src/config/env";
import { readKnob } from "../../src/config/read";
import type { ErrorData } from "../../src/errors/appError";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import { findThread } from "./access";
import * as Admission from "./admission";
import * as Budgets from "./budgets";
import { storedToolCall } from "./chatTables";
import * as Claims from "./claims";
import * as Duplicates from "./duplicates";
import * as Limits from "./limits";
import * as Messages from "./messages";
import * as Refusals from "./refusals";
import * as Streams from "./streams";
import { type Budget, checkBudget, TOKEN_BUDGET, withoutBudget } from "./turnBudget";
import { type ChatRoute, chatRoute, checkRoute, type Model, type RouteVerdict } from "./turnRoutes";
import * as Turns from "./turns";

/** What a caller asks for: a new message, or an answer to the one sent last. */
export const turnRequest = v.object({
  userId: v.string(),
  threadId: v.optional(v.string()),
  content: v.optional(v.string()),
  clientMessageId: v.optional(v.string()),
  /** The user message to answer; it must be the thread's newest. */
  messageId: v.optional(v.string()),
  modelId: v.optional(v.string()),
  idempotency: v.optional(v.object({ key: v.string(), fingerprint: v.string() })),
  /** Bounded key of the caller's address; absent where the address is only a claim. */
  addressKey: v.optional(v.string()),
});
export type TurnRequest = Infer<typeof turnRequest>;

/** An admitted turn as it is handed to the action that runs it. */
export const admittedTurn = v.object({
  userId: v.string(),
  streamId: v.id("streamSessions"),
  route: chatRoute,
  fallback: v.union(chatRoute, v.null()),
  /** Absent in turns that were scheduled before there was such a field. */
  historyIsWhole: v.optional(v.boolean()),
  history: v.array(
    v.object({
      role: v.union(
        v.literal("user"),
        v.literal("assistant"),
        v.literal("tool"),
        v.literal("system"),
      ),
      content: v.string(),
      toolCalls: v.optional(v.array(storedToolCall)),
      toolCallId: v.optional(v.string()),
    }),
  ),
  frames: v.array(v.string()),
  webSearch: v.boolean(),
});

export interface Turn {
  readonly kind: "admitted";
  readonly threadId: Id<"threads">;
  readonly messageId: Id<"messages">;
  readonly streamId: Id<"streamSessions">;
  readonly route: ChatRoute;
  /** Where to go when the route fails before anything was seen of it. */
  readonly fallback: ChatRoute | null;
  readonly history: Messages.HistoryMessage[];
  /** Whether the history is all of the thread. */
  readonly historyIsWhole: boolean;
  /** Frames stored at admission; their ids start at 1. */
  readonly frames: string[];
  readonly info: Limits.LimitDecision["info"];
}

export type TurnVerdict =
  | Turn
  | { readonly kind: "replay"; readonly streamId: Id<"streamSessions"> }
  | { readonly kind: "refused"; readonly error: ErrorData };

const refused = (error: ErrorData): TurnVerdict => ({ kind: "refused", error });

/**
 * Admits a turn and starts the look at its worker's pulse. Limits named in `leaveOut` are not looked
 * at: those that a caller's last try goes without.
 */
export async function beginTurn(
  ctx: MutationCtx,
  request: TurnRequest,
  reap: Turns.Reap,
  leaveOut: readonly string[] = [],
): Promise<TurnVerdict> {
  const nowMs = Date.now();
  const verdict = await admitTurn(ctx, request, nowMs, leaveOut);
  if (verdict.kind !== "admitted") return verdict;
  const session = await ctx.db.get("streamSessions", verdict.streamId);
  if (session === null) throw new Error("an admitted turn has its session");
  await Turns.progress(ctx, session, verdict.frames, nowMs);
  await Turns.scheduleReaper(ctx, reap, session);
  return verdict;
}

/**
 * All guards of a chat turn and everything that starts it, in one transaction. Guards first, writes
 * after: a refusal leaves nothing behind but its count.
 */
async function admitTurn(
  ctx: MutationCtx,
  request: TurnRequest,
  nowMs: number,
  leaveOut: readonly string[],
): Promise<TurnVerdict> {
  const replay = await findReplay(ctx, request, nowMs);
  if (replay !== null) return replay;
  const target = await findTarget(ctx, request);
  if ("kind" in target) return target;
  const model = chooseModel(request.modelId);
  if ("kind" in model) return model;

  const limits = await checkLimits(ctx, request, nowMs, leaveOut);
  if (!limits.ok) return await count(ctx, limits, nowMs);
  const history = await boundedHistory(ctx, target, request);
  const budget = leaveOut.includes(TOKEN_BUDGET)
    ? withoutBudget(request.userId, nowMs)
    : await checkBudget(ctx, request.userId, history.messages, nowMs);
  if (!budget.ok) return await count(ctx, budget, nowMs);
  const route = await checkRoute(ctx, model, request.userId, nowMs);
  if (!route.ok) return await count(ctx, route, nowMs);

  for (const decision of limits.decisions) await Limits.take(ctx, decision);
  if (budget.source === "exact") await Budgets.add(ctx, budget.reservation);
  else await Limits.countLeftOut(ctx, TOKEN_BUDGET);
  return await start(ctx, { request, target, route, history, budget, limits }, nowMs);
}

type Target = { readonly thread: Doc<"threads"> | null };

async function findReplay(
  ctx: MutationCtx,
  { userId, idempotency }: TurnRequest,
  nowMs: number,
): Promise<TurnVerdict | null> {
  if (idempotency === undefined) return null;
  const claim = await Claims.find(
    ctx,
    { scope: Turns.chatScope(userId), key: idempotency.key },
    nowMs,
  );
  if (claim === null) return null;
  if (claim.fingerprint !== idempotency.fingerprint)
    return refused({ code: "idempotency_conflict" });
  const streamId = ctx.db.normalizeId("streamSessions", claim.reference ?? "");
  // Frames are kept for an hour, keys for longer: what was answered once is not answered again.
  const session = streamId === null ? null : await ctx.db.get("streamSessions", streamId);
  if (session === null || !Streams.isReadable(session, nowMs))
    return refused({ code: "not_found", detail: NO_LONGER_KEPT });
  await Duplicates.count(ctx, "chat", nowMs);
  return { kind: "replay", streamId: session._id };
}

const NO_LONGER_KEPT =
  "This key was used before, and the stream of its answer is no longer kept. Read the thread.";

async function findTarget(
  ctx: MutationCtx,
  { content, messageId, threadId, userId }: TurnRequest,
): Promise<Target | TurnVerdict> {
  if (threadId === undefined)
    return content === undefined ? refused({ code: "invalid_request" }) : { thread: null };
  const thread = await findThread(ctx, userId, threadId);
  if (thread === null) return refused({ code: "not_found" });
  if (thread.activeStreamId !== undefined)
    return refused({ code: "request_in_progress", retryAfterMs: IN_PROGRESS_RETRY_MS });
  if (content !== undefined) return { thread };
  const question = await Messages.unanswered(ctx, thread._id);
  if (question === null || (messageId !== undefined && question._id !== messageId))
    return refused({ code: "invalid_request", detail: "The thread has no message to answer." });
  return { thread };
}

const IN_PROGRESS_RETRY_MS = 2_000;

function chooseModel(modelId: string | undefined): Model | TurnVerdict {
  const fallback = readKnob(env, "CHAT_DEFAULT_MODEL_CLASS") === "fast" ? "fast" : "agent";
  const modelClass = modelId === "fast" || modelId === "agent" ? modelId : fallback;
  if (modelId !== undefined && modelId !== modelClass) {
    if (!readKnob(env, "CHAT_MODEL_ALLOWLIST").includes(modelId))
      return refused({
        code: "invalid_request",
        issues: [{ path: "modelId", message: "This model is not offered." }],
      });
    return { modelClass, primary: modelId, secondary: modelId };
  }
  return modelClass === "fast"
    ? {
        modelClass,
        primary: readKnob(env, "CHAT_MODEL_FAST_PRIMARY"),
        secondary: readKnob(env, "CHAT_MODEL_FAST_SECONDARY"),
      }
    : {
        modelClass,
        primary: readKnob(env, "CHAT_MODEL_AGENT_PRIMARY"),
        secondary: readKnob(env, "CHAT_MODEL_AGENT_SECONDARY"),
      };
}

type LimitsVerdict =
  | {
      readonly ok: true;
      readonly decisions: Limits.LimitDecision[];
      readonly info: Limits.LimitDecision["info"];
    }
  | Refusals.Refused;

async function checkLimits(
  ctx: MutationCtx,
  { addressKey, userId }: TurnRequest,
  nowMs: number,
  leaveOut: readonly string[],
): Promise<LimitsVerdict> {
  const perUser = {
    max: readKnob(env, "RATE_LIMIT_CHAT_STREAM_MAX"),
    windowMs: readKnob(env, "RATE_LIMIT_CHAT_STREAM_WINDOW_MS"),
  };
  const requests: Limits.LimitRequest[] = [
    { name: "chat_stream", key: `user:${userId}`, ...perUser },
    {
      name: "global",
      key: "all",
      max: readKnob(env, "RATE_LIMIT_GLOBAL_MAX"),
      windowMs: readKnob(env, "RATE_LIMIT_GLOBAL_WINDOW_MS"),
      shared: true,
    },
  ];
  if (addressKey !== undefined)
    requests.push({
      name: "chat_address",
      key: addressKey,
      max: readKnob(env, "RATE_LIMIT_ADDRESS_MAX"),
      windowMs: readKnob(env, "RATE_LIMIT_ADDRESS_WINDOW_MS"),
      // An office is one address: its users must not wait for each other's writes.
      shared: true,
    });
  const decisions: Limits.LimitDecision[] = [];
  for (const request of requests) {
    const decision = await Limits.check(ctx, request, nowMs, leaveOut);
    if (!decision.ok) {
      const { info: limit, retryAfterMs } = decision;
      return {
        ok: false,
        counted: { bucket: request.name, outcome: "blocked" },
        error: { code: "rate_limited", retryAfterMs, limit },
      };
    }
    decisions.push(decision);
  }
  const [own] = decisions;
  if (own === undefined) throw new Error("a turn has at least one limit");
  return { ok: true, decisions, info: own.info };
}

async function boundedHistory(
  ctx: MutationCtx,
  { thread }: Target,
  { clientMessageId, content }: TurnRequest,
): Promise<Messages.History> {
  const bounds = {
    messagesMax: readKnob(env, "CHAT_HISTORY_MESSAGES_MAX"),
    bytesMax: readKnob(env, "CHAT_HISTORY_BYTES_MAX"),
  };
  const next = content === undefined ? undefined : ({ role: "user", content } as const);
  if (thread === null) return { messages: next === undefined ? [] : [next], isWhole: true };
  // A message sent before is answered where it stands: the model is not told it twice.
  const last =
    clientMessageId === undefined
      ? null
      : await Messages.findByClientId(ctx, thread._id, clientMessageId);
  if (last !== null) return await Messages.history(ctx, thread._id, { ...bounds, last });
  return await Messages.history(ctx, thread._id, {
    ...bounds,
    ...(next === undefined ? {} : { next }),
  });
}

async function count(
  ctx: MutationCtx,
  { counted, error }: Refusals.Refused,
  nowMs: number,
): Promise<TurnVerdict> {
  await Refusals.count(ctx, counted, nowMs);
  return refused(error);
}

interface Start {
  readonly request: TurnRequest;
  readonly target: Target;
  readonly route: Extract<RouteVerdict, { ok: true }>;
  readonly history: Messages.History;
  readonly budget: Extract<Budget, { ok: true }>;
  readonly limits: Extract<LimitsVerdict, { ok: true }>;
}

async function start(ctx: MutationCtx, parts: Start, nowMs: number): Promise<Turn> {
  const { request, route, budget, history, limits } = parts;
  const { userId } = request;
  const threadId =
    parts.target.thread?._id ??
    (await ctx.db.insert("threads", { userId, lastMessageAt: nowMs, isPinned: false }));
  if (request.content !== undefined) {
    const { content, clientMessageId } = request;
    await Messages.insertUserMessage(ctx, threadId, {
      content,
      ...(clientMessageId === undefined ? {} : { clientMessageId }),
    });
  }
  const messageId = await ctx.db.insert("messages", {
    threadId,
    role: "assistant",
    content: "",
    status: "streaming",
    modelId: route.route.modelId,
  });
  const permit = await Admission.takeProvider(ctx, route.grant, nowMs);
  const streamId = await ctx.db.insert("streamSessions", {
    userId,
    threadId,
    messageId,
    status: "streaming",
    startedAt: nowMs,
    lastHeartbeatAt: nowMs,
    nextFrameId: 1,
    storedBytes: 0,
    permit,
    reservedTokens: budget.reservation.tokens,
    budgetDay: budget.reservation.day,
    ...(request.idempotency === undefined ? {} : { claimKey: request.idempotency.key }),
  });
  await ctx.db.patch("messages", messageId, { streamId });
  await ctx.db.patch("threads", threadId, { activeStreamId: streamId, lastMessageAt: nowMs });
  if (request.idempotency !== undefined)
    await Claims.put(
      ctx,
      {
        scope: Turns.chatScope(userId),
        ...request.idempotency,
        reference: streamId,
        ttlMs: readKnob(env, "IDEMPOTENCY_TTL_MS"),
      },
      nowMs,
    );
  const { providerId, routeId, modelClass } = route.route;
  const frames = [
    frameData({ type: "start", threadId, messageId, streamId }),
    frameData({ type: "provider-route", providerId, routeId, modelClass }),
  ];
  return {
    kind: "admitted",
    threadId,
    messageId,
    streamId,
    route: route.route,
    fallback: route.fallback,
    history: history.messages,
    historyIsWhole: history.isWhole,
    frames,
    info: limits.info,
  };
}
