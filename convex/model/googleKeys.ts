import type { Doc } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";

type Row = Doc<"googleKeys">;
type Fields = Omit<Row, "_id" | "_creationTime">;

/** The stored key set, or null before the first refresh was begun. */
export async function load(ctx: QueryCtx): Promise<Row | null> {
  return await ctx.db.query("googleKeys").unique();
}

/** The row without what the database adds. */
export function fieldsOf({
  keys,
  freshUntilMs,
  attemptedAtMs,
  fetchedAtMs,
  failedAtMs,
}: Row): Fields {
  const known = { keys, freshUntilMs, attemptedAtMs, fetchedAtMs };
  return failedAtMs === undefined ? known : { ...known, failedAtMs };
}

/** Stores the key set over whatever was there. */
export async function save(ctx: MutationCtx, row: Row | null, fields: Fields): Promise<void> {
  if (row === null) await ctx.db.insert("googleKeys", fields);
  else await ctx.db.replace("googleKeys", row._id, fields);
}
