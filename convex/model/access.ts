import { env } from "../../src/config/env";
import { requireIdentity } from "../../src/config/signIn";
import { AppError } from "../../src/errors/appError";
import type { Doc, Id } from "../_generated/dataModel";
import type { ActionCtx, MutationCtx, QueryCtx } from "../_generated/server";

type AnyCtx = Pick<QueryCtx | MutationCtx | ActionCtx, "auth">;

/**
 * The caller's user id. Throws `unauthorized` for a caller without an identity, `misconfigured`
 * where nobody can have one: the same check as the routes have.
 */
export async function requireUserId(ctx: AnyCtx): Promise<string> {
  return (await requireIdentity(ctx.auth, env)).subject;
}

/**
 * A thread of this user. Missing, foreign and malformed are one answer, `not_found`, so that
 * nobody learns which ids exist.
 */
export async function requireThread(
  ctx: QueryCtx,
  userId: string,
  threadId: string,
): Promise<Doc<"threads">> {
  const thread = await findThread(ctx, userId, threadId);
  if (thread === null) throw new AppError("not_found");
  return thread;
}

/** The same without throwing, for functions that answer a refusal as a value. */
export async function findThread(
  ctx: QueryCtx,
  userId: string,
  threadId: string,
): Promise<Doc<"threads"> | null> {
  const id = ctx.db.normalizeId("threads", threadId);
  const thread = id === null ? null : await ctx.db.get("threads", id);
  return thread?.userId === userId ? thread : null;
}

/** A stream of this user, or `not_found`. */
export async function requireStream(
  ctx: QueryCtx,
  userId: string,
  streamId: string,
): Promise<Doc<"streamSessions">> {
  const id = ctx.db.normalizeId("streamSessions", streamId);
  const session = id === null ? null : await ctx.db.get("streamSessions", id);
  if (session?.userId !== userId) throw new AppError("not_found");
  return session;
}

/** A message of a thread already checked, or null. */
export async function findMessage(
  ctx: QueryCtx,
  threadId: Id<"threads">,
  messageId: string,
): Promise<Doc<"messages"> | null> {
  const id = ctx.db.normalizeId("messages", messageId);
  const message = id === null ? null : await ctx.db.get("messages", id);
  return message?.threadId === threadId ? message : null;
}
