/** Code points kept of a message's text: what WhatsApp lets a person type. */
export const TEXT_CODE_POINTS_MAX = 4_096;

export interface BoundedText {
  readonly text: string;
  readonly truncated: boolean;
}

/**
 * The first `codePointsMax` code points. JSON can spell half of a surrogate pair, and the database
 * stores well-formed Unicode only, so a lone half becomes U+FFFD. A pair is never cut in two.
 */
export function boundText(text: string, codePointsMax = TEXT_CODE_POINTS_MAX): BoundedText {
  // With the u flag only halves without their partner are surrogates.
  const wellFormed = text.replace(/\p{Surrogate}/gu, "\uFFFD");
  let units = 0;
  let codePoints = 0;
  for (const codePoint of wellFormed) {
    if (codePoints === codePointsMax) return { text: wellFormed.slice(0, units), truncated: true };
    codePoints += 1;
    units += codePoint.length;
  }
  return { text: wellFormed, truncated: false };
}
