import { httpRouter } from "convex/server";
import { gateOf } from "../src/channels/chat/outbound";
import { mount } from "../src/http/mount";
import { httpAction } from "./_generated/server";
import { chatAbort, chatPost, chatStream } from "./chatHttp";
import { gmailPush, googlePushVerifier } from "./integrations/gmailHttp";
import {
  verifyWhatsappSignature,
  whatsappReceive,
  whatsappVerify,
} from "./integrations/whatsappHttp";
import { chatFunctions } from "./model/chatFunctions";

const http = httpRouter();

mount({
  router: http,
  httpAction,
  handlers: {
    chatPost,
    chatStream,
    chatAbort,
    health: async () => Response.json({ ok: true, version: "0.1.0" }),
    openapi: async () => Response.json({}),
    gmailPush,
    whatsappVerify,
    whatsappReceive,
  },
  verifiers: {
    "hub-256": verifyWhatsappSignature,
    "google-push": googlePushVerifier((ctx) => gateOf(ctx, chatFunctions)),
  },
});

export default http;
