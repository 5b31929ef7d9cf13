/**
 * Document ids in Convex's format: base32 of the table number (variable-length), 16 random bytes
 * and a checksum. The alphabet keeps byte order, so ids of one table sort as their bytes do.
 */

const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";
const BITS_PER_CHARACTER = 5;
const BITS_PER_BYTE = 8;
const RANDOM_BYTES = 16;
const FOOTER_BYTES = 2;
const ID_LENGTH_MIN = 31;
const ID_LENGTH_MAX = 37;
const TABLE_NUMBER_BYTES_MAX = 5;
const SEVEN_BITS = 0x7f;
const CONTINUES = 0x80;

/** How many characters every id of a table has. */
export function idLength(tableNumber: number): number {
  const bytes = tableNumberBytes(tableNumber).length + RANDOM_BYTES + FOOTER_BYTES;
  return Math.ceil((bytes * BITS_PER_BYTE) / BITS_PER_CHARACTER);
}

/** An id for a new document; `random` supplies the sixteen bytes that make it unique. */
export function encodeId(tableNumber: number, random: Uint8Array): string {
  const bytes = [...tableNumberBytes(tableNumber), ...random];
  const footer = checksum(bytes, bytes.length);
  return toBase32([...bytes, footer & 0xff, footer >> BITS_PER_BYTE]);
}

/** The table number of a well-formed id, or the reason it is none, in Convex's words. */
export function decodeId(
  id: string,
): { readonly tableNumber: number } | { readonly error: string } {
  const invalidLength = { error: `Unable to decode ID: Invalid ID length ${id.length}` };
  if (id.length < ID_LENGTH_MIN || id.length > ID_LENGTH_MAX) return invalidLength;
  const bytes = fromBase32(id);
  if (bytes === null) return { error: "Unable to decode ID: ID wasn't valid base32" };
  let tableNumber = 0;
  let position = 0;
  for (;;) {
    const byte = bytes[position] ?? 0;
    tableNumber += (byte & SEVEN_BITS) * 2 ** (position * 7);
    position += 1;
    if (byte < CONTINUES) break;
    if (position >= TABLE_NUMBER_BYTES_MAX) {
      return { error: "Unable to decode ID: Invalid table number" };
    }
  }
  const end = position + RANDOM_BYTES;
  if (bytes.length !== end + FOOTER_BYTES || id.length !== idLength(tableNumber)) {
    return invalidLength;
  }
  const footer = (bytes[end] ?? 0) | ((bytes[end + 1] ?? 0) << BITS_PER_BYTE);
  const expected = checksum(bytes, end);
  if (footer !== expected) {
    return { error: `Unable to decode ID: Invalid ID version ${footer} (expected ${expected})` };
  }
  if (tableNumber === 0) return { error: "Unable to decode ID: Invalid table number" };
  return { tableNumber };
}

function tableNumberBytes(tableNumber: number): number[] {
  const bytes: number[] = [];
  let rest = tableNumber;
  while (rest > SEVEN_BITS) {
    bytes.push((rest & SEVEN_BITS) | CONTINUES);
    rest >>>= 7;
  }
  bytes.push(rest);
  return bytes;
}

// Fletcher-16 with modulus 256, as the platform computes it.
function checksum(bytes: ArrayLike<number>, length: number): number {
  let low = 0;
  let high = 0;
  for (let i = 0; i < length; i++) {
    low = (low + (bytes[i] ?? 0)) & 0xff;
    high = (high + low) & 0xff;
  }
  return (high << BITS_PER_BYTE) | low;
}

function toBase32(bytes: readonly number[]): string {
  let text = "";
  let buffer = 0;
  let bits = 0;
  for (const byte of bytes) {
    buffer = (buffer << BITS_PER_BYTE) | byte;
    bits += BITS_PER_BYTE;
    while (bits >= BITS_PER_CHARACTER) {
      bits -= BITS_PER_CHARACTER;
      text += ALPHABET.charAt((buffer >> bits) & 31);
      buffer &= (1 << bits) - 1;
    }
  }
  if (bits > 0) text += ALPHABET.charAt((buffer << (BITS_PER_CHARACTER - bits)) & 31);
  return text;
}

/** Null when a character is not of the alphabet or the left-over bits are not zero. */
function fromBase32(text: string): number[] | null {
  const bytes: number[] = [];
  let buffer = 0;
  let bits = 0;
  for (const character of text) {
    const digit = ALPHABET.indexOf(character);
    if (digit < 0) return null;
    buffer = (buffer << BITS_PER_CHARACTER) | digit;
    bits += BITS_PER_CHARACTER;
    if (bits >= BITS_PER_BYTE) {
      bits -= BITS_PER_BYTE;
      bytes.push(buffer >> bits);
      buffer &= (1 << bits) - 1;
    }
  }
  return buffer === 0 ? bytes : null;
}
