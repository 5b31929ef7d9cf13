import { createEbay, ebaySpec } from "./ebay";
import { createGmail, gmailSpec } from "./gmail";
import { createGoogle, googlePushSpec, googleSpec } from "./google";
import { createOpenRouter, openRouterSpec } from "./openrouter";
import type { ProviderSpec } from "./provider";
import { createSentry, sentrySpec } from "./sentry";
import { createSerpApi, serpApiSpec } from "./serpapi";
import { createSerper, serperSpec } from "./serper";
import { createWhatsapp, whatsappSpec } from "./whatsapp";

/** Every simulated provider, known without starting anything. */
export const SPECS: readonly ProviderSpec[] = [
  openRouterSpec,
  serperSpec,
  ebaySpec,
  serpApiSpec,
  googleSpec,
  googlePushSpec,
  gmailSpec,
  whatsappSpec,
  sentrySpec,
];

/** Fresh instances that share nothing with those of another server. */
export function createProviders() {
  return {
    openrouter: createOpenRouter(),
    serper: createSerper(),
    ebay: createEbay(),
    serpapi: createSerpApi(),
    google: createGoogle(),
    gmail: createGmail(),
    whatsapp: createWhatsapp(),
    sentry: createSentry(),
  };
}

export type Providers = ReturnType<typeof createProviders>;
