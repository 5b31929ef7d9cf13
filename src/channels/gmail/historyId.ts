/** Google's history ids are unsigned 64-bit numbers: at most 20 digits. */
export const HISTORY_ID_DIGITS_MAX = 20;

/**
 * A history id as decimal text without leading zeros; null where it is none. A number that lost
 * digits to floating point is none: comparing it would move the cursor to a wrong place.
 */
export function normalizeHistoryId(historyId: string | number): string | null {
  if (typeof historyId === "number")
    return Number.isSafeInteger(historyId) && historyId > 0 ? String(historyId) : null;
  const digits = /^0*([1-9][0-9]*)$/.exec(historyId)?.[1];
  return digits !== undefined && digits.length <= HISTORY_ID_DIGITS_MAX ? digits : null;
}

/** Whether a normalized id lies after another. Compared as text: a double cannot hold 64 bits. */
export function isAfter(candidate: string, current: string): boolean {
  if (candidate.length !== current.length) return candidate.length > current.length;
  return candidate > current;
}
