/**
 * The body as text, or null as soon as it proves larger than allowed: counted while reading,
 * because a declared length is a claim and a chunked body has none.
 */
export async function readBounded(response: Response, bytesMax: number): Promise<string | null> {
  const reader = response.body?.getReader();
  if (reader === undefined) return "";
  const decoder = new TextDecoder();
  let text = "";
  let bytesRead = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return text + decoder.decode(new Uint8Array());
    bytesRead += value.byteLength;
    if (bytesRead > bytesMax) {
      reader.cancel().catch(ignoreGone);
      return null;
    }
    text += decoder.decode(value, { stream: true });
  }
}

/** For a cancel whose connection is already gone, which is what was asked for. */
export function ignoreGone(): void {
  // Nothing is left to do.
}
