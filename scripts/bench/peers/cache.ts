import { ActionCache } from "@convex-dev/action-cache";
import { makeFunctionReference } from "convex/server";
import { v } from "convex/values";
import { HOUR } from "../../../src/core/time";
import { action, components, internalAction } from "./server";

const PRODUCE_MS = 200;
const VALUE_CHARS = 1_000;

/** How often the producer ran; the harness's, not the app's. */
export const produced = { times: 0 };

export const produce = internalAction({
  args: { key: v.string() },
  returns: v.string(),
  handler: async () => {
    produced.times += 1;
    await new Promise((done) => setTimeout(done, PRODUCE_MS));
    return "x".repeat(VALUE_CHARS);
  },
});

const produceReference = makeFunctionReference<"action", { key: string }, string>("cache:produce");

const cache = new ActionCache(components.actionCache, {
  action: produceReference,
  name: "bench",
  ttl: HOUR,
});

export const fetchCached = action({
  args: { key: v.string() },
  returns: v.string(),
  handler: async (ctx, { key }): Promise<string> => cache.fetch(ctx, { key }),
});
