import { wellFormed } from "../../core/wellFormed";

/**
 * Joins characters that a provider split over two parts of its stream. Half of a surrogate pair is
 * no Unicode text: neither UTF-8 nor the database can hold it.
 */
export class WholeCharacters {
  private half = "";

  /** The text so far that is whole; the first half of a pair waits for the second. */
  push(text: string): string {
    const joined = this.half + text;
    const last = joined.charCodeAt(joined.length - 1);
    const isHalf = last >= HIGH_SURROGATE_FIRST && last <= HIGH_SURROGATE_LAST;
    this.half = isHalf ? joined.slice(-1) : "";
    return wellFormed(isHalf ? joined.slice(0, -1) : joined);
  }

  /** What is left at the end: a half whose other half never came. */
  flush(): string {
    const { half } = this;
    this.half = "";
    return wellFormed(half);
  }
}

const HIGH_SURROGATE_FIRST = 0xd800;
const HIGH_SURROGATE_LAST = 0xdbff;

/** A text in parts of so many characters, none of which begins with the second half of a pair. */
export function pieces(text: string, charsMax: number): string[] {
  const parts: string[] = [];
  for (let from = 0; from < text.length;) {
    const end = from + charsMax;
    const isHalved = /^[\uDC00-\uDFFF]/.test(text.slice(end, end + 1));
    parts.push(text.slice(from, isHalved ? end - 1 : end));
    from = isHalved ? end - 1 : end;
  }
  return parts;
}
