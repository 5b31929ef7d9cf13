/** Retention as crons do it: whatever there is, each transaction is bounded, and the last ends it. */
import { expect, test } from "vitest";
import { api, internal } from "../../convex/_generated/api";
import type { Id } from "../../convex/_generated/dataModel";
import type { MutationCtx } from "../../convex/_generated/server";
import { KIB, MIB } from "../../src/core/bytes";
import { DAY } from "../../src/core/time";
import { backend, type Backend, rowCounts, settleAll, START_MS, useStillClock } from "./backend";

useStillClock();

/** What one transaction of a cleanup may read. */
const LIMITS = { documentsRead: 500, bytesRead: 4 * MIB };
/** Rows of a kind: more than one batch takes. */
const MANY = 250;
const LONG_AGO_MS = START_MS - 100 * DAY;

/** What WhatsApp lets a person type, in the letters that take the most bytes. */
const LONGEST_TEXT = "🚢".repeat(4_096);

const message = {
  messageId: "wamid.1",
  from: null,
  fromUserId: null,
  phoneNumberId: null,
  kind: "text",
  text: LONGEST_TEXT,
  textTruncated: false,
  mediaId: null,
  contextId: null,
  sentAtMs: 0,
};

async function insertJob(ctx: MutationCtx, place: "c" | "d", resultJson: string): Promise<void> {
  const job = { p: place, a: LONG_AGO_MS, t: "search_web", c: "r", o: "o", f: 1, v: true } as const;
  const jobId = await ctx.db.insert("toolJobs", job);
  await ctx.db.insert("toolJobPayloads", { jobId, resultJson });
}

async function insertStream(
  ctx: MutationCtx,
  frame: string,
  threadId?: Id<"threads">,
): Promise<void> {
  const thread =
    threadId ??
    (await ctx.db.insert("threads", { userId: "dana", lastMessageAt: 0, isPinned: false }));
  const message = { threadId: thread, role: "assistant", content: "" } as const;
  const streamId = await ctx.db.insert("streamSessions", {
    userId: "dana",
    threadId: thread,
    messageId: await ctx.db.insert("messages", message),
    status: "completed",
    startedAt: LONG_AGO_MS,
    endedAt: LONG_AGO_MS,
    lastHeartbeatAt: LONG_AGO_MS,
    nextFrameId: 2,
    storedBytes: frame.length,
    reservedTokens: 0,
    budgetDay: "2026-01-01",
  });
  await ctx.db.insert("streamChunks", { streamId, firstFrameId: 1, frames: [frame] });
}

/** Rows whose time is over, by the cleanup that ends them. */
const OVER = {
  "toolJobs, with results above an inline one": {
    clean: internal.toolJobs.cleanupExpired,
    fill: (ctx, i) => insertJob(ctx, i % 2 === 0 ? "c" : "d", "x".repeat(2 * KIB)),
    tables: ["toolJobs", "toolJobPayloads"],
  },
  "toolJobs, with the largest results": {
    clean: internal.toolJobs.cleanupExpired,
    fill: (ctx) => insertJob(ctx, "c", "x".repeat(256 * KIB)),
    rows: 40,
    tables: ["toolJobs", "toolJobPayloads"],
  },
  "streams of a word": {
    clean: internal.chatTurns.cleanupExpired,
    fill: (ctx) => insertStream(ctx, "x"),
    tables: ["streamSessions", "streamChunks"],
  },
  "streams of a book": {
    clean: internal.chatTurns.cleanupExpired,
    fill: (ctx) => insertStream(ctx, "x".repeat(256 * KIB)),
    rows: 40,
    tables: ["streamSessions", "streamChunks"],
  },
  "the longest messages of WhatsApp": {
    clean: internal.integrations.inbox.cleanupExpired,
    fill: async (ctx, i) => {
      await ctx.db.insert("webhookInbox", {
        state: i % 2 === 0 ? "dead_letter" : "done",
        event: { type: "message", ...message },
        attempts: 5,
        dueAtMs: LONG_AGO_MS,
        lastErrorCode: null,
        receivedAtMs: LONG_AGO_MS,
      });
      await ctx.db.insert("whatsappMessages", {
        ...message,
        direction: "inbound",
        recipient: null,
        delivery: { status: null, firstAtMs: {}, failure: null },
        receivedAtMs: LONG_AGO_MS,
        expiresAtMs: LONG_AGO_MS,
      });
    },
    tables: ["webhookInbox", "whatsappMessages"],
  },
  "answers of searches": {
    clean: internal.toolCache.cleanupExpired,
    fill: async (ctx, i) => {
      const at = { createdAt: LONG_AGO_MS, expiresAt: LONG_AGO_MS, goneAt: LONG_AGO_MS };
      const value = "x".repeat(64 * KIB);
      await ctx.db.insert("toolResultCache", { namespace: "n", key: `${i}`, value, ...at });
      await ctx.db.insert("toolCacheCounts", { namespace: "n", shard: i, answers: 1 });
    },
    rows: 120,
    tables: ["toolResultCache", "toolCacheCounts"],
  },
  "limits, refusals and alerts": {
    clean: internal.rateLimit.cleanupExpired,
    fill: async (ctx, i) => {
      await ctx.db.insert("limits", { k: `chat_stream:user:${i}`, t: LONG_AGO_MS });
      const refusal = { bucket: "chat_stream", outcome: "blocked", count: 1, shard: i };
      await ctx.db.insert("rateLimitEvents", { ...refusal, minuteMs: LONG_AGO_MS });
    },
    tables: ["limits", "rateLimitEvents"],
  },
  "claims with the largest replies": {
    clean: internal.idempotency.cleanupExpired,
    fill: (ctx, i) =>
      ctx.db.insert("idempotencyKeys", {
        scope: "chat:dana",
        key: `${i}`,
        firstSeenAt: LONG_AGO_MS,
        expiresAt: LONG_AGO_MS,
        state: { kind: "completed", reply: "x".repeat(16 * KIB) },
      }),
    tables: ["idempotencyKeys"],
  },
} as const satisfies Record<
  string,
  {
    readonly clean: unknown;
    readonly fill: (ctx: MutationCtx, i: number) => Promise<unknown>;
    readonly rows?: number;
    readonly tables: readonly string[];
  }
>;

async function fill(
  t: Backend,
  rows: number,
  insert: (ctx: MutationCtx, i: number) => Promise<unknown>,
): Promise<void> {
  const each = 10;
  for (let from = 0; from < rows; from += each)
    await t.run(async (ctx) => {
      for (let i = from; i < Math.min(rows, from + each); i++) await insert(ctx, i);
    });
}

test.each(Object.entries(OVER))("of %s", async (_, over) => {
  const t = backend(LIMITS);
  await fill(t, "rows" in over ? over.rows : MANY, over.fill);
  await t.mutation(over.clean, {});
  await settleAll(t);
  const left = await t.run((ctx) =>
    Promise.all(over.tables.map(async (table) => (await ctx.db.query(table).take(1)).length)),
  );
  expect(left).toEqual(over.tables.map(() => 0));
});

test("of a thread that was removed, however many answers were streamed into it", async () => {
  const t = backend(LIMITS);
  const user = t.withIdentity({ subject: "dana" });
  const { threads } = api;
  const threadId = await user.mutation(threads.create, {});
  await fill(t, MANY, (ctx) => insertStream(ctx, "x", threadId));
  await user.mutation(threads.remove, { threadId });
  await settleAll(t);
  expect(await rowCounts(t)).toEqual({});
});

// Counters of more namespaces than a batch takes, none of which is empty: there is no end to wait for.
test("of the cache's counters goes through all of them once", async () => {
  const t = backend(LIMITS);
  await fill(t, MANY, (ctx, i) =>
    ctx.db.insert("toolCacheCounts", {
      namespace: `n${String(i).padStart(3, "0")}`,
      shard: 0,
      answers: i % 25 === 0 ? 0 : 1,
    }),
  );
  await t.mutation(internal.toolCache.cleanupExpired, {});
  await settleAll(t);
  expect(await rowCounts(t)).toEqual({ toolCacheCounts: (MANY / 25) * 24 });
});
