import { AppError } from "../errors/appError";
import type { Env } from "./env";
import {
  KNOB_NAMES,
  type KnobName,
  knobRow,
  type KnobRow,
  type KnobValue,
  type SecretName,
  type SettingName,
} from "./knobs";
import { type Parsed, parseValue, type Value } from "./parse";
import { relationWarnings } from "./relations";

/** A value that was not used as it stands, or that does not fit another. */
export interface ConfigWarning {
  readonly name: KnobName;
  /** What is wrong, in words that hold no secret. */
  readonly problem: string;
  /** What is used instead. */
  readonly used: string;
}

/**
 * A knob's value, typed by its row. Unset and empty mean the default. A value that the row does not
 * allow means the default too, and a warning; where the row guards something, `misconfigured`.
 */
export function readKnob<Name extends SettingName>(env: Env, name: Name): KnobValue<Name> {
  const row = knobRow(name);
  const parsed = parseKnob(env, name, row);
  if (!parsed.ok && row.security) throw new AppError("misconfigured", { detail: invalid(name) });
  // The row decides both the parser and the type, which the compiler cannot see.
  return (parsed.ok ? parsed.value : row.default) as KnobValue<Name>;
}

/**
 * A secret. Unset, empty or out of form throws `misconfigured`, so that nothing is ever compared
 * with an empty text or signed by one.
 */
export function readSecret(env: Env, name: SecretName): string {
  const value = findSecret(env, name);
  if (value === null) throw new AppError("misconfigured", { detail: `${name} is not set` });
  return value;
}

/** A secret that a deployment may do without: null when unset or empty. Out of form throws. */
export function findSecret(env: Env, name: SecretName): string | null {
  const parsed = parseKnob(env, name, knobRow(name));
  if (!parsed.ok) throw new AppError("misconfigured", { detail: invalid(name) });
  return typeof parsed.value === "string" ? parsed.value : null;
}

const invalid = (name: KnobName): string => `${name} is not valid`;

/** Everything about the variables that an operator should know and would not notice. */
export function configWarnings(env: Env): ConfigWarning[] {
  const values = KNOB_NAMES.flatMap((name) => {
    const row = knobRow(name);
    const parsed = parseKnob(env, name, row);
    return parsed.ok ? [] : [{ name, problem: parsed.problem, used: usedInstead(row) }];
  });
  return [
    ...values,
    ...relationWarnings(
      (name) => numberOrDefault(env, name),
      (name) => isSet(env, name),
    ),
  ];
}

function usedInstead(row: KnobRow): string {
  return row.security ? "nothing: what depends on it answers misconfigured" : format(row.default);
}

const format = (value: Value): string => (Array.isArray(value) ? value.join(", ") : String(value));

function numberOrDefault(env: Env, name: KnobName): number {
  const row = knobRow(name);
  const parsed = parseKnob(env, name, row);
  const value = parsed.ok ? parsed.value : row.default;
  return typeof value === "number" ? value : 0;
}

/** Whether an operator set it, to whatever. */
export const isSet = (env: Env, name: KnobName): boolean => (env[name] ?? "").trim() !== "";

/** Every knob as an operator may see it: secrets as a mark, a value that is not used as null. */
export function publicConfig(env: Env): Record<KnobName, Value | null> {
  const shown = (name: KnobName): Value | null => {
    const row = knobRow(name);
    const parsed = parseKnob(env, name, row);
    if (row.secret) return parsed.ok && parsed.value === null ? null : REDACTED;
    if (parsed.ok) return parsed.value;
    return row.security ? null : row.default;
  };
  return Object.fromEntries(KNOB_NAMES.map((name) => [name, shown(name)])) as Record<
    KnobName,
    Value | null
  >;
}

export const REDACTED = "***redacted***";

function parseKnob(env: Env, name: KnobName, row: KnobRow): Parsed {
  // Spaces at the ends come from files and dashboards, never from a person's intention.
  const raw = (env[name] ?? "").trim();
  return raw === "" ? { ok: true, value: row.default } : parseValue(row, raw);
}
