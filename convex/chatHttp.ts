import { type AdmittedTurn, runAdmittedTurn } from "../src/channels/chat/backend";
import { encodeFrame } from "../src/channels/chat/events";
import { eventStream } from "../src/channels/chat/sse";
import { throughContention } from "../src/channels/contention";
import { env } from "../src/config/env";
import { readKnob } from "../src/config/read";
import { SECOND } from "../src/core/time";
import { AppError } from "../src/errors/appError";
import { failOpenLimits } from "../src/http/guards";
import type { CallOf } from "../src/http/pipeline";
import { rateLimitHeaders } from "../src/http/problem";
import { routeRow } from "../src/http/routes";
import { platformIo } from "../src/providers/io";
import { internal } from "./_generated/api";
import type { ActionCtx } from "./_generated/server";
import { chatFunctions } from "./model/chatFunctions";
import type { TurnRequest, TurnVerdict } from "./model/turnAdmission";

const IDEMPOTENCY_KEY_CHARS_MAX = 255;
/** Gaps between looks at a stream that another worker writes: short while it flows. */
const READ_GAP_MIN_MS = SECOND / 4;
const READ_GAP_MAX_MS = SECOND;
const READ_GAP_GROWTH = 1.5;

/** `POST /api/chat`: admits a turn and streams it, or replays the one its key started. */
export async function chatPost(ctx: ActionCtx, call: CallOf<"chatPost">): Promise<Response> {
  const userId = call.identity.subject;
  const { body } = call;
  const request: TurnRequest = {
    userId,
    ...("message" in body ? withoutUndefined(body.message) : {}),
    ...withoutUndefined({ threadId: body.threadId, modelId: body.modelId }),
    ...(await idempotencyOf(call)),
    ...withoutUndefined({ addressKey: call.client.key }),
  };
  const verdict: TurnVerdict = await throughContention(
    (leaveOut) => ctx.runMutation(internal.chatTurns.admit, { request, leaveOut }),
    {
      failOpen: failOpenLimits(routeRow("chatPost")),
      lost: () =>
        ctx.scheduler.runAfter(0, internal.rateLimit.recordEvent, {
          source: "chat_http",
          bucket: "chat_stream",
          outcome: "contention_fallback",
        }),
    },
  );
  switch (verdict.kind) {
    case "refused": {
      const { code, ...extra } = verdict.error;
      throw new AppError(code, extra);
    }
    case "replay":
      return await replay(ctx, { userId, streamId: verdict.streamId, afterId: 0, call }, REPLAYED);
    case "admitted": {
      const turn: AdmittedTurn = { ...verdict, userId, webSearch: body.webSearch ?? false };
      return eventStream(async (send) => {
        await runAdmittedTurn(turn, {
          ctx,
          env,
          functions: chatFunctions,
          source: "chat_http",
          cyclesMax: readKnob(env, "CHAT_CYCLES_HTTP_MAX"),
          send,
        });
      }, rateLimitHeaders(verdict.info));
    }
  }
}

/** `GET /api/chat/stream`: every stored frame after the last one seen, live until the end. */
export async function chatStream(ctx: ActionCtx, call: CallOf<"chatStream">): Promise<Response> {
  const userId = call.identity.subject;
  const { streamId, lastEventId = "" } = call.query;
  // A header without an id says nothing, so that it does not beat the query.
  const seen = call.request.headers.get("last-event-id") ?? "";
  const afterId = frameIdOf(seen === "" ? lastEventId : seen);
  return await replay(ctx, { userId, streamId, afterId, call });
}

/** `POST /api/chat/abort`: asks the worker, wherever it runs, to end the answer. */
export async function chatAbort(ctx: ActionCtx, call: CallOf<"chatAbort">): Promise<Response> {
  const { threadId, messageId } = call.body;
  await ctx.runMutation(internal.chatTurns.abort, {
    userId: call.identity.subject,
    threadId,
    messageId,
  });
  return new Response(null, { status: 204 });
}

const REPLAYED = { "x-idempotent-replay": "1" };

interface Reading {
  readonly userId: string;
  readonly streamId: string;
  readonly afterId: number;
  readonly call: { readonly request: Request };
}

async function replay(
  ctx: ActionCtx,
  { userId, streamId, afterId, call }: Reading,
  headers: Readonly<Record<string, string>> = {},
): Promise<Response> {
  // The first look decides between a stream and a problem response.
  let page = await ctx.runQuery(internal.chatTurns.read, { userId, streamId, afterId });
  // An id is sent once its frame is stored, so no client can have a later one of this stream.
  // Waiting for it would silently skip all frames until then.
  if (afterId > page.newestId) throw notOfThisStream();
  // Nothing will ever follow what this client has seen: 204 tells an event source to stop.
  if (page.ended && page.frames.length === 0) return new Response(null, { status: 204, headers });
  const { signal } = call.request;
  return eventStream(async (send) => {
    let lastId = afterId;
    let gapMs = READ_GAP_MIN_MS;
    for (;;) {
      for (const { id, data } of page.frames) {
        send(encodeFrame(data, id));
        lastId = id;
      }
      if (page.ended || signal.aborted) return;
      gapMs =
        page.frames.length > 0
          ? READ_GAP_MIN_MS
          : Math.min(READ_GAP_MAX_MS, gapMs * READ_GAP_GROWTH);
      await platformIo.sleep(gapMs);
      page = await ctx.runQuery(internal.chatTurns.read, { userId, streamId, afterId: lastId });
    }
  }, headers);
}

/** The id a client saw last; none is 0, before the first. Throws `invalid_request` for nonsense. */
function frameIdOf(lastEventId: string): number {
  if (lastEventId === "") return 0;
  if (/^\d{1,9}$/.test(lastEventId)) return Number(lastEventId);
  throw notOfThisStream();
}

const notOfThisStream = (): AppError =>
  new AppError("invalid_request", {
    issues: [{ path: "Last-Event-ID", message: "Not the id of an event of this stream" }],
  });

async function idempotencyOf(call: CallOf<"chatPost">): Promise<Pick<TurnRequest, "idempotency">> {
  const header = call.request.headers.get("idempotency-key");
  if (header === null) return {};
  // The draft makes it a quoted string; the bare form is what most clients send.
  const key = /^"(.*)"$/.exec(header.trim())?.[1] ?? header.trim();
  if (key === "" || key.length > IDEMPOTENCY_KEY_CHARS_MAX)
    throw new AppError("invalid_request", {
      issues: [
        { path: "Idempotency-Key", message: `1 to ${IDEMPOTENCY_KEY_CHARS_MAX} characters` },
      ],
    });
  const text = new TextEncoder().encode(JSON.stringify(call.body));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", text));
  const fingerprint = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { idempotency: { key, fingerprint } };
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** Convex refuses an explicit undefined in arguments; an absent field is what is meant. */
function withoutUndefined<T extends object>(fields: T): Defined<T> {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined),
  ) as Defined<T>;
}
