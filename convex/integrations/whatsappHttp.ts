import { type Acceptance, answerTo } from "../../src/channels/acceptance";
import type { WebhookCall } from "../../src/channels/call";
import { throughContention } from "../../src/channels/contention";
import { HUB_SIGNATURE_HEADER, verifyHub256 } from "../../src/channels/signature/hub256";
import { readDelivery } from "../../src/channels/whatsapp/delivery";
import type { WhatsappEvent } from "../../src/channels/whatsapp/event";
import { answerHandshake } from "../../src/channels/whatsapp/handshake";
import { env } from "../../src/config/env";
import { readSecret } from "../../src/config/read";
import { failOpenLimits } from "../../src/http/guards";
import { routeRow } from "../../src/http/routes";
import { log } from "../../src/log/log";
import { internal } from "../_generated/api";
import type { ActionCtx } from "../_generated/server";

/** Events of one accept: a delivery may carry a thousand, a transaction should not. */
const EVENTS_PER_ACCEPT = 100;

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
  const parts: Acceptance[] = [];
  for (let first = 0; first < events.length; first += EVENTS_PER_ACCEPT) {
    const part = events.slice(first, first + EVENTS_PER_ACCEPT);
    parts.push(await accept(ctx, part, call));
  }
  return answerTo(parts);
}

async function accept(
  ctx: ActionCtx,
  events: WhatsappEvent[],
  { client, nowMs }: WebhookCall,
): Promise<Acceptance> {
  const received = { events, receivedAtMs: nowMs };
  const args = client.key === undefined ? received : { ...received, addressKey: client.key };
  return await throughContention(
    (leaveOut) => ctx.runMutation(internal.integrations.whatsapp.accept, { ...args, leaveOut }),
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
