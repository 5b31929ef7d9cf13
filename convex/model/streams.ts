import { MINUTE, SECOND } from "../../src/core/time";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";

/** A worker that has not been heard of for this long is dead, and its stream is ended for it. */
export const WORKER_LEASE_MS = 30 * SECOND;
/** How long the frames of an ended stream can still be read. */
export const FRAMES_KEPT_MS = 60 * MINUTE;
/** Frames and bytes one read returns, well below the platform's limits. */
export const FRAMES_PER_READ = 2_000;
const CHUNKS_PER_READ = 64;
/** Bytes of frames one stream may store: a turn that says more is ended as too long. */
export const STREAM_BYTES_MAX = 4 * 1024 * 1024;

/** Frames and bytes of one chunk: an array holds 8,192 values and a document 1 MiB. */
const FRAMES_PER_CHUNK = 4_000;
const CHUNK_BYTES_MAX = 256 * 1024;

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
    storedBytes += chunk.reduce((sum, frame) => sum + frame.length, 0);
  }
  return { nextFrameId, storedBytes };
}

function chunksOf(frames: readonly string[]): string[][] {
  const chunks: string[][] = [];
  let bytes = CHUNK_BYTES_MAX;
  for (const frame of frames) {
    const last = chunks.at(-1);
    if (last === undefined || bytes >= CHUNK_BYTES_MAX || last.length >= FRAMES_PER_CHUNK) {
      chunks.push([frame]);
      bytes = frame.length;
    } else {
      last.push(frame);
      bytes += frame.length;
    }
  }
  return chunks;
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

/** The text a stream has stored so far: what its message shows while, or after, it breaks off. */
export async function storedText(ctx: QueryCtx, streamId: Id<"streamSessions">): Promise<string> {
  const parts: string[] = [];
  let afterId = 0;
  for (;;) {
    const frames = await framesAfter(ctx, streamId, afterId);
    const last = frames.at(-1);
    if (last === undefined) return parts.join("");
    for (const { data } of frames) {
      const event = JSON.parse(data) as { type: string; content?: string };
      if (event.type === "content" && event.content !== undefined) parts.push(event.content);
    }
    afterId = last.id;
  }
}

/** Chunks and sessions one cleanup deletes; the next batch is scheduled when it was full. */
export const DELETED_PER_BATCH = 100;
const STATUSES_ENDED = ["completed", "error", "aborted"] as const;

/** Deletes what ended long enough ago. Chunks go before their session, so none is orphaned. */
export async function deleteExpired(ctx: MutationCtx, nowMs: number): Promise<number> {
  let deleted = 0;
  for (const status of STATUSES_ENDED) {
    const sessions = await ctx.db
      .query("streamSessions")
      .withIndex("by_status_ended", (q) =>
        q.eq("status", status).lt("endedAt", nowMs - FRAMES_KEPT_MS),
      )
      .take(DELETED_PER_BATCH);
    for (const { _id } of sessions) {
      deleted += await deleteStream(ctx, _id, DELETED_PER_BATCH - deleted);
      if (deleted >= DELETED_PER_BATCH) return deleted;
    }
  }
  return deleted;
}

/** Deletes a stream as far as `limit` documents go; the session last. */
export async function deleteStream(
  ctx: MutationCtx,
  streamId: Id<"streamSessions">,
  limit: number,
): Promise<number> {
  const chunks = await ctx.db
    .query("streamChunks")
    .withIndex("by_stream", (q) => q.eq("streamId", streamId))
    .take(limit);
  for (const chunk of chunks) await ctx.db.delete("streamChunks", chunk._id);
  if (chunks.length >= limit) return chunks.length;
  await ctx.db.delete("streamSessions", streamId);
  return chunks.length + 1;
}
