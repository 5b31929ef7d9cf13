import { AppError } from "../../errors/appError";

type Bytes = Uint8Array<ArrayBuffer>;

/**
 * HMAC-SHA256 (RFC 2104, vectors in RFC 4231) over raw bytes. An empty key throws `misconfigured`:
 * anybody can compute a code under it.
 */
export async function hmacSha256(key: Bytes, data: Bytes): Promise<Bytes> {
  if (key.length === 0)
    throw new AppError("misconfigured", { detail: "A signing secret is empty" });
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const imported = await crypto.subtle.importKey("raw", key, algorithm, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", imported, data));
}

/** Lower-case hexadecimal. */
export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Bytes of a string of hexadecimal pairs. The caller has checked its form. */
export function fromHex(hex: string): Bytes {
  const bytes = new Uint8Array(hex.length / 2);
  for (let index = 0; index < bytes.length; index++)
    bytes[index] = Number.parseInt(hex.slice(index * 2, index * 2 + 2), 16);
  return bytes;
}
