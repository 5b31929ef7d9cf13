import { actionGeneric } from "convex/server";
import { v } from "convex/values";
import type { ToolFunctions } from "../../../src/channels/chat/functions";
import { runToolCall } from "../../../src/channels/chat/toolRunner";
import { env } from "../../../src/config/env";
import { MINUTE } from "../../../src/core/time";
import type { Backend } from "../engine/backend";
import type { Module } from "../engine/app";

const UPSTREAM_MS = 200;

/** A turn's call of a tool, by the code that turns use. */
export function callToolWith(functions: ToolFunctions) {
  return actionGeneric({
    args: { query: v.string() },
    returns: v.string(),
    handler: async (ctx, { query }): Promise<string> => {
      const left: Promise<unknown>[] = [];
      const outcome = await runToolCall(
        {
          index: 0,
          id: "call",
          name: "search_web",
          argumentsText: JSON.stringify({ query }),
          arguments: { query },
        },
        {
          ctx,
          env,
          functions,
          source: "chat_action",
          signal: new AbortController().signal,
          deadlineAtMs: Date.now() + MINUTE,
          defer: (work) => left.push(work),
        },
      );
      await Promise.allSettled(left);
      return outcome.kind;
    },
  });
}

/** The functions that the app hands to its tools. */
export function toolFunctionsOf(modules: ReadonlyMap<string, Module>): ToolFunctions {
  const functions = modules.get("model/chatFunctions")?.["chatFunctions"];
  if (functions === undefined) throw new Error("The app hands its tools no functions.");
  // References are proxies: nothing about them can be checked here.
  return functions as ToolFunctions;
}

export const TOOL_VARIABLES = { SERPER_API_KEY: "benchmark" };

/** Answers web searches after a while; returns how often it was asked. */
export function upstreamOf(backend: Backend): { asked: number } {
  const upstream = { asked: 0 };
  backend.fetch = async () => {
    upstream.asked += 1;
    await backend.clock.sleep(UPSTREAM_MS);
    const organic = [{ title: "A result", link: "https://example.com/", snippet: "of a search" }];
    return Response.json({ searchParameters: {}, organic });
  };
  return upstream;
}
