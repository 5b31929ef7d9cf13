import { v } from "convex/values";
import { KEY_REFRESH_GAP_MS } from "../../src/channels/gmail/keyRefresh";
import { internalMutation, internalQuery } from "../model/functionBoundaries";
import * as GoogleKeys from "../model/googleKeys";
import { fetchedKeys, storedKeys } from "../model/integrationTables";

/** Google's keys as last stored, or null before the first refresh. */
export const read = internalQuery({
  args: {},
  returns: v.union(v.object(storedKeys), v.null()),
  handler: async (ctx) => {
    const row = await GoogleKeys.load(ctx);
    return row === null ? null : GoogleKeys.fieldsOf(row);
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
    const known = row === null ? NO_KEYS : GoogleKeys.fieldsOf(row);
    await GoogleKeys.save(ctx, row, { ...known, attemptedAtMs: nowMs });
    return true;
  },
});

/** Stores what a refresh brought; null records that it failed and keeps what is known. */
export const save = internalMutation({
  args: { fetched: v.union(fetchedKeys, v.null()) },
  returns: v.null(),
  handler: async (ctx, { fetched }) => {
    const nowMs = Date.now();
    const row = await GoogleKeys.load(ctx);
    const known = row === null ? { ...NO_KEYS, attemptedAtMs: nowMs } : GoogleKeys.fieldsOf(row);
    const news = fetched === null ? { failedAtMs: nowMs } : { ...fetched, fetchedAtMs: nowMs };
    await GoogleKeys.save(ctx, row, { ...known, ...news });
    return null;
  },
});

const NO_KEYS = { keys: [], freshUntilMs: 0, fetchedAtMs: 0 };
