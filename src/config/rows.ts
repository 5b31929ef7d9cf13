/** Kinds of knob, as data: what a value may be, what it means, who is harmed by a wrong one. */
interface Common {
  /** One sentence or two for the operator. */
  readonly meaning: string;
  readonly group: KnobGroup;
  /**
   * True where the default in place of a wrong value could open what the operator meant to close:
   * requests that depend on it then answer `misconfigured`.
   */
  readonly security: boolean;
}

export type KnobGroup =
  | "Access"
  | "Sign-in"
  | "Rate limits"
  | "Circuit breakers"
  | "Bulkheads"
  | "Idempotency"
  | "Tool cache"
  | "Tool jobs"
  | "Webhook jobs"
  | "Snapshot"
  | "Chat"
  | "Providers"
  | "Gmail"
  | "WhatsApp"
  | "Reports";

type Unit =
  "ms" | "bytes" | "requests" | "minutes" | "tokens" | "jobs" | "rows" | "calls" | "percent";

export interface IntKnob extends Common {
  readonly kind: "int";
  readonly secret: false;
  readonly unit: Unit | null;
  readonly default: number;
  readonly min: number;
  readonly max: number;
}

export interface EnumKnob<Option extends string = string> extends Common {
  readonly kind: "enum";
  readonly secret: false;
  readonly default: Option;
  readonly options: readonly Option[];
}

export interface TextKnob extends Common {
  readonly kind: "text";
  readonly secret: false;
  /** An empty default means that the feature which needs the value is off. */
  readonly default: string;
  /** Anchored regular expression; null where any text will do. */
  readonly pattern: string | null;
}

export interface UrlKnob extends Common {
  readonly kind: "url";
  readonly secret: false;
  readonly default: string;
}

export interface ListKnob extends Common {
  readonly kind: "list";
  readonly secret: false;
  readonly default: readonly string[];
  /** Anchored regular expression that every entry matches. */
  readonly pattern: string;
}

export interface SecretKnob extends Common {
  readonly kind: "secret";
  readonly secret: true;
  readonly security: true;
  readonly default: null;
  readonly pattern: string | null;
}

export type KnobRow = IntKnob | EnumKnob | TextKnob | UrlKnob | ListKnob | SecretKnob;

/** A variable is at most 8 KiB on the platform. */
export const TEXT_BYTES_MAX = 8 * 1024;

interface IntSpec {
  readonly unit?: Unit;
  readonly default: number;
  readonly range: readonly [min: number, max: number];
  readonly meaning: string;
}

interface GroupOf {
  readonly group: KnobGroup;
  readonly security?: boolean;
}

/** A whole number. Capacity, unless said otherwise: a wrong one is replaced by the default. */
export function int({ group, security = false }: GroupOf, spec: IntSpec): IntKnob {
  const { unit = null, range, meaning } = spec;
  const bounds = { default: spec.default, min: range[0], max: range[1] };
  return { kind: "int", unit, ...bounds, meaning, group, security, secret: false };
}

/** One of a few words. */
export function choice<Option extends string>(
  { group, security = false }: GroupOf,
  spec: {
    readonly default: Option;
    readonly options: readonly Option[];
    readonly meaning: string;
  },
): EnumKnob<Option> {
  return { kind: "enum", ...spec, group, security, secret: false };
}

/** Free text, or text of one form. */
export function text(
  { group, security = false }: GroupOf,
  spec: { readonly default: string; readonly pattern?: string; readonly meaning: string },
): TextKnob {
  return {
    kind: "text",
    ...spec,
    pattern: spec.pattern ?? null,
    group,
    security,
    secret: false,
  };
}

/** An address that requests with keys go to, so never replaced by another in silence. */
export function url(group: KnobGroup, address: string, meaning: string): UrlKnob {
  return { kind: "url", default: address, meaning, group, security: true, secret: false };
}

/** Entries between commas; spaces around them do not count. */
export function list(
  { group, security = false }: GroupOf,
  spec: {
    readonly default: readonly string[];
    readonly pattern: string;
    readonly meaning: string;
  },
): ListKnob {
  return { kind: "list", ...spec, group, security, secret: false };
}

/** A value that is never shown, logged or defaulted. */
export function secret(
  group: KnobGroup,
  meaning: string,
  pattern: string | null = null,
): SecretKnob {
  return { kind: "secret", default: null, pattern, meaning, group, security: true, secret: true };
}
