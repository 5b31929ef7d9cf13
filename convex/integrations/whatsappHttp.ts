import { type Acceptance, answerTo } from "../../src/channels/acceptance";
import type { WebhookCall } from "../../src/channels/call";
import { throughContention } from "../../src/channels/contention";
import { HUB_SIGNATURE_HEADER, verifyHub256 } from "../../src/channels/signature/hub256";
import { readDelivery } from "../../src/channels/whatsapp/delivery";
import { answerHandshake } from "../../src/channels/whatsapp/handshake";
import { type Plan, planOf } from "../../src/channels/whatsapp/parts";
import { env } from "../../src/config/env";
import { readSecret } from "../../src/config/read";
import { failOpenLimits } from "../../src/http/guards";
import { routeRow } from "../../src/http/routes";
import { log } from "../../src/log/log";
import { internal } from "../_generated/api";
import type { ActionCtx } from "../_generated/server";

/** Verifier of the scheme `hub-256`. */
export async function verifyWhatsappSignature(
  _ctx: ActionCtx,
  { headers, bytes }: { readonly headers: Headers; readonly bytes: Uint8Array<ArrayBuffer> },
): Promise<void> {
  const secret = readSecret(env, "WHATSAPP_APP_SECRET");
  await verifyHub256({ signature: headers.get(HUB_SIGNATURE_HEADER), bytes, secret });
}

/** `GET /api/whatsapp/webhook`: Meta asks whether the endpoint is ours. */
export async function whatsappVerify(
  _ctx: ActionCtx,
  { url }: Pick<WebhookCall, "url">,
): Promise<Response> {
  return await answerHandshake(url, readSecret(env, "WHATSAPP_VERIFY_TOKEN"));
}

/** `POST /api/whatsapp/webhook`, verified: everything new in it is stored before the answer. */
export async function whatsappReceive(ctx: ActionCtx, call: WebhookCall): Promise<Response> {
  const { events, ignored } = await readDelivery(call.body, call.nowMs);
  if (ignored > 0) log.event("whatsapp_changes_ignored", { count: ignored });
  return answerTo(events.length === 0 ? null : await accept(ctx, await planOf(events), call));
}

/** One transaction, however large the delivery: it is stored as a whole, or refused as a whole. */
async function accept(
  ctx: ActionCtx,
  plan: Plan,
  { client, nowMs }: WebhookCall,
): Promise<Acceptance> {
  const { accept: acceptEach, acceptParts } = internal.integrations.whatsapp;
  const address = client.key === undefined ? {} : { addressKey: client.key };
  const received = { receivedAtMs: nowMs, ...address };
  return await throughContention(
    async (leaveOut) => {
      if (plan.kind === "each")
        return await ctx.runMutation(acceptEach, { events: plan.events, ...received, leaveOut });
      const { key, parts } = plan;
      return await ctx.runMutation(acceptParts, { key, parts, ...received, leaveOut });
    },
    {
      failOpen: failOpenLimits(routeRow("whatsappReceive")),
      lost: () =>
        ctx.scheduler.runAfter(0, internal.rateLimit.recordEvent, {
          source: "http",
          bucket: "whatsapp_webhook",
          outcome: "contention_fallback",
        }),
    },
  );
}
