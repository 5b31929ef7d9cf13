import { v } from "convex/values";
import { KEY_REFRESH_GAP_MS } from "../../src/channels/gmail/keyRefresh";
import { internalMutation, internalQuery } from "../_generated/server";
import * as GoogleKeys from "../model/googleKeys";
import { fetchedKeys } from "../model/integrationTables";

/** Google's keys as last stored, or null before the first refresh. */
export const read = internalQuery({
  args: {},
  returns: v.union(
    v.object({ ...fetchedKeys.fields, attemptedAtMs: v.number(), fetchedAtMs: v.number() }),
    v.null(),
  ),
  handler: async (ctx) => {
    const row = await GoogleKeys.load(ctx);
    if (row === null) return null;
    const { keys, freshUntilMs, attemptedAtMs, fetchedAtMs } = row;
    return { keys, freshUntilMs, attemptedAtMs, fetchedAtMs };
  },
});

/** Whether the caller is the one to fetch the keys now: at most one a minute is. */
export const beginRefresh = internalMutation({
  args: {},
  returns: v.boolean(),
  handler: async (ctx) => {
    const nowMs = Date.now();
    const row = await GoogleKeys.load(ctx);
    if (row !== null && nowMs - row.attemptedAtMs < KEY_REFRESH_GAP_MS) return false;
    const { keys, freshUntilMs, fetchedAtMs } = row ?? NO_KEYS;
    await GoogleKeys.save(ctx, row, { keys, freshUntilMs, fetchedAtMs, attemptedAtMs: nowMs });
    return true;
  },
});

/** Stores keys that were fetched. */
export const save = internalMutation({
  args: { fetched: fetchedKeys },
  returns: v.null(),
  handler: async (ctx, { fetched }) => {
    const nowMs = Date.now();
    const row = await GoogleKeys.load(ctx);
    const attemptedAtMs = row?.attemptedAtMs ?? nowMs;
    await GoogleKeys.save(ctx, row, { ...fetched, attemptedAtMs, fetchedAtMs: nowMs });
    return null;
  },
});

const NO_KEYS = { keys: [], freshUntilMs: 0, fetchedAtMs: 0 };
