import { withoutEscapedHalves } from "./jsonText";

/** What a refusal says of a text that `isWellFormed` rejects. */
export const HALF_A_CHARACTER = "Contains half a character";

/**
 * Whether a text is Unicode: each half of a surrogate pair has its other half. A half on its own has
 * no UTF-8 form, so the platform, stores and providers refuse it, each in its own way.
 */
export const isWellFormed = (text: string): boolean => !/\p{Surrogate}/u.test(text);

/** The text with each half that has no other half replaced by U+FFFD. */
export function wellFormed(text: string): string {
  return text.replace(
    /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g,
    "\uFFFD",
  );
}

/** The beginning of a text: so many characters at most, and none of them cut in half. */
export const beginningOf = (text: string, charsMax: number): string =>
  text.slice(0, charsMax).replace(/[\uD800-\uDBFF]$/, "");

/** A value of JSON with each half that has no other half replaced, keys included. */
export function deepWellFormed<Value>(value: Value): Value {
  const text = JSON.stringify(value);
  // The walk is only for values that hold such a half: everything else stays what it was.
  if (!/\\ud[89a-f]/i.test(text)) return value;
  return JSON.parse(withoutEscapedHalves(text)) as Value;
}

/** Values that travel between functions nest no deeper. */
const DEPTH_MAX = 64;

/** Where in a value of JSON there is half a character, such as `jobs.0.title`; `countMax` at most. */
export function pathsToHalves(value: unknown, countMax: number): string[] {
  const paths: string[] = [];
  collect(value, [], (path) => {
    if (paths.length < countMax) paths.push(path.join("."));
  });
  return paths;
}

/** The path is one array, changed in place: most values are large, and have no half in them. */
function collect(value: unknown, path: string[], found: (path: readonly string[]) => void): void {
  if (typeof value === "string" && !isWellFormed(value)) found(path);
  if (typeof value !== "object" || value === null || path.length > DEPTH_MAX) return;
  for (const [key, part] of Object.entries(value)) {
    // A record's keys are texts too. The path must not carry the half on to its reader.
    const isWhole = isWellFormed(key);
    path.push(isWhole ? key : wellFormed(key));
    if (isWhole) collect(part, path, found);
    else found(path);
    path.pop();
  }
}
