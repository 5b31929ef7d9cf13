/** Whether two byte strings are equal, in a time that depends on their lengths alone. */
export function equalBytes(left: Uint8Array, right: Uint8Array): boolean {
  if (left.length !== right.length) return false;
  let difference = 0;
  for (const [index, byte] of left.entries()) difference |= byte ^ (right[index] ?? 0);
  return difference === 0;
}

/**
 * Whether a presented text is the expected secret. Digests are compared, so that neither content
 * nor length of the secret shows in the time taken. An empty secret matches nothing.
 */
export async function equalSecret(presented: string, expected: string): Promise<boolean> {
  if (expected === "") return false;
  const [left, right] = await Promise.all([sha256(presented), sha256(expected)]);
  return equalBytes(left, right);
}

async function sha256(text: string): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
}
