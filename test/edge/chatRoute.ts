import type { ActionCtx } from "../../convex/_generated/server";
import { chatPost } from "../../convex/chatHttp";

/** A turn through the handler of its route, its guards passed, from an address with this key. */
export async function postChat(ctx: ActionCtx, addressKey?: string): Promise<Response> {
  const request = new Request("http://ballast.test/api/chat", { method: "POST" });
  return await chatPost(ctx, {
    request,
    url: new URL(request.url),
    bytes: new Uint8Array(),
    body: { message: { content: "hi" } },
    query: null,
    identity: { subject: "dana" },
    requestId: "r",
    traceparent: "00-0-0-00",
    client: { key: addressKey, address: null, verified: "unverified", userAgent: null },
    nowMs: Date.now(),
  });
}
