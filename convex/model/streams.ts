import { StoredCalls } from "../../src/channels/chat/callEvents";
import { KIB, utf8Bytes } from "../../src/core/bytes";
import { MINUTE, SECOND } from "../../src/core/time";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { type Batch, takeBatch, takeFirst } from "./batch";

/** A worker that has not been heard of for this long is dead, and its stream is ended for it. */
export const WORKER_LEASE_MS = 30 * SECOND;
/** How long the frames of an ended stream can still be read. */
export const FRAMES_KEPT_MS = 60 * MINUTE;
/** Frames one read returns, and chunks it looks at: well below the platform's limits. */
const FRAMES_PER_READ = 2_000;
const CHUNKS_PER_READ = 32;

/** Frames and bytes of one chunk: an array holds 8,192 values and a document 1 MiB. */
const FRAMES_PER_CHUNK = 4_000;
const CHUNK_BYTES_MAX = 256 * KIB;

/** Appends frames after those stored. The caller has checked that it still owns the stream. */
export async function append(
  ctx: MutationCtx,
  session: Doc<"streamSessions">,
  frames: readonly string[],
): Promise<{ nextFrameId: number; storedBytes: number }> {
  let { nextFrameId, storedBytes } = session;
  for (const chunk of chunksOf(frames)) {
    await ctx.db.insert("streamChunks", {
      streamId: session._id,
      firstFrameId: nextFrameId,
      frames: chunk,
    });
    nextFrameId += chunk.length;
    storedBytes += chunk.reduce((sum, frame) => sum + utf8Bytes(frame), 0);
  }
  return { nextFrameId, storedBytes };
}

function chunksOf(frames: readonly string[]): string[][] {
  const chunks: string[][] = [];
  let bytes = 0;
  for (const frame of frames) {
    const frameBytes = utf8Bytes(frame);
    const last = chunks.at(-1);
    const fits = bytes + frameBytes <= CHUNK_BYTES_MAX;
    if (last === undefined || !fits || last.length >= FRAMES_PER_CHUNK) {
      chunks.push([frame]);
      bytes = frameBytes;
    } else {
      last.push(frame);
      bytes += frameBytes;
    }
  }
  return chunks;
}

/** Whether a stream's frames can still be read: while it runs, and for an hour after its end. */
export function isReadable(session: Doc<"streamSessions">, nowMs: number): boolean {
  return session.endedAt === undefined || nowMs < session.endedAt + FRAMES_KEPT_MS;
}

export interface StoredFrame {
  readonly id: number;
  readonly data: string;
}

/** Frames with ids above `afterId`, oldest first, a bounded page of them. */
export async function framesAfter(
  ctx: QueryCtx,
  streamId: Id<"streamSessions">,
  afterId: number,
): Promise<StoredFrame[]> {
  // The chunk that holds afterId + 1 starts at or before it.
  const holding = await ctx.db
    .query("streamChunks")
    .withIndex("by_stream", (q) => q.eq("streamId", streamId).lte("firstFrameId", afterId + 1))
    .order("desc")
    .first();
  const from = holding?.firstFrameId ?? 0;
  const chunks = await ctx.db
    .query("streamChunks")
    .withIndex("by_stream", (q) => q.eq("streamId", streamId).gte("firstFrameId", from))
    .take(CHUNKS_PER_READ);
  const frames: StoredFrame[] = [];
  for (const chunk of chunks)
    for (const [i, data] of chunk.frames.entries()) {
      const id = chunk.firstFrameId + i;
      if (id > afterId && frames.length < FRAMES_PER_READ) frames.push({ id, data });
    }
  return frames;
}

/** Frames that say nothing of the answer itself. */
const SILENT = new Set<unknown>(["start", "provider-route"]);

export interface StoredAnswer {
  readonly text: string;
  readonly calls: StoredCalls;
  /** Whether there is anything of it that a client may have seen. */
  readonly visible: boolean;
}

/**
 * What a stream has stored so far of its answer, which its message shows while, or after, it breaks
 * off.
 */
export async function storedAnswer(
  ctx: QueryCtx,
  streamId: Id<"streamSessions">,
): Promise<StoredAnswer> {
  const parts: string[] = [];
  const calls = new StoredCalls();
  let visible = false;
  let afterId = 0;
  for (;;) {
    const frames = await framesAfter(ctx, streamId, afterId);
    const last = frames.at(-1);
    if (last === undefined) return { text: parts.join(""), calls, visible };
    for (const { data } of frames) {
      const event = JSON.parse(data) as Record<string, unknown>;
      const { content, type } = event;
      if (type === "content" && typeof content === "string") parts.push(content);
      calls.read(event);
      visible ||= !SILENT.has(type);
    }
    afterId = last.id;
  }
}

const STATUSES_ENDED = ["completed", "error", "aborted"] as const;

/**
 * Deletes what ended long enough ago, one batch of it. One stream after the other: sessions that
 * fill a whole batch would leave no room in it for a single chunk.
 */
export async function deleteExpired(
  ctx: MutationCtx,
  nowMs: number,
  batch: Batch,
): Promise<number> {
  let deleted = 0;
  for (const status of STATUSES_ENDED)
    while (!batch.full) {
      const ended = ctx.db
        .query("streamSessions")
        .withIndex("by_status_ended", (q) =>
          q.eq("status", status).lt("endedAt", nowMs - FRAMES_KEPT_MS),
        );
      const session = await takeFirst(ended, batch);
      if (session === null) break;
      deleted += await deleteStream(ctx, session._id, batch);
    }
  return deleted;
}

/** Deletes a stream as far as a batch goes. The session goes last, so that no chunk is orphaned. */
export async function deleteStream(
  ctx: MutationCtx,
  streamId: Id<"streamSessions">,
  batch: Batch,
): Promise<number> {
  const chunks = await takeBatch(
    ctx.db.query("streamChunks").withIndex("by_stream", (q) => q.eq("streamId", streamId)),
    batch,
  );
  for (const chunk of chunks) await ctx.db.delete("streamChunks", chunk._id);
  if (batch.full) return chunks.length;
  await ctx.db.delete("streamSessions", streamId);
  return chunks.length + 1;
}
