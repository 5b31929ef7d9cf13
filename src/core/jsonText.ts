/** Questions about JSON texts that must be answered before they are parsed. Parsers recurse. */

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPENING = new Set([0x5b, 0x7b]);
const CLOSING = new Set([0x5d, 0x7d]);

/** Whether arrays and objects are nested deeper than `depthMax`; texts that are not JSON may say either. */
export function nestsDeeper(text: string, depthMax: number): boolean {
  let depth = 0;
  let inText = false;
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (inText) {
      if (unit === BACKSLASH) at += 1;
      else if (unit === QUOTE) inText = false;
    } else if (unit === QUOTE) inText = true;
    else if (OPENING.has(unit)) {
      depth += 1;
      if (depth > depthMax) return true;
    } else if (CLOSING.has(unit)) depth -= 1;
  }
  return false;
}

/** A pair of escaped halves, an escaped backslash, or a half on its own. */
const ESCAPES =
  /(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}/g;

/** The JSON text with each escaped half of a surrogate pair that has no other half as U+FFFD. */
export function withoutEscapedHalves(text: string): string {
  return text.replace(ESCAPES, (_half, whole: string | undefined) => whole ?? "\\ufffd");
}

/**
 * Follows a text that grows, and says whether it is one whole object: its last bracket has closed and
 * nothing but spaces has come since. Reads each character once.
 */
export class ObjectScan {
  private depth = 0;
  private inText = false;
  private isEscaped = false;
  private state: "before" | "inside" | "over" | "other" = "before";

  get isOver(): boolean {
    return this.state === "over";
  }

  push(text: string): void {
    for (let at = 0; at < text.length && this.state !== "other"; at++)
      this.read(text.charCodeAt(at));
  }

  private read(unit: number): void {
    if (this.state !== "inside") {
      if (SPACES.has(unit)) return;
      const begins = this.state === "before" && unit === OPENING_BRACE;
      this.state = begins ? "inside" : "other";
      this.depth = 1;
      return;
    }
    if (this.isEscaped) this.isEscaped = false;
    else if (unit === BACKSLASH) this.isEscaped = this.inText;
    else if (unit === QUOTE) this.inText = !this.inText;
    else if (!this.inText && OPENING.has(unit)) this.depth += 1;
    else if (!this.inText && CLOSING.has(unit)) {
      this.depth -= 1;
      if (this.depth === 0) this.state = "over";
    }
  }
}

const SPACES = new Set([0x20, 0x09, 0x0a, 0x0d]);
const OPENING_BRACE = 0x7b;
