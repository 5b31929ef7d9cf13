import { DAY } from "../../src/core/time";
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";

type Mailbox = Doc<"gmailMailboxes">;
type Change = Doc<"gmailHistoryChanges">;
type ChangeFields = Omit<Change, "_id" | "_creationTime" | "expiresAtMs">;

/** Pub/Sub keeps an unacknowledged notification for 7 days; no redelivery outlives the row. */
const RETENTION_MS = 30 * DAY;

/** How far a mailbox's history is known, or null for a mailbox never heard of. */
export async function findMailbox(ctx: QueryCtx, emailAddress: string): Promise<Mailbox | null> {
  return await ctx.db
    .query("gmailMailboxes")
    .withIndex("by_email_address", (q) => q.eq("emailAddress", emailAddress))
    .unique();
}

/** Sets a mailbox's history id. The caller has decided that it lies ahead. */
export async function moveMailbox(
  ctx: MutationCtx,
  mailbox: Mailbox | null,
  fields: Omit<Mailbox, "_id" | "_creationTime">,
): Promise<void> {
  if (mailbox === null) await ctx.db.insert("gmailMailboxes", fields);
  else await ctx.db.replace("gmailMailboxes", mailbox._id, fields);
}

/** The change of a mailbox at one history id, or null. */
export async function findChange(
  ctx: QueryCtx,
  { emailAddress, historyId }: Pick<Change, "emailAddress" | "historyId">,
): Promise<Change | null> {
  return await ctx.db
    .query("gmailHistoryChanges")
    .withIndex("by_mailbox_history", (q) =>
      q.eq("emailAddress", emailAddress).eq("historyId", historyId),
    )
    .unique();
}

/** Stores a change that `findChange` did not find. */
export async function insertChange(ctx: MutationCtx, fields: ChangeFields): Promise<void> {
  const expiresAtMs = fields.receivedAtMs + RETENTION_MS;
  await ctx.db.insert("gmailHistoryChanges", { ...fields, expiresAtMs });
}

/** Changes recorded at exactly this time, for a page that continues among them. */
export async function createdAt(ctx: QueryCtx, time: number, count: number): Promise<Change[]> {
  return await ctx.db
    .query("gmailHistoryChanges")
    .withIndex("by_creation_time", (q) => q.eq("_creationTime", time))
    .take(count);
}

/** Changes recorded after this time, oldest first. */
export async function createdAfter(ctx: QueryCtx, time: number, count: number): Promise<Change[]> {
  return await ctx.db
    .query("gmailHistoryChanges")
    .withIndex("by_creation_time", (q) => q.gt("_creationTime", time))
    .take(count);
}

/** Changes whose retention is over. */
export const expired = (ctx: QueryCtx, nowMs: number) =>
  ctx.db.query("gmailHistoryChanges").withIndex("by_expires_at", (q) => q.lt("expiresAtMs", nowMs));
