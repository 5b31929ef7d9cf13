import { AppError } from "../../errors/appError";
import { equalBytes } from "./constantTime";
import { fromHex, hmacSha256, toHex } from "./hmac";

export const HUB_SIGNATURE_HEADER = "x-hub-signature-256";

const FORM = /^sha256=([0-9a-f]{64})$/;

interface HubDelivery {
  /** The header as received; null when absent. Two headers arrive joined by a comma. */
  readonly signature: string | null;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The app secret. Undefined or empty refuses every delivery as `misconfigured`. */
  readonly secret: string | undefined;
}

/**
 * Verifies Meta's `x-hub-signature-256` over the raw body. One exact form is accepted: Meta sends
 * no other, and a lenient parser is how a second header or another scheme slips in. Throws
 * `forbidden`, without saying which part was wrong.
 */
export async function verifyHub256({ signature, bytes, secret }: HubDelivery): Promise<void> {
  if (secret === undefined || secret === "")
    throw new AppError("misconfigured", { detail: "The webhook signing secret is not set" });
  const claimed = parse(signature);
  const computed = await hmacSha256(new TextEncoder().encode(secret), bytes);
  if (claimed === null || !equalBytes(computed, claimed))
    throw new AppError("forbidden", { detail: "The webhook signature is missing or wrong" });
}

/** The header value that Meta would send for these bytes. */
export async function signHub256(secret: string, bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return `sha256=${toHex(await hmacSha256(new TextEncoder().encode(secret), bytes))}`;
}

function parse(signature: string | null): Uint8Array | null {
  const hex = FORM.exec(signature ?? "")?.[1];
  return hex === undefined ? null : fromHex(hex);
}
