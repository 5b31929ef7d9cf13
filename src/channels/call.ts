/** What webhook handlers need of a request that the pipeline let through. */
export interface WebhookCall {
  readonly url: URL;
  /** The parsed JSON body. */
  readonly body: unknown;
  /** The key is what a limit by address counts under; undefined where the address is a claim. */
  readonly client: { readonly key: string | undefined };
  readonly nowMs: number;
}
