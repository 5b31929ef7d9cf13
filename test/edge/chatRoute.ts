import type { ActionCtx } from "../../convex/_generated/server";
import { chatPost } from "../../convex/chatHttp";

/** A turn through the handler of its route, its guards passed: all that it said. */
export async function postChat(ctx: ActionCtx): Promise<string> {
  const request = new Request("http://ballast.test/api/chat", { method: "POST" });
  const response = await chatPost(ctx, {
    request,
    url: new URL(request.url),
    bytes: new Uint8Array(),
    body: { message: { content: "hi" } },
    query: null,
    identity: { subject: "dana", tokenIdentifier: "issuer|dana" },
    requestId: "r",
    traceparent: "00-0-0-00",
    client: { key: undefined, address: null, verified: "unverified", userAgent: null },
    nowMs: Date.now(),
  });
  return await response.text();
}
