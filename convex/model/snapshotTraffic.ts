/** What came in: claims on requests, streams that run, webhook events that wait. */
import type { Infer } from "convex/values";
import { KIB } from "../../src/core/bytes";
import { MINUTE } from "../../src/core/time";
import type { Doc } from "../_generated/dataModel";
import type { QueryCtx } from "../_generated/server";
import { type Reading, shownName, takeRows } from "./snapshotReading";
import type { replaySection, streamSection, webhookSection } from "./snapshotShape";
import * as Streams from "./streams";

/** Claims may hold the reply they were answered with. */
const CLAIM_BYTES_MAX = 24 * KIB;
const STREAM_ROWS_MAX = 40;
const ORPHAN_ROWS_MAX = 4;
const INBOX_ROWS_MAX = 8;
/** Inbox rows hold the event. */
const INBOX_BYTES_MAX = 12 * KIB;

type ReplaySection = Infer<typeof replaySection>;
type ReplayScope = ReplaySection["byScope"][string];

/**
 * Claims made in the window, by scope, and the duplicates (`hits`) they stopped. A scope that names a user
 * is shown without the name. They are as many as there were requests: read last, by what is left.
 */
export async function replayProtection(
  ctx: QueryCtx,
  reading: Reading,
  hits: ReadonlyMap<string, number>,
): Promise<ReplaySection> {
  const { minutes, nowMs } = reading;
  const rows = await takeRows(
    reading,
    ctx.db
      .query("idempotencyKeys")
      .withIndex("by_first_seen", (q) => q.gte("firstSeenAt", nowMs - minutes * MINUTE))
      .order("desc"),
    {
      section: "replayProtection",
      rowsMax: reading.left.rowsLeft,
      bytesMax: CLAIM_BYTES_MAX,
    },
  );
  const byScope: Record<string, ReplayScope> = {};
  const add = (scope: string, more: Partial<ReplayScope>): void => {
    const totalKeys = (byScope[scope]?.totalKeys ?? 0) + (more.totalKeys ?? 0);
    const duplicateHits = (byScope[scope]?.duplicateHits ?? 0) + (more.duplicateHits ?? 0);
    const duplicateKeys = Math.min(totalKeys, duplicateHits);
    byScope[scope] = { totalKeys, duplicateKeys, duplicateHits };
  };
  for (const { scope } of rows) add(shownScope(scope), { totalKeys: 1 });
  for (const [scope, duplicateHits] of hits) add(shownScope(scope), { duplicateHits });
  return {
    keysInWindow: rows.length,
    duplicateHitsInWindow: [...hits.values()].reduce((sum, n) => sum + n, 0),
    byScope,
  };
}

const shownScope = (scope: string): string => shownName(scope.split(":")[0] ?? scope);

/** Turns that stream now, and those whose worker gave no sign of life for longer than its lease. */
export async function chatStreams(
  ctx: QueryCtx,
  reading: Reading,
): Promise<Infer<typeof streamSection>> {
  const deadFromMs = reading.nowMs - Streams.WORKER_LEASE_MS;
  const section = "chatStreams";
  const orphans = await takeRows(
    reading,
    ctx.db
      .query("streamSessions")
      .withIndex("by_status_heartbeat", (q) =>
        q.eq("status", "streaming").lt("lastHeartbeatAt", deadFromMs),
      ),
    { section, rowsMax: ORPHAN_ROWS_MAX },
  );
  const alive = await takeRows(
    reading,
    ctx.db
      .query("streamSessions")
      .withIndex("by_status_heartbeat", (q) =>
        q.eq("status", "streaming").gte("lastHeartbeatAt", deadFromMs),
      ),
    { section, rowsMax: STREAM_ROWS_MAX },
  );
  return { streaming: alive.length + orphans.length, orphaned: orphans.length };
}

/** Webhook events that wait, or that were given up on. */
export async function webhookInbox(
  ctx: QueryCtx,
  reading: Reading,
): Promise<Infer<typeof webhookSection>> {
  const inState = async (state: "queued" | "dead_letter"): Promise<Doc<"webhookInbox">[]> =>
    await takeRows(
      reading,
      ctx.db.query("webhookInbox").withIndex("by_state_due", (q) => q.eq("state", state)),
      { section: "webhookInbox", rowsMax: INBOX_ROWS_MAX, bytesMax: INBOX_BYTES_MAX },
    );
  const queued = await inState("queued");
  const dead = await inState("dead_letter");
  const oldestMs = Math.min(...queued.map(({ receivedAtMs }) => receivedAtMs));
  return {
    queued: queued.length,
    deadLetter: dead.length,
    oldestQueuedAgeMs: queued.length === 0 ? null : reading.nowMs - oldestMs,
  };
}
