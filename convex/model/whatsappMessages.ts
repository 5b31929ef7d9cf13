import { DAY } from "../../src/core/time";
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";

type Row = Doc<"whatsappMessages">;
type Fields = Omit<Row, "_id" | "_creationTime" | "expiresAtMs">;

/** Redeliveries come for 7 days; as long as the row lives a redelivery has no second effect. */
const RETENTION_MS = 30 * DAY;

/** The row of a message id, or null. */
export async function find(ctx: QueryCtx, messageId: string): Promise<Row | null> {
  return await ctx.db
    .query("whatsappMessages")
    .withIndex("by_message_id", (q) => q.eq("messageId", messageId))
    .unique();
}

/** Stores a message that `find` did not find. */
export async function insert(ctx: MutationCtx, fields: Fields): Promise<void> {
  const expiresAtMs = fields.receivedAtMs + RETENTION_MS;
  await ctx.db.insert("whatsappMessages", { ...fields, expiresAtMs });
}

/** Changes fields of a row that `find` found. */
export async function change(ctx: MutationCtx, row: Row, fields: Partial<Fields>): Promise<void> {
  await ctx.db.patch("whatsappMessages", row._id, fields);
}

/** Rows created at exactly this time, for a page that continues among them. */
export async function createdAt(ctx: QueryCtx, time: number, count: number): Promise<Row[]> {
  return await ctx.db
    .query("whatsappMessages")
    .withIndex("by_creation_time", (q) => q.eq("_creationTime", time))
    .take(count);
}

/** Rows created after this time, oldest first. */
export async function createdAfter(ctx: QueryCtx, time: number, count: number): Promise<Row[]> {
  return await ctx.db
    .query("whatsappMessages")
    .withIndex("by_creation_time", (q) => q.gt("_creationTime", time))
    .take(count);
}

/** Rows whose retention is over. */
export const expired = (ctx: QueryCtx, nowMs: number) =>
  ctx.db.query("whatsappMessages").withIndex("by_expires_at", (q) => q.lt("expiresAtMs", nowMs));
