/** What webhook handlers need of a request that the pipeline let through. */
export interface WebhookCall {
  readonly url: URL;
  /** The parsed JSON body. */
  readonly body: unknown;
  readonly client: {
    readonly address: string | null;
    readonly verified: "trusted" | "direct" | "unverified";
  };
  readonly nowMs: number;
}

/** Longest textual form of an IPv6 address with its zone, and some room. */
const ADDRESS_LENGTH_MAX = 64;

/**
 * Key of the sender's address for a limit; undefined where the address is only a claim. Only
 * deliveries whose signature verified come this far, so senders cannot multiply keys at will.
 */
export function addressKey({ client }: WebhookCall): string | undefined {
  if (client.address === null || client.verified === "unverified") return undefined;
  return `address:${client.address.slice(0, ADDRESS_LENGTH_MAX)}`;
}
